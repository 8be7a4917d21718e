"""Expression and pose: from the words that asked for them, and from the face that shows them.

The words are those of menus, prompts and training sets ("a very surprised expression, front view"); what they are
compared with is one of ``landmarks.EXPRESSIONS`` and one of ``prompts.GRID_POSES``. Left is the left of the picture.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..datasets.expressions import ExpressionClassifier
from ..datasets.labels import expression_of, pose_of
from ..faces import DetectedFace
from ..landmarks import read_expression
from ..prompts import GRID_POSES
from ..types import DynamicIDError


def expression_word(text: str) -> str | None:
    """The expression that a text asks for, one of ``EXPRESSIONS``; None where it names none, or several."""
    found = {word for word in map(expression_of, re.findall(r"[a-z]+", text.lower())) if word}
    return found.pop() if len(found) == 1 else None


def pose_word(text: str) -> str | None:
    """The pose that a text asks for, one of ``GRID_POSES``; None where it names none, or several."""
    found = [pose for pose in GRID_POSES if pose in text.lower()]
    return found[0] if len(found) == 1 else None


def shown_pose(face: DetectedFace) -> str | None:
    """The pose that a face shows, by its yaw alone; None where the angles are unknown."""
    return None if face.pose is None else pose_of(face.pose[1])


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


class ClassifierReader:
    """A classifier that the user names (datasets/expressions.py)."""

    landmarks = False

    def __init__(self, classifier: ExpressionClassifier) -> None:
        classifier.load()  # what is wrong with the file shall be said now
        self.name = Path(classifier.path).name
        self._classifier = classifier

    def read(self, image: np.ndarray, face: DetectedFace) -> str | None:
        return self._classifier.classify(image, face)[0] or None


def load_reader(path: Path | None, classes: Sequence[str] = ()) -> ExpressionReader:
    """None: by landmarks; else a classifier from an ONNX file, ``classes`` its names where they are not HSEmotion's."""
    return LandmarkReader() if path is None else ClassifierReader(ExpressionClassifier(path, classes))
