"""Photo -> detected faces: identity, landmarks, pose, crop (method, sections 1 and 2). The detector is injected.

A *picture* is uint8 RGB, [h, w, 3], everywhere in this file; ``to_rgb`` makes one of whatever a person has. Boxes are
(x0, y0, x1, y1) and points (x, y), in pixels of that picture; a size is (height, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from .catalogue import model_file
from .types import DynamicIDError

ORDERS = ("large-small", "small-large", "left-right", "right-left", "top-bottom", "bottom-top", "near-center")
ON_NO_FACE = ("error", "clip only", "skip photo")
PROVIDERS = {  # onnxruntime's names, in the order in which "auto" tries them
    "CUDA": "CUDAExecutionProvider",
    "CoreML": "CoreMLExecutionProvider",
    "DirectML": "DmlExecutionProvider",
    "CPU": "CPUExecutionProvider",
}
(PACK_URL,) = model_file("face_pack").urls
PACK_LICENCE = (
    f"InsightFace's face model packs ({model_file('face_pack').name} and others) are for {model_file('face_pack').licence}, "
    "whatever the licence of this software; ask insightface.ai about other uses."
)
# The models of a pack that are used, by file name, as in buffalo_l/m/s and antelopev2. Only pose can be done without.
PACK_MODELS = {
    "detection": ("det_*.onnx", "scrfd_*.onnx"),
    "recognition": ("w600k_*.onnx", "glintr*.onnx", "arcface*.onnx"),
    "landmark_2d_106": ("2d106*.onnx",),
    "landmark_3d_68": ("1k3d68*.onnx",),
}
OPTIONAL_MODELS = ("landmark_3d_68",)

SMALLEST_PHOTO = 16  # px of the shorter side; nothing can be seen in less
LARGEST_DETECTION = 4096  # px of the longer side: larger pictures are shrunk before faces are looked for
SMALL_FACE = 80  # px of the face box's longer side; ArcFace sees an aligned crop of 112 px
BLURRED_BELOW = 60.0  # variance of the Laplacian of the grey face at 112 px, 0..255
TURNED_YAW, TURNED_PITCH = 40.0, 35.0  # degrees from the front

CURE = "Use photos that show a face from the front, large and sharp"

CLIP_SIZE = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
RASTER_SIZE = 96


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """One face in a picture, in that picture's pixels."""

    box: tuple[float, float, float, float]  # x0, y0, x1, y1; may reach over the picture's edge
    score: float  # the detector's confidence, 0..1
    keypoints: np.ndarray  # [5, 2]: eyes, nose, corners of the mouth, each pair from left to right
    identity: np.ndarray | None = None  # [512] float32, length 1: ArcFace
    landmarks: np.ndarray | None = None  # [106, 2] float32, in InsightFace's order (see motion.py)
    pose: tuple[float, float, float] | None = None  # pitch (up is positive), yaw, roll in degrees

    @property
    def size(self) -> float:
        """The longer side of the box, in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def center(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


class FaceDetector(Protocol):
    """What finds faces. ``InsightFaceDetector`` is the published one."""

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        """Every face of a picture (uint8 RGB [h, w, 3]), in no particular order; an empty list if there is none."""


# --- Pictures ---------------------------------------------------------------------------------------------------------


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _pil_to_array(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":  # 16 bit and float pictures, which PIL would clip
        return np.asarray(image)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = _on_white(image)
    return np.asarray(image.convert("RGB"))


def _open(path: str | Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            image.load()
            return _pil_to_array(image)
    except FileNotFoundError:
        raise DynamicIDError(f"There is no photo {path}. Check the name and the folder.") from None
    except Image.DecompressionBombError as error:
        raise DynamicIDError(f"The photo {path} is too large to open ({error}). Save a smaller copy.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DynamicIDError(f"The photo {path} cannot be read ({error}). Save it as PNG or JPEG.") from error


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
    """Any pixel type -> uint8: 8 bit as it is, wider integers as 16 bit, floats as 0..1."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * 255
    if np.issubdtype(pixels.dtype, np.integer):
        if pixels.size and (pixels.min() < 0 or pixels.max() > 65535):
            raise DynamicIDError(f"Photo values run from {pixels.min()} to {pixels.max()}; expected at most 0..65535.")
        return (pixels.astype(np.float32) / 257 + 0.5).astype(np.uint8)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise DynamicIDError(f"A photo's values are of type {pixels.dtype}; expected integers or floats in 0..1.")
    if not np.isfinite(pixels).all():
        raise DynamicIDError("A photo holds NaN or infinite values; the step that made it went wrong.")
    return (np.clip(pixels, 0, 1).astype(np.float32) * 255 + 0.5).astype(np.uint8)


