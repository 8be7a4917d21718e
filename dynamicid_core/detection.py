"""Faces by an InsightFace model pack that lies on this machine, behind :class:`faces.FaceDetector`.

Nothing is ever downloaded: InsightFace's loader is given files, and a pack that is missing is an error that says where
to get it. Boxes are (x0, y0, x1, y1), in pixels of the picture; a size is (height, width).
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from .catalogue import model_file
from .faces import DetectedFace
from .origins import BGR, recogniser_name
from .types import RECOGNISER, DynamicIDError

Warn = Callable[[str], object]
T = TypeVar("T")

PROVIDERS = {  # onnxruntime's names, in the order in which "auto" tries them
    "CUDA": "CUDAExecutionProvider",
    "CoreML": "CoreMLExecutionProvider",
    "DirectML": "DmlExecutionProvider",
    "CPU": "CPUExecutionProvider",
}
(PACK_URL,) = model_file("face_pack").urls
PUBLISHED_PACKS = ("antelopev2", "buffalo_l", "buffalo_m", "buffalo_s", "buffalo_sc")  # all below the same address
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

LARGEST_DETECTION = 4096  # px of the longer side: larger pictures are shrunk before faces are looked for


# Packs share recognisers: buffalo_m has that of buffalo_l. File -> the pack by which it goes; of others the folder's name
# tells, since several recognisers come under one file name (glintr100.onnx of antelopev2 and of AuraFace).
RECOGNISERS = {
    "w600k_r50": RECOGNISER, "w600k_mbf": "buffalo_s", "arcface_drawn": "drawn", "arcface_judge": "drawn_judge",
}  # fmt: skip


def recogniser_in(models: Mapping[str, Path], identity_channels: str = "rgb") -> str:
    """What the identities of a pack go by; ``models`` as :func:`find_pack` gives them."""
    file = models["recognition"]
    return recogniser_name(RECOGNISERS.get(file.stem, file.absolute().parent.name), identity_channels)


class InsightFaceDetector:
    """Faces by an InsightFace model pack (SCRFD, ArcFace, 2d106det, 1k3d68), one session for each model.

    Detection, landmarks and pose get the picture in BGR, as InsightFace expects. The identity is read off in the order
    of ``identity_channels``: "rgb" is what the published pipeline did, and what its checkpoints were trained with;
    "bgr" is what InsightFace expects (docs/method.md, section 1).

    A picture in which nothing is found is tried again at half the detection size and with a grey border, because a face
    that fills the picture is larger than any that the detector was trained on. Nothing is kept between calls, so that
    one detector can serve several threads.

    Where onnxruntime's provider fails, while models are loaded or while they run, the next one takes over for good, and
    ``warn`` is told once.
    """

    BORDER = 0.5  # of the picture's size, on every side

    def __init__(
        self,
        models: Mapping[str, Path],
        providers: Sequence[str] = ("CPUExecutionProvider",),
        det_size: int = 640,
        threshold: float = 0.5,
        identity_channels: str = "rgb",
        warn: Warn = warnings.warn,
    ) -> None:
        """``models``: task (a key of ``PACK_MODELS``) -> .onnx file; ``providers``: onnxruntime's, best first."""
        if identity_channels not in ("rgb", "bgr"):
            raise DynamicIDError(f"identity_channels is {identity_channels!r}; it must be 'rgb' or 'bgr'.")
        self.identity_channels = identity_channels
        self.recogniser = recogniser_in(models, identity_channels)
        self.det_size, self.warn = det_size, warn
        self._files, self._threshold, self._moving = dict(models), threshold, Lock()
        self._providers, self._models = self._load(tuple(providers))

    def _load(self, providers: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, Any]]:
        """The models on the first of these providers that takes them, and those that are left, from that one on."""
        failed: dict[str, Exception] = {}
        for first, provider in enumerate(providers):
            left = providers[first:]
            try:
                models = {task: _load_model(task, path, left) for task, path in self._files.items()}
            except Exception as error:
                if len(left) == 1:
                    raise
                failed[provider] = error
                continue
            break
        for task, model in models.items():
            model.prepare(0, **({"det_thresh": self._threshold} if task == "detection" else {}))
        for provider, reason in failed.items():
            self.warn(_failed(provider, left[0], reason))
        return left, models

    def _on_next(self, failed: tuple[str, ...], error: Exception) -> None:
        """Have the provider after the first of ``failed`` take over, unless another thread has seen to it."""
        with self._moving:
            if self._providers is failed:
                self._providers, self._models = self._load(failed[1:])
                self.warn(_failed(failed[0], self._providers[0], error))

    def _trying(self, work: Callable[[], T]) -> T:
        """What ``work`` gives with the first provider that does not fail."""
        while True:
            providers = self._providers
            try:
                return work()
            except Exception as error:  # onnxruntime raises many kinds; what is wrong with the picture fails again
                if len(providers) == 1:
                    raise
                self._on_next(providers, error)

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        """Every face of ``image``, uint8 RGB [h, w, 3], in its pixels."""
        return self._trying(lambda: self._detect(image))

    def _detect(self, image: np.ndarray) -> list[DetectedFace]:
        scale = max(*image.shape[:2], LARGEST_DETECTION) / LARGEST_DETECTION
        rgb = image
        if scale > 1:
            height, width = (max(round(n / scale), 1) for n in image.shape[:2])
            rgb = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))
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
        x0, y0, x1, y1 = (float(v) * scale for v in box[:4])
        return DetectedFace(
            box=(x0, y0, x1, y1),
            score=float(box[4]),
            keypoints=face.kps * scale,
            identity=self._identity(rgb if self.identity_channels == "rgb" else bgr, face),
            landmarks=None if face.landmark_2d_106 is None else (face.landmark_2d_106 * scale).astype(np.float32),
            pose=None if face.pose is None else (float(face.pose[0]), float(face.pose[1]), float(face.pose[2])),
        )

    def identity_at(self, image: np.ndarray, keypoints: np.ndarray) -> np.ndarray | None:
        """The identity [512] of a face of ``image``, uint8 RGB [h, w, 3], whose five key points [5, 2] are known."""
        from insightface.app.common import Face

        seen = image if self.identity_channels == "rgb" else np.ascontiguousarray(image[..., ::-1])
        return self._trying(lambda: self._identity(seen, Face(kps=keypoints.astype(np.float32))))

    def _identity(self, picture: np.ndarray, face: Any) -> np.ndarray | None:
        self._models["recognition"].get(picture, face)
        length = float(np.linalg.norm(face.embedding))
        return (face.embedding / length).astype(np.float32) if length > 0 else None


