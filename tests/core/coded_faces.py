"""Photos whose faces say what a detector would: an exact function of the pixels, that stands blur, scaling and JPEG.

A face is a square with a magenta frame. Inside are four rows of eight black or white fields (identity; expression and yaw;
which texture) above a texture that makes it sharp and unlike any other. Grey over the texture hides a part of the face.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from scipy import ndimage
from standins.face_shape import face_shape

from dynamicid_core.faces import DetectedFace
from dynamicid_core.landmarks import EXPRESSIONS

SHAPES = {  # what each expression does to a face
    "happy": {"smile": 0.08},
    "surprise": {"gap": 0.35, "raise": 0.12, "lids": 0.03},
    "sad": {"smile": -0.07, "slope": 0.05},
    "anger": {"slope": -0.08, "raise": -0.05},
    "disgust": {"lip": 0.09, "raise": -0.06},
    "fear": {"slope": 0.09, "lids": 0.03, "gap": 0.1, "raise": 0.05},
    "neutral": {},
}
YAWS = (-75, -30, 0, 30, 75)  # one of each pose
MAGENTA, GREY = (230, 20, 230), (128, 128, 128)
FIELDS = 8


def draw_face(
    identity: int, expression: str = "neutral", yaw: int = 0, texture: int = 0, side: int = 112, hidden: str = ""
) -> Image.Image:
    """RGB [side, side]. ``identity``, ``texture``: 0..255; ``yaw``: one of YAWS; ``hidden``: "half" or "mouth"."""
    bits = [(identity >> n) & 1 for n in range(8)]
    bits += [(EXPRESSIONS.index(expression) >> n) & 1 for n in range(3)] + [0] * 5
    bits += [(YAWS.index(yaw) >> n) & 1 for n in range(3)] + [int(hidden == "mouth")] + [0] * 4
    bits += [(texture >> n) & 1 for n in range(8)]
    rng = np.random.default_rng([identity, EXPRESSIONS.index(expression), YAWS.index(yaw), texture])
    below = rng.integers(0, 2, (4, 8)) * 150 + rng.integers(0, 90, (4, 8))
    fields = np.concatenate([np.array(bits).reshape(4, 8) * 255, below]).astype(np.uint8)
    if hidden == "half":
        fields[4:] = GREY[0]
    inner = Image.fromarray(fields).convert("RGB").resize((14 * FIELDS, 14 * FIELDS), Image.Resampling.NEAREST)
    face = Image.new("RGB", (16 * FIELDS, 16 * FIELDS), MAGENTA)
    face.paste(inner, (FIELDS, FIELDS))
    return face.resize((side, side), Image.Resampling.BOX)


def photo(*faces: tuple[Image.Image, tuple[int, int]], size: tuple[int, int] = (160, 176)) -> Image.Image:
    """Faces at places (x, y) on a ground that runs from dark to light."""
    width, height = size
    ramp = np.linspace(40, 110, height)[:, None, None] * np.ones((1, width, 3)) * (0.6, 1.0, 0.7)
    picture = Image.fromarray(ramp.astype(np.uint8))
    for face, place in faces:
        picture.paste(face, place)
    return picture


def portrait(identity: int, *labels, blur: float = 0, place: tuple[int, int] = (24, 30), **fields) -> Image.Image:
    picture = photo((draw_face(identity, *labels, **fields), place))
    return picture.filter(ImageFilter.GaussianBlur(blur)) if blur else picture


def save(picture: Image.Image, path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


def identity_vector(code: int, texture: int = 0) -> np.ndarray:
    """[512], length 1: photos of a person agree by 0.7 or so, those of two hardly."""
    own = np.random.default_rng([1, code]).standard_normal(512)
    noise = np.random.default_rng([2, code, texture]).standard_normal(512)
    return ((own + 0.6 * noise) / np.linalg.norm(own + 0.6 * noise)).astype(np.float32)


class CodedFaces:
    """A :class:`faces.FaceDetector`."""

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        red, green, blue = (image[..., n].astype(int) for n in range(3))
        frame = (red > green + 60) & (blue > green + 60)
        labelled, _ = ndimage.label(ndimage.binary_closing(frame, iterations=2))
        return [face for place in ndimage.find_objects(labelled) if (face := self._read(image, place))]

    def _read(self, image: np.ndarray, place: tuple[slice, slice]) -> DetectedFace | None:
        (y0, y1), (x0, x1) = ((part.start, part.stop) for part in place)
        side = max(x1 - x0, y1 - y0)
        if side < 20:
            return None
        grey = np.asarray(
            Image.fromarray(image).convert("L").crop((x0, y0, x0 + side, y0 + side)).resize((256, 256)), float
        )
        means = grey[16:240, 16:240].reshape(8, 28, 8, 28)[:, 8:20, :, 8:20].mean((1, 3))
        numbers = (means[:4] > 128) @ (1 << np.arange(8))
        identity, texture = int(numbers[0]), int(numbers[3])
        expression, yaw = EXPRESSIONS[min(numbers[1], 6)], YAWS[min(numbers[2] & 7, 4)]
        shape = face_shape(**SHAPES[expression]) * side * 0.4 + (x0 + side / 2, y0 + side / 2)
        keypoints = np.stack(
            [shape[list(p)].mean(0) for p in ((33, 35, 40, 39), (87, 89, 94, 93), (86,), (52,), (61,))]
        )
        if numbers[2] & 8:
            keypoints[3:] += 0.3 * side
        covered = (abs(means[4:] - GREY[0]) < 6).mean()
        return DetectedFace(
            box=(float(x0), float(y0), float(x0 + side), float(y0 + side)),
            score=0.9 - 0.6 * float(covered),
            keypoints=keypoints.astype(np.float32),
            identity=identity_vector(identity, texture),
            landmarks=shape.astype(np.float32),
            pose=(3.0, float(yaw), 1.0),
        )