def to_rgb(image) -> np.ndarray:
    """Any picture -> uint8 RGB [h, w, 3].

    ``image``: a path; a PIL image; or an array or tensor [h, w], [h, w, 1 | 2 | 3 | 4] or a batch of one of these, with
    channels grey, grey + alpha, RGB or RGBA, as uint8, wider integers (0..65535) or floats in 0..1. A camera's
    orientation tag is obeyed, and what is transparent becomes white.
    Raises DynamicIDError for what cannot be read, has other axes, or is smaller than 16 px.
    """
    if isinstance(image, (str, Path)):
        pixels = _open(image)
    elif isinstance(image, Image.Image):
        pixels = _pil_to_array(image)
    elif isinstance(image, Tensor):
        image = image.detach().cpu()
        pixels = (image.float() if image.is_floating_point() else image).numpy()
    else:
        pixels = np.asarray(image)
    if pixels.ndim == 4 and len(pixels) == 1:
        pixels = pixels[0]
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4:
        raise DynamicIDError(f"A photo has shape {pixels.shape}; expected one photo, [height, width, channels].")
    height, width, channels = pixels.shape
    if min(height, width) < SMALLEST_PHOTO:
        raise DynamicIDError(f"A photo of {width}x{height} px is too small to show a face; use at least 64x64 px.")
    pixels = _to_bytes(pixels)
    if channels in (2, 4):
        return np.asarray(_on_white(Image.fromarray(pixels, "LA" if channels == 2 else "RGBA")))
    return np.ascontiguousarray(np.broadcast_to(pixels, (height, width, 3)))


def crop_square(image: np.ndarray, box: Sequence[float], factor: float) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """A square around a face: side ``factor`` times the longer side of ``box``, moved and shrunk to lie in the picture.

    Returns the crop [s, s, 3] and its place (x0, y0, x1, y1), integers, ends excluded.
    """
    if not 0 < factor <= 100:
        raise DynamicIDError(f"The crop factor is {factor}; use 1 for the face alone, about 2 for the head.")
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box
    side = min(max(round(factor * max(x1 - x0, y1 - y0)), 1), height, width)
    left = min(max(round((x0 + x1 - side) / 2), 0), width - side)
    top = min(max(round((y0 + y1 - side) / 2), 0), height - side)
    return image[top : top + side, left : left + side], (left, top, left + side, top + side)


def landmark_fractions(landmarks: np.ndarray, region: Sequence[float]) -> np.ndarray:
    """Points in pixels -> float32 fractions of ``region`` (x0, y0, x1, y1), the part of the picture that is encoded."""
    x0, y0, x1, y1 = region
    return ((np.asarray(landmarks) - (x0, y0)) / (x1 - x0, y1 - y0)).astype(np.float32)


def landmark_raster(fractions: Tensor | np.ndarray) -> Tensor:
    """Landmarks [106, 2] or [n, 106, 2], fractions of the photo -> float32 [n, 1, 96, 96], white (1) on black (-1).

    Method, section 2: a point is drawn at the pixel (int(x), int(y)) if 0 < x < 96 and 0 < y < 96.
    """
    points = torch.as_tensor(fractions, dtype=torch.float32)
    points = (points if points.ndim == 3 else points[None]) * RASTER_SIZE
    raster = torch.full((len(points), 1, RASTER_SIZE, RASTER_SIZE), -1.0)
    face, point = ((points > 0) & (points < RASTER_SIZE)).all(-1).nonzero(as_tuple=True)
    x, y = points[face, point].long().unbind(-1)
    raster[face, 0, y, x] = 1.0
    return raster