def _failed(provider: str, successor: str, error: Exception) -> str:
    names = {full: name for name, full in PROVIDERS.items()}
    said = textwrap.shorten(str(error.__cause__ or error) or type(error).__name__, 200)
    return (
        f"Faces cannot be found with {names.get(provider, provider)} ({said}); "
        f"from now on {names.get(successor, successor)} does it."
    )


def _load_model(task: str, path: Path, providers: Sequence[str]) -> Any:
    """One model by InsightFace's own loader, which is given a file, not a name, and so has nothing to download.

    ``providers``: the first one runs it, the last one what the first does not know.
    """
    get_model = _insightface().model_zoo.get_model
    try:
        # InsightFace would else load the detector once more for every picture size.
        wanted = list(dict.fromkeys((providers[0], providers[-1])))
        model = get_model(str(path), providers=wanted, static_shape_sessions=False)
    except Exception as error:  # onnxruntime and protobuf raise many kinds
        raise DynamicIDError(
            f"The face model {path} cannot be loaded ({error}). "
            f"The download may be incomplete; unpack it again: {PACK_URL}"
        ) from error
    # onnxruntime takes the CPU without a word, or with one on stdout, where it cannot start a provider that it offers.
    if providers[0] not in model.session.get_providers():
        raise DynamicIDError(f"onnxruntime offers {providers[0]}, but cannot start it here")
    model.session.disable_fallback()
    found = getattr(model, "taskname", "nothing known")
    if found != task:
        raise DynamicIDError(f"{path} is named like a {task} model, but is for {found}. Unpack it again: {PACK_URL}")
    return model


def _insightface() -> ModuleType:
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
    """``auto``, ``CUDA``, ``CoreML``, ``DirectML`` or ``CPU`` -> onnxruntime's providers, the CPU as last resort.

    ``auto``: all that are there, best first.
    """
    _insightface()
    import onnxruntime

    available = onnxruntime.get_available_providers()
    here = {name: full for name, full in PROVIDERS.items() if full in available}
    known = {name.lower(): name for name in PROVIDERS}
    if provider.lower() == "auto":
        return list(here.values())
    name = known.get(provider.lower())
    if name not in here:
        raise DynamicIDError(
            f"Provider {provider!r} is not available in this onnxruntime, which has: {', '.join(here)}. "
            "Choose one of these or 'auto'; CUDA needs the package onnxruntime-gpu, "
            "DirectML onnxruntime-directml, instead of onnxruntime."
        )
    return list(dict.fromkeys((here[name], here.get("CPU", here[name]))))


def _models_in(folder: Path) -> dict[str, Path]:
    """Task -> file, for those models of ``PACK_MODELS`` that lie in ``folder``."""
    found: dict[str, Path] = {}
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
    raise DynamicIDError(
        f"The face model pack {pack!r} was not found. Searched:\n" + "\n".join(searched) + f"\n"
        f"{_how_to_get(pack, roots)} {PACK_LICENCE}"
    )


def _how_to_get(pack: str, roots: Sequence[str | Path]) -> str:
    root = Path(roots[0] if roots else Path.home() / ".insightface").expanduser()
    if (name := Path(pack).name) in PUBLISHED_PACKS:
        url = PACK_URL.replace(model_file("face_pack").name, name)
        return f"Download {url} and unpack its .onnx files into {root / 'models' / name}."
    place = root / "models" / name
    return f"InsightFace publishes {', '.join(PUBLISHED_PACKS)}; of another, put the .onnx files into {place}."


def split_pack(pack: str, identity_channels: str = "rgb") -> tuple[str, str]:
    """What a user typed for a pack -> its name or folder, and in which order of colours identities are read."""
    return (pack.removesuffix(BGR), "bgr") if pack.endswith(BGR) else (pack, identity_channels)


def load_detector(
    pack: str = "buffalo_l",
    roots: Sequence[str | Path] = (),
    provider: str = "auto",
    *,
    det_size: int = 640,
    threshold: float = 0.5,
    identity_channels: str = "rgb",
    warn: Warn = warnings.warn,
) -> InsightFaceDetector:
    """A detector from a model pack on this machine; nothing is ever downloaded.

    ``pack``: the name of a pack, or its folder. The published checkpoints know the identities of ``buffalo_l`` only;
    the recogniser of another pack gives others. After the name, `` (bgr)`` does what ``identity_channels="bgr"`` does, so
    that what :func:`origins.recogniser_name` gives can be typed. ``roots``: folders to search, as in ``pack_folders``. ``warn`` is told of a provider that fails.
    Raises DynamicIDError for a missing package, pack or provider, and for damaged files.
    """
    pack, identity_channels = split_pack(pack, identity_channels)
    providers = choose_providers(provider)
    return InsightFaceDetector(find_pack(pack, roots), providers, det_size, threshold, identity_channels, warn)
