"""What is seen in one photo, without judging it: bytes -> :class:`Analysis`. This is all that looks at pixels.

An analysis depends on the bytes and the models alone, so it is kept under the bytes' hash and may be made anywhere.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..faces import DetectedFace, FaceDetector, order_faces, sharpness
from ..landmarks import EYES, expression_measures, landmark_fractions, read_expression
from ..pictures import to_rgb
from ..types import DynamicIDError
from .expressions import ExpressionClassifier

VERSION = 1  # of what is measured; another one, and photos are looked at again
PRINT_SIDE = 16  # a perceptual hash has 16 * 16 bits
PRINT_REACH = 2.8  # how far it looks from the middle of the key points, in their distances from it
KEYPOINT_PARTS = (EYES[0], EYES[1], (86,), (52,), (61,))  # the points that show what the five key points show

Suffix = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "GIF": ".gif", "AVIF": ".avif"}


@dataclass(frozen=True, eq=False)
class Analysis:
    """One photo as detector and classifier see it. Of several faces it is about the largest."""

    problem: str = ""  # why the file cannot be read; then nothing else is known
    suffix: str = ""  # what its format is called, whatever the file is
    length: int = 0  # of the file, in bytes
    size: tuple[int, int] = (0, 0)  # height, width
    faces: int = 0  # how many were found
    rival: float = 0.0  # the second largest face's area over the largest's
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # x0, y0, x1, y1, fractions of the photo
    face_size: float = 0.0  # longer side of the box in pixels
    score: float = 0.0  # the detector's confidence, 0..1
    disagreement: float = 0.0  # between key points and landmarks, in face sizes (see `disagreement`)
    cut: float = 0.0  # share of the 106 landmarks that lie outside the photo, or else of the box
    sharpness: float = 0.0  # faces.sharpness
    angles: tuple[float, float, float] | None = None  # pitch, yaw, roll in degrees
    expression: str = ""  # as read, one of landmarks.EXPRESSIONS
    confidence: float = 0.0  # of the classifier, 0..1; 0 where landmarks were read
    fingerprint: str = ""  # perceptual hash of the face, 256 bits in hexadecimal
    landmarks: np.ndarray | None = None  # [106, 2] float32, fractions of the photo
    identity: np.ndarray | None = None  # [512] float32, length 1

    def to_bytes(self) -> bytes:
        """JSON on one line, then the arrays' bytes; equal analyses, equal bytes."""
        record = {name: getattr(self, name) for name in _FIELDS}
        arrays = [value for name in _ARRAYS if (value := getattr(self, name)) is not None]
        record["arrays"] = {name: list(v.shape) for name in _ARRAYS if (v := getattr(self, name)) is not None}
        return json.dumps(record).encode() + b"\n" + b"".join(a.astype("<f4").tobytes() for a in arrays)

    @classmethod
    def from_bytes(cls, content: bytes) -> Analysis:
        head, _, rest = content.partition(b"\n")
        record: dict[str, Any] = json.loads(head)
        shapes: dict[str, list[int]] = record.pop("arrays")
        start = 0
        for name, shape in shapes.items():
            count = int(np.prod(shape))
            record[name] = np.frombuffer(rest, "<f4", count, start).reshape(shape)
            start += 4 * count
        for name in ("size", "box", "angles"):
            record[name] = None if record[name] is None else tuple(record[name])
        return cls(**record)


_ARRAYS = ("landmarks", "identity")
_FIELDS = tuple(field.name for field in dataclasses.fields(Analysis) if field.name not in _ARRAYS)


