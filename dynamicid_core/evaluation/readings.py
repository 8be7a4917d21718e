"""Expression and pose: from the words that asked for them, and from the face that shows them.

The words are those of menus, prompts and training sets ("a very surprised expression, front view"); what they are
compared with is one of ``landmarks.EXPRESSIONS`` and one of ``prompts.GRID_POSES``. Left is the left of the picture.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..faces import DetectedFace
from ..landmarks import read_expression
from ..pictures import crop_square
from ..prompts import GRID_POSES
from ..types import DynamicIDError

WORDS = {
    "happy": "happy happiness smiling joyful",
    "surprise": "surprise surprised astonished",
    "sad": "sad sadness",
    "anger": "anger angry furious",
    "disgust": "disgust disgusted",
    "fear": "fear afraid fearful scared",
    "neutral": "neutral calm",
}
EXPRESSION_OF = {word: expression for expression, words in WORDS.items() for word in words.split()}

FRONT, FULLY = (
    10.0,
    45.0,
)  # degrees of yaw: below the first a front view (docs/method.md, section 2), above fully turned

# The classes of expression classifiers, by their number and the channels that they read.
HSEMOTION = ("anger", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise")
CLASSES = {
    (3, 8): HSEMOTION,
    (3, 7): tuple(name for name in HSEMOTION if name != "contempt"),
    (1, 8): ("neutral", "happy", "surprise", "sad", "anger", "disgust", "fear", "contempt"),  # FER+
}
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which classifiers in colour begin with


def expression_word(text: str) -> str | None:
    """The expression that a text asks for, one of ``EXPRESSIONS``; None where it names none, or several."""
    found = {EXPRESSION_OF[word] for word in re.findall(r"[a-z]+", text.lower()) if word in EXPRESSION_OF}
    return found.pop() if len(found) == 1 else None


def pose_word(text: str) -> str | None:
    """The pose that a text asks for, one of ``GRID_POSES``; None where it names none, or several."""
    found = [pose for pose in GRID_POSES if pose in text.lower()]
    return found[0] if len(found) == 1 else None


def shown_pose(face: DetectedFace) -> str | None:
    """The pose that a face shows, by its yaw alone; None where the angles are unknown.

    InsightFace's yaw is positive where the nose points to the right of the picture.
    """
    if face.pose is None:
        return None
    yaw = face.pose[1]
    if abs(yaw) < FRONT:
        return "front view"
    return f"{'slightly' if abs(yaw) < FULLY else 'fully'} turned to the {'right' if yaw > 0 else 'left'}"


class ExpressionReader(Protocol):
    """What names the expression of a face."""

    name: str
    landmarks: bool  # does it read landmarks? Else it sees the picture

    def read(self, image: np.ndarray, face: DetectedFace) -> str | None:
        """One of ``EXPRESSIONS`` or another word; None where it cannot tell. ``image``: uint8 RGB [h, w, 3]."""
        ...


class LandmarkReader:
    """The shape of mouth and brows (landmarks.py): clear expressions seen from the front are read, subtle ones not."""

    name = "landmarks"
    landmarks = True

    def read(self, image: np.ndarray, face: DetectedFace) -> str | None:
        if face.landmarks is None:
            return None
        try:
            return read_expression(face.landmarks)
        except DynamicIDError:  # both eyes in one place
            return None


class OnnxReader:
    """A classifier of expressions as an ONNX file: HSEmotion's (8 or 7 classes, colour) or FER+ (8 classes, grey)."""

    landmarks = False

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._session = _load(path)
        (picture, *_), (scores, *_) = self._session.get_inputs(), self._session.get_outputs()
        self._input = picture.name
        shape, classes = picture.shape, scores.shape[-1]
        if len(shape) != 4 or (shape[1], classes) not in CLASSES:
            raise DynamicIDError(
                f"{path} reads {shape} and answers {scores.shape}; known are classifiers of faces [n, 3, h, w] with 8 or "
                "7 classes (HSEmotion) and [n, 1, h, w] with 8 (FER+)."
            )
        self._grey = shape[1] == 1
        self._side = shape[2] if isinstance(shape[2], int) else 224
        self._classes = CLASSES[shape[1], classes]

    def read(self, image: np.ndarray, face: DetectedFace) -> str | None:
        crop, _ = crop_square(image, face.box, 1.0)
        picture = Image.fromarray(crop).resize((self._side, self._side), Image.Resampling.BILINEAR)
        if self._grey:
            pixels = np.asarray(picture.convert("L"), dtype=np.float32)[None, None]
        else:
            scaled = (np.asarray(picture, dtype=np.float32) / 255 - MEAN) / DEVIATION
            pixels = scaled.astype(np.float32).transpose(2, 0, 1)[None]
        (scores, *_) = self._session.run(None, {self._input: pixels})
        return self._classes[int(np.asarray(scores).reshape(-1).argmax())]


def _load(path: Path) -> Any:
    if not path.is_file():
        raise DynamicIDError(f"There is no expression classifier {path}. Check the name and the folder.")
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())
    except Exception as error:  # onnxruntime and protobuf raise many kinds
        raise DynamicIDError(f"The expression classifier {path} cannot be loaded ({error}).") from error


def load_reader(name: str | None) -> ExpressionReader:
    """None: by landmarks; else the ONNX file of that name."""
    return LandmarkReader() if name is None else OnnxReader(Path(name))
