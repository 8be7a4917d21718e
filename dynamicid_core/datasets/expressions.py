"""A classifier of expressions from an ONNX file that the user names, HSEmotion's or one of that form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..faces import DetectedFace
from ..types import DynamicIDError
from .labels import expression_of

# The orders of classes in HSEmotion's models (AffectNet's), by their number.
SEVEN = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
EIGHT = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
AFFECT = 2  # valence and arousal, which some of them give besides
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, RGB


class ExpressionClassifier:
    """Input [1, 3, s, s]: the face's box, RGB less ImageNet's mean, over its deviation. Output: a logit for each class.

    ``classes``: their names in the model's order; left out, they are HSEmotion's seven or eight. What is none of the
    seven expressions (contempt) is passed over: the likeliest of the others counts.
    """

    def __init__(self, path: str | Path, classes: Sequence[str] = ()) -> None:
        self.path, self.classes = str(path), tuple(classes)
        self._session: Any = None

    def __getstate__(self) -> tuple[str, tuple[str, ...]]:
        return self.path, self.classes

    def __setstate__(self, state: tuple[str, tuple[str, ...]]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def load(self) -> Any:
        """onnxruntime's session; DynamicIDError if the file is not there or no such model."""
        if self._session is None:
            if not Path(self.path).is_file():
                raise DynamicIDError(f"There is no classifier of expressions {self.path}.")
            import onnxruntime

            try:
                session = onnxruntime.InferenceSession(self.path, providers=["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime raises many kinds
                raise DynamicIDError(f"The classifier {self.path} cannot be loaded ({error}).") from error
            shape = session.get_inputs()[0].shape
            if len(shape) != 4 or shape[1] != 3:
                raise DynamicIDError(
                    f"The classifier {self.path} takes {shape}; expected pictures [n, 3, height, width]."
                )
            self._session = session
        return self._session

    def classify(self, image: np.ndarray, face: DetectedFace) -> tuple[str, float]:
        """One of ``landmarks.EXPRESSIONS``, and how likely it is among the classes, 0..1."""
        session = self.load()
        given = session.get_inputs()[0]
        side = given.shape[2] if isinstance(given.shape[2], int) else 224
        box = [max(round(v), 0) for v in face.box]
        crop = image[box[1] : max(box[3], box[1] + 1), box[0] : max(box[2], box[0] + 1)]
        if crop.size == 0:
            return "", 0.0
        small = np.asarray(Image.fromarray(crop).resize((side, side), Image.Resampling.BILINEAR), np.float32) / 255
        pixels = ((small - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1)[None]
        logits = np.asarray(session.run(None, {given.name: pixels})[0], np.float64).reshape(-1)
        names = self._names(len(logits))
        odds = np.exp(logits[: len(names)] - logits[: len(names)].max())
        known = [n for n, name in enumerate(names) if expression_of(name)]
        best = max(known, key=lambda n: odds[n])
        return expression_of(names[best]), float(odds[best] / odds.sum())

    def _names(self, outputs: int) -> tuple[str, ...]:
        choices = (self.classes,) if self.classes else (SEVEN, EIGHT)
        for names in choices:
            if outputs in (len(names), len(names) + AFFECT) and any(map(expression_of, names)):
                return names
        raise DynamicIDError(
            f"The classifier {self.path} has {outputs} outputs, which fit no known order of classes. Name them in their order "
            "with --expression-classes."
        )
