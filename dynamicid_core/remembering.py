"""What was found in photos lately, and made of them: who changes one of several photos waits for that one alone.

Everything is known by content: a photo by its pixels, a face by its place and identity, an encoder by the hash of its weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from .encode import ClipVision, TokenEncoder, encode_shown
from .faces import DetectedFace, FaceDetector, recogniser_of
from .types import Face

MOST = 100  # photos; a face with its thumbnail takes half a megabyte


class PhotoMemory:
    """The results of the last ``most`` photos. It holds no photo, and is not for several threads at once."""

    def __init__(self, most: int = MOST) -> None:
        self._found: _Latest = _Latest(most)
        self._faces: _Latest = _Latest(most)

    def watching(self, detector: FaceDetector) -> FaceDetector:
        """The detector, which now looks at no photo twice."""
        return _Watching(detector, self._found)

    def encode(
        self,
        photos: Sequence[np.ndarray],
        shown: Sequence[DetectedFace | None],
        clip: ClipVision,
        encoder: TokenEncoder,
        crop_factor: float = 0.0,
        name: str = "",
    ) -> list[Face]:
        """As :func:`encode.encode_shown`, for those that are not known yet."""
        network = weakref.ref(clip.model), encoder.hash, encoder.origin, crop_factor
        keys = [(_content(photo), _content_of(face), *network) for photo, face in zip(photos, shown, strict=True)]
        faces = {key: self._faces.get(key) for key in keys}
        new = {key: i for i, key in enumerate(keys) if faces[key] is None}
        if new:
            chosen = [photos[i] for i in new.values()], [shown[i] for i in new.values()]
            faces |= zip(new, encode_shown(*chosen, clip, encoder, crop_factor), strict=True)
        for key in keys:
            self._faces.put(key, faces[key])
        return [dataclasses.replace(faces[key], name=name) for key in keys]


class _Latest:
    """A table that forgets what was not asked for longest."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.entries: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        return self.entries.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        self.entries[key] = value
        self.entries.move_to_end(key)
        while len(self.entries) > self.most:
            self.entries.popitem(last=False)


class _Watching:
    """A detector that remembers what it found."""

    def __init__(self, detector: FaceDetector, found: _Latest) -> None:
        self.detector, self.known = detector, found

    @property
    def recogniser(self) -> str:
        return recogniser_of(self.detector)

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        key = _content(image), weakref.ref(self.detector)
        found = self.known.get(key)
        if found is None:
            found = tuple(self.detector.detect(image))
        self.known.put(key, found)
        return list(found)


def _content(photo: np.ndarray) -> str:
    """Known by its pixels."""
    digest = hashlib.sha256(repr((photo.shape, photo.dtype.str)).encode())
    digest.update(photo.tobytes())
    return digest.hexdigest()


def _content_of(face: DetectedFace | None) -> Hashable:
    """Known by all that becomes part of a face."""
    if face is None:
        return None
    arrays = (None if one is None else np.asarray(one).tobytes() for one in (face.identity, face.landmarks))
    return face.box, face.pose, *arrays