def clip_crop(image) -> np.ndarray:
    """What CLIP sees of a photo, uint8 [224, 224, 3]: shorter side to 224 px (bicubic), then the centre.

    As Hugging Face's CLIPImageProcessor does with PIL: the longer side is cut off to an integer, not rounded. A picture
    of this size passes through any host's own preprocessing unchanged (design notes on the host, section 3).
    """
    picture = Image.fromarray(to_rgb(image))
    width, height = picture.size
    short = min(width, height)
    size = (int(CLIP_SIZE * width / short), int(CLIP_SIZE * height / short))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - CLIP_SIZE) // 2, (size[1] - CLIP_SIZE) // 2
    return np.asarray(picture.crop((left, top, left + CLIP_SIZE, top + CLIP_SIZE)))


def clip_pixels(image) -> Tensor:
    """A photo -> CLIP's input, float32 [1, 3, 224, 224], with CLIP's mean and deviation taken out."""
    pixels = torch.from_numpy(clip_crop(image).copy()).float() / 255
    pixels = (pixels - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    return pixels.permute(2, 0, 1)[None]


# --- Choosing ---------------------------------------------------------------------------------------------------------


def order_faces(faces: Sequence[DetectedFace], order: str, size: tuple[int, int]) -> list[DetectedFace]:
    """Faces in one of ``ORDERS``. Size is the area of the box, place its centre; ``size`` is the picture's (h, w)."""
    height, width = size
    keys = {
        "large-small": lambda f: -(f.box[2] - f.box[0]) * (f.box[3] - f.box[1]),
        "small-large": lambda f: (f.box[2] - f.box[0]) * (f.box[3] - f.box[1]),
        "left-right": lambda f: f.center[0],
        "right-left": lambda f: -f.center[0],
        "top-bottom": lambda f: f.center[1],
        "bottom-top": lambda f: -f.center[1],
        "near-center": lambda f: (f.center[0] - width / 2) ** 2 + (f.center[1] - height / 2) ** 2,
    }
    if order not in keys:
        raise DynamicIDError(f"Face order {order!r} is unknown; choose one of {', '.join(ORDERS)}.")
    return sorted(faces, key=keys[order])


def pick_face(faces: Sequence[DetectedFace], order: str, index: int, size: tuple[int, int]) -> DetectedFace:
    """The face with number ``index`` (from 0) in ``order``; DynamicIDError, with their number, if none has it."""
    ordered = order_faces(faces, order, size)
    if not ordered:
        raise DynamicIDError(f"No face was found in the photo. {CURE}.")
    if not 0 <= index < len(ordered):
        count = "1 face was" if len(ordered) == 1 else f"{len(ordered)} faces were"
        raise DynamicIDError(f"{count} found, numbered from 0 to {len(ordered) - 1}, but face {index} was asked for.")
    return ordered[index]


def on_no_face(found: Sequence[DetectedFace | None], policy: str = "error") -> tuple[list[int], str]:
    """Which photos to encode, by place in ``found``, and a note for the user ("" if every photo shows a face).

    ``policy``: ``error`` refuses photos without a face; ``clip only`` encodes them with the identity left at zero, as
    published; ``skip photo`` leaves them out.
    Raises DynamicIDError, with the numbers (from 1) of the photos, for ``error``, or when none would be left.
    """
    if policy not in ON_NO_FACE:
        raise DynamicIDError(f"on_no_face is {policy!r}; choose one of {', '.join(ON_NO_FACE)}.")
    without = [number for number, face in enumerate(found, 1) if face is None]
    if not without:
        return list(range(len(found))), ""
    which = f"photo {without[0]}" if len(without) == 1 else "photos " + ", ".join(map(str, without))
    note = f"No face was found in {which} of {len(found)}"
    if policy == "clip only":
        return list(range(len(found))), f"{note}: only the appearance is taken from there, not the identity."
    if policy == "skip photo" and len(without) < len(found):
        return [place for place, face in enumerate(found) if face is not None], f"{note}: left out."
    other = "or set on_no_face to 'clip only', which takes the appearance without the identity"
    raise DynamicIDError(f"{note}. {CURE}; {other}.")


# --- InsightFace ------------------------------------------------------------------------------------------------------


class InsightFaceDetector:
    """Faces by an InsightFace model pack (SCRFD, ArcFace, 2d106det, 1k3d68), one session for each model.

    Detection, landmarks and pose get the picture in BGR, as InsightFace expects. The identity is read off in the order
    of ``identity_channels``: "rgb" is what the published pipeline did, and what its checkpoints were trained with;
    "bgr" is what InsightFace expects (method, section 1).

    A picture in which nothing is found is tried again at half the detection size and with a grey border, because a face
    that fills the picture is larger than any that the detector was trained on. Nothing is kept between calls, so that
    one detector can serve several threads.
    """

    BORDER = 0.5  # of the picture's size, on every side

    def __init__(
        self,
        models: dict[str, Path],
        providers: Sequence[str] = ("CPUExecutionProvider",),
        det_size: int = 640,
        threshold: float = 0.5,
        identity_channels: str = "rgb",
    ):
        """``models``: task (a key of ``PACK_MODELS``) -> .onnx file; ``providers``: onnxruntime's, best first."""
        if identity_channels not in ("rgb", "bgr"):
            raise DynamicIDError(f"identity_channels is {identity_channels!r}; it must be 'rgb' or 'bgr'.")
        self.identity_channels = identity_channels
        self.det_size = det_size
        self._models = {task: _load_model(task, path, providers) for task, path in models.items()}
        for task, model in self._models.items():
            model.prepare(0, **({"det_thresh": threshold} if task == "detection" else {}))

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        """Every face of ``image``, uint8 RGB [h, w, 3], in its pixels."""
        scale = max(*image.shape[:2], LARGEST_DETECTION) / LARGEST_DETECTION
        rgb = image
        if scale > 1:
            size = tuple(max(round(n / scale), 1) for n in image.shape[1::-1])
            rgb = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
        bgr = np.ascontiguousarray(rgb[..., ::-1])
        boxes, keypoints = self._find(bgr)
        return [self._describe(rgb, bgr, *face, scale) for face in zip(boxes, keypoints, strict=True)]

    def _find(self, bgr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes with scores [n, 5] and key points [n, 5, 2], of the first attempt that finds a face."""
        for border in (0.0, self.BORDER):
            y, x = (int(n * border) for n in bgr.shape[:2])
            picture = np.pad(bgr, ((y, y), (x, x), (0, 0)), constant_values=127)  # grey: about 0 after normalisation
            for side in (self.det_size, self.det_size // 2):
                # InsightFace makes an empty picture of one much longer than wide; such a one is never a portrait
                if min(picture.shape[:2]) * side < max(picture.shape[:2]):
                    continue
                boxes, keypoints = self._models["detection"].detect(picture, input_size=(side, side))
                if len(boxes):
                    return boxes - (x, y, x, y, 0), keypoints - (x, y)
        return np.empty((0, 5)), np.empty((0, 5, 2))

    def _describe(
        self, rgb: np.ndarray, bgr: np.ndarray, box: np.ndarray, keypoints: np.ndarray, scale: float
    ) -> DetectedFace:
        from insightface.app.common import Face

        face = Face(bbox=box[:4].astype(np.float32), kps=keypoints.astype(np.float32), det_score=box[4])
        for task in ("landmark_2d_106", "landmark_3d_68"):
            if task in self._models:
                self._models[task].get(bgr, face)
        self._models["recognition"].get(rgb if self.identity_channels == "rgb" else bgr, face)
        length = float(np.linalg.norm(face.embedding))
        return DetectedFace(
            box=tuple(float(v) * scale for v in box[:4]),
            score=float(box[4]),
            keypoints=face.kps * scale,
            identity=(face.embedding / length).astype(np.float32) if length > 0 else None,
            landmarks=None if face.landmark_2d_106 is None else (face.landmark_2d_106 * scale).astype(np.float32),
            pose=None if face.pose is None else tuple(float(v) for v in face.pose),
        )


def _load_model(task: str, path: Path, providers: Sequence[str]):
    """One model by InsightFace's own loader, which downloads nothing when it is given a file."""
    get_model = _insightface().model_zoo.get_model
    try:
        # InsightFace 2 would else load the detector once more for every picture size; 0.7 ignores the option.
        model = get_model(str(path), providers=list(providers), static_shape_sessions=False)
    except Exception as error:  # onnxruntime and protobuf raise many kinds
        raise DynamicIDError(
            f"The face model {path} cannot be loaded ({error}). "
            f"The download may be incomplete; unpack it again: {PACK_URL}"
        ) from error
    found = getattr(model, "taskname", "nothing known")
    if found != task:
        raise DynamicIDError(f"{path} is named like a {task} model, but is for {found}. Unpack it again: {PACK_URL}")
    return model


def _insightface():
    for module, package in (("onnxruntime", "onnxruntime"), ("insightface", "insightface")):
        try:
            imported = __import__(module)
        except ImportError as error:
            raise DynamicIDError(
                f"Finding faces needs the Python package {package} ({error}). Install it with: "
                "python -m pip install insightface onnxruntime"
            ) from error
    return imported


def choose_providers(provider: str = "auto") -> list[str]:
    """``auto``, ``CUDA``, ``CoreML``, ``DirectML`` or ``CPU`` -> onnxruntime's providers, the CPU as last resort."""
    _insightface()
    import onnxruntime

    available = onnxruntime.get_available_providers()
    here = {name: full for name, full in PROVIDERS.items() if full in available}
    known = {name.lower(): name for name in PROVIDERS}
    name = next(iter(here), "CPU") if provider.lower() == "auto" else known.get(provider.lower())
    if name not in here:
        raise DynamicIDError(
            f"Provider {provider!r} is not available in this onnxruntime, which has: {', '.join(here)}. "
            "Choose one of these or 'auto'; CUDA needs the package onnxruntime-gpu, "
            "DirectML onnxruntime-directml, instead of onnxruntime."
        )
    return list(dict.fromkeys((here[name], here.get("CPU", here[name]))))


def _models_in(folder: Path) -> dict[str, Path]:
    """Task -> file, for those models of ``PACK_MODELS`` that lie in ``folder``."""
    found = {}
    for task, patterns in PACK_MODELS.items():
        files = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
        if files:
            found[task] = files[0]
    return found


def pack_folders(pack: str, roots: Sequence[str | Path] = ()) -> list[Path]:
    """Where a model pack is looked for, in this order; archives often unpack one folder too deep, so there as well."""
    places = [Path(pack).expanduser()] if Path(pack).is_dir() else []
    for root in [*(Path(root).expanduser() for root in roots), Path.home() / ".insightface"]:
        places += [root / "models" / pack, root / pack]
    places = [folder for place in places for folder in (place, place / place.name)]
    return list(dict.fromkeys(places))


def find_pack(pack: str = "buffalo_l", roots: Sequence[str | Path] = ()) -> dict[str, Path]:
    """A model pack's files by task: the first folder that holds a detection, a recognition and a 106 point model.

    Raises DynamicIDError with every folder searched, what was missing there, the download address and the licence.
    """
    needed = [task for task in PACK_MODELS if task not in OPTIONAL_MODELS]
    searched = []
    for folder in pack_folders(pack, roots):
        models = _models_in(folder)
        missing = [f"{task} ({PACK_MODELS[task][0]})" for task in needed if task not in models]
        if not missing:
            return models
        searched.append(f"  {folder}" + (f": lacks {', '.join(missing)}" if models else ""))
    goal = Path(roots[0] if roots else Path.home() / ".insightface").expanduser() / "models" / pack
    raise DynamicIDError(
        f"The face model pack {pack!r} was not found. Searched:\n" + "\n".join(searched) + f"\n"
        f"Download {PACK_URL.replace('buffalo_l', Path(pack).name)} and unpack its .onnx files into {goal}. "
        f"{PACK_LICENCE}"
    )


def load_detector(
    pack: str = "buffalo_l",
    roots: Sequence[str | Path] = (),
    provider: str = "auto",
    *,
    det_size: int = 640,
    threshold: float = 0.5,
    identity_channels: str = "rgb",
) -> InsightFaceDetector:
    """A detector from a model pack on this machine; nothing is ever downloaded.

    ``pack``: the name of a pack, or its folder. The published checkpoints know the identities of ``buffalo_l`` only;
    the recogniser of another pack gives others. ``roots``: folders to search, as in ``pack_folders``.
    Raises DynamicIDError for a missing package, pack or provider, and for damaged files.
    """
    providers = choose_providers(provider)
    return InsightFaceDetector(find_pack(pack, roots), providers, det_size, threshold, identity_channels)


# --- Preview ----------------------------------------------------------------------------------------------------------


def quality(image: np.ndarray, face: DetectedFace) -> list[str]:
    """What speaks against a face as a reference: any of "small", "blurred", "turned away".

    ``small``: less than 80 px; ``blurred``: the Laplacian of the grey face at 112 px has a variance below 60 (of 8 bit
    values); ``turned away``: more than 40 degrees of yaw or 35 of pitch.
    """
    hints = ["small"] if face.size < SMALL_FACE else []
    crop, _ = crop_square(image, face.box, 1.0)
    grey = np.asarray(Image.fromarray(crop).convert("L").resize((112, 112), Image.Resampling.BICUBIC), dtype=np.float32)
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    if laplacian.var() < BLURRED_BELOW:
        hints.append("blurred")
    if face.pose is not None and (abs(face.pose[1]) > TURNED_YAW or abs(face.pose[0]) > TURNED_PITCH):
        hints.append("turned away")
    return hints


def draw_caption(
    draw: ImageDraw.ImageDraw, lines: list[str], box: Sequence[float], color: str, size: tuple[int, int]
) -> None:
    """Lines of text on a dark plate, under the box, or above it or inside where there is no room."""
    font = ImageFont.load_default(max(13, round(min(size) * 0.045)))
    text = "\n".join(lines)
    _, _, width, height = draw.multiline_textbbox((0, 0), text, font=font)
    pad = max(2, height // (6 * len(lines)))
    wide, high = width + 2 * pad, height + 2 * pad
    x = min(max(box[0], 0), max(size[1] - wide, 0))
    y = box[3] if box[3] + high <= size[0] else box[1] - high
    y = min(max(y, 0), max(size[0] - high, 0))
    draw.rectangle((x, y, x + wide, y + high), fill="#101010")
    draw.multiline_text((x + pad, y + pad), text, font=font, fill=color)


def _face_lines(image: np.ndarray, face: DetectedFace, number: int, chosen: bool) -> list[str]:
    lines = [f"face {number}: chosen" if chosen else f"face {number}"]
    if chosen and face.pose is not None:
        lines.append("pitch {}  yaw {}  roll {}".format(*(round(angle) for angle in face.pose)))
    hints = quality(image, face)
    return lines + ([", ".join(hints)] if hints else [])


def draw_faces(image: np.ndarray, faces: Sequence[DetectedFace], chosen: int | None = None) -> np.ndarray:
    """A copy of the picture with every face boxed and numbered from 0, in the order of ``faces``.

    The chosen face, by its number, is green with its landmarks, pose and quality hints, the others yellow with their
    number and hints.
    """
    size = image.shape[:2]
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    line = max(2, round(min(size) / 250))
    order = sorted(range(len(faces)), key=lambda i: i == chosen)  # the chosen one last, on top
    colors = ["#40ff60" if i == chosen else "#ffd030" for i in range(len(faces))]
    for i in order:
        x0, y0, x1, y1 = faces[i].box
        draw.rectangle((x0 - line, y0 - line, x1 + line, y1 + line), outline="#101010", width=line * 3)
        draw.rectangle((x0, y0, x1, y1), outline=colors[i], width=line)
        if i == chosen and faces[i].landmarks is not None:
            radius = max(1.0, faces[i].size / 150)
            for x, y in faces[i].landmarks:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colors[i])
    for i in order:  # over all boxes
        draw_caption(draw, _face_lines(image, faces[i], i, i == chosen), faces[i].box, colors[i], size)
    return np.asarray(picture)