class Analyser:
    """Looks at photos with a detector and, where given, a classifier of expressions; loads them when it first has to.

    It travels to other processes and machines as what it was made of, not with the models.
    """

    def __init__(
        self, make_detector: Callable[[], FaceDetector], classifier: ExpressionClassifier | None = None
    ) -> None:
        self.make_detector, self.classifier = make_detector, classifier
        self._detector: FaceDetector | None = None

    def __getstate__(self) -> tuple[Callable[[], FaceDetector], ExpressionClassifier | None]:
        return self.make_detector, self.classifier

    def __setstate__(self, state: tuple[Callable[[], FaceDetector], ExpressionClassifier | None]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def load(self) -> FaceDetector:
        """The detector; DynamicIDError if it or the classifier cannot be had."""
        if self._detector is None:
            self._detector = self.make_detector()
            if self.classifier:
                self.classifier.load()
        return self._detector

    def analyse(self, content: bytes) -> Analysis:
        """The bytes of a file -> what is seen in it. A file that is no picture is an analysis with a ``problem``."""
        try:
            image, suffix = _decode(content)
        except DynamicIDError as error:
            return Analysis(problem=str(error))
        found = order_faces(self.load().detect(image), "large-small", image.shape[:2])
        seen = Analysis(suffix=suffix, length=len(content), size=image.shape[:2], faces=len(found))
        return self._describe(seen, image, found) if found else seen

    def _describe(self, seen: Analysis, image: np.ndarray, found: list[DetectedFace]) -> Analysis:
        face, height, width = found[0], *image.shape[:2]
        x0, y0, x1, y1 = face.box
        expression, confidence = "", 0.0
        if self.classifier:
            expression, confidence = self.classifier.classify(image, face)
        elif face.landmarks is not None and _usable(face.landmarks):
            expression = read_expression(face.landmarks)
        return dataclasses.replace(
            seen,
            rival=_area(found[1]) / max(_area(face), 1e-6) if len(found) > 1 else 0.0,
            box=(x0 / width, y0 / height, x1 / width, y1 / height),
            face_size=float(face.size),
            score=float(face.score),
            disagreement=disagreement(face),
            cut=cut_off(face, width, height),
            sharpness=sharpness(image, face),
            angles=None if face.pose is None else (float(face.pose[0]), float(face.pose[1]), float(face.pose[2])),
            expression=expression,
            confidence=confidence,
            fingerprint=face_print(image, face),
            landmarks=None if face.landmarks is None else landmark_fractions(face.landmarks, (0, 0, width, height)),
            identity=None if face.identity is None else np.asarray(face.identity, np.float32),
        )


def _decode(content: bytes) -> tuple[np.ndarray, str]:
    """Bytes -> picture, and the ending that its format wants."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            suffix = Suffix.get(image.format or "", ".png")
            image.load()
            return to_rgb(image), suffix
    except DynamicIDError:
        raise
    except Exception as error:  # Pillow's readers raise many kinds for damaged files
        reason = "no picture" if "cannot identify" in str(error) else f"damaged: {error}"
        raise DynamicIDError(reason) from error


def _area(face: DetectedFace) -> float:
    x0, y0, x1, y1 = face.box
    return (x1 - x0) * (y1 - y0)


def _usable(landmarks: np.ndarray) -> bool:
    try:
        expression_measures(landmarks)
    except DynamicIDError:
        return False
    return True


def disagreement(face: DetectedFace) -> float:
    """How far the detector's five key points lie from where the 106 landmarks put eyes, nose and mouth, in face sizes.

    Two networks find them from the same pixels, each by itself. On a face in view they agree within 0.03 or so; where a
    hand, a mask or the picture's edge hides a part, both guess, and differ. The largest of the five distances counts.
    0 where a detector gives no landmarks.
    """
    if face.landmarks is None:
        return 0.0
    points = np.stack([face.landmarks[list(part)].mean(0) for part in KEYPOINT_PARTS])
    return float(np.hypot(*(points - np.asarray(face.keypoints)).T).max() / max(face.size, 1e-6))


def cut_off(face: DetectedFace, width: int, height: int) -> float:
    """The share of a face that lies outside the photo, 0..1: of its landmarks, or of its box where it has none."""
    if face.landmarks is not None:
        inside = ((face.landmarks >= 0) & (face.landmarks <= (width, height))).all(-1)
        return float(1 - inside.mean())
    x0, y0, x1, y1 = face.box
    seen = max(min(x1, width) - max(x0, 0), 0) * max(min(y1, height) - max(y0, 0), 0)
    return float(1 - seen / max(_area(face), 1e-6))


def face_print(image: np.ndarray, face: DetectedFace) -> str:
    """A perceptual hash of the face and what is around it, 256 bits in hexadecimal: signs of the lowest frequencies.

    Of the face and not of the photo: in a studio all photos look alike, and crops of one photo do not. The key points say
    where it is, as boxes of the same face at two sizes differ too much.
    """
    points = np.asarray(face.keypoints, np.float64)
    center = points.mean(0)
    reach = max(float(np.sqrt(((points - center) ** 2).sum(1).mean())) * PRINT_REACH, 1.0)
    side = 4 * PRINT_SIDE
    edge = int(np.ceil(reach)) + 1
    x, y = np.clip(center, 0, (image.shape[1] - 1, image.shape[0] - 1)) + edge
    grey = Image.fromarray(np.pad(np.asarray(Image.fromarray(image).convert("L")), edge, mode="edge"))
    box = (x - reach, y - reach, x + reach, y + reach)
    small = np.asarray(grey.resize((side, side), Image.Resampling.LANCZOS, box=box), np.float64)
    place = np.arange(side)
    cosines = np.cos(np.pi * (place + 0.5) * np.arange(1, PRINT_SIDE + 1)[:, None] / side)  # [16, 64], without the mean
    frequencies = cosines @ small @ cosines.T
    return np.packbits(frequencies > np.median(frequencies)).tobytes().hex()


def photo_id(content: bytes) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    return hashlib.sha256(content).hexdigest()
