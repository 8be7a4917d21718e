"""Photos of one person -> a face (method, section 1). Detector, CLIP and encoder are injected by the host.

Each host calls :func:`encode_photos` with its own way of running networks; what is detected, cropped, averaged and said
about photos without a face is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import faces
from .faces import (
    CLIP_SIZE,
    DetectedFace,
    FaceDetector,
    clip_crop,
    clip_pixels,
    crop_square,
    landmark_fractions,
    order_faces,
    pick_face,
)
from .motion import read_expression
from .tokens import average_faces
from .types import DynamicIDError, Face

THUMBNAIL_SIZE = 192  # px
THUMBNAIL_FACTOR = 1.7  # of the face box: the head
PREVIEW_SIZE = 1024  # px
CLIP_BATCH = 32  # photos at a time; more would only take more memory, where video frames are encoded
NULL_PIXELS = torch.zeros(1, 3, CLIP_SIZE, CLIP_SIZE)  # zero after normalisation: CLIP's mean colour

Progress = Callable[[Sequence[np.ndarray]], Iterable[np.ndarray]]
ClipTokens = Callable[[Tensor], Tensor]
Encoder = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class EncodedFace:
    """A face and how it came about."""

    face: Face
    found: list[list[DetectedFace]]  # every face of every photo, in the order asked for
    chosen: list[DetectedFace | None]  # of each photo; None where it shows no face
    message: str  # what the user should know, e.g. which photos show no face; "" if there is nothing to say
    photos: Sequence[np.ndarray] = ()  # uint8 RGB [h, w, 3] each

    def previews(self) -> list[np.ndarray]:
        """Each photo with its faces numbered and the chosen one marked, uint8 RGB, at most ``PREVIEW_SIZE`` px long."""
        pictures = []
        for photo, faces_found, chosen in zip(self.photos, self.found, self.chosen, strict=True):
            number = next((i for i, face in enumerate(faces_found) if face is chosen), None)
            picture = Image.fromarray(faces.draw_faces(photo, faces_found, number))
            picture.thumbnail((PREVIEW_SIZE, PREVIEW_SIZE))
            pictures.append(np.asarray(picture))
        return pictures


def choose_faces(
    photos: Sequence[np.ndarray],
    detector: FaceDetector | None,
    order: str = "large-small",
    index: int = 0,
    progress: Progress = iter,
) -> tuple[list[list[DetectedFace]], list[DetectedFace | None]]:
    """All faces of each photo (uint8 RGB [h, w, 3]) in ``order``, and the one numbered ``index``, None if there is none.

    Raises DynamicIDError, with the photo's number, if a photo shows faces but not so many.
    """
    found, chosen = [], []
    for number, photo in enumerate(progress(photos), 1):
        size = photo.shape[:2]
        found.append(order_faces(detector.detect(photo) if detector else [], order, size))
        try:
            chosen.append(pick_face(found[-1], order, index, size) if found[-1] else None)
        except DynamicIDError as error:
            raise DynamicIDError(f"Photo {number}: {error}") from None
    return found, chosen


def _part(photo: np.ndarray, face: DetectedFace | None, factor: float) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """The part of a photo that is encoded, and its place (x0, y0, x1, y1) there."""
    if factor > 0 and face is not None:
        return crop_square(photo, face.box, factor)
    return photo, (0, 0, photo.shape[1], photo.shape[0])


def _thumbnail(photo: np.ndarray, face: DetectedFace | None) -> Tensor:
    """[s, s, 3] in 0..1: the head, or what CLIP sees where no face was found."""
    picture = clip_crop(photo) if face is None else crop_square(photo, face.box, THUMBNAIL_FACTOR)[0]
    small = Image.fromarray(picture)
    small.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    return torch.from_numpy(np.asarray(small).copy()).float() / 255


def _details(photo: np.ndarray, face: DetectedFace | None, place: tuple[int, int, int, int]) -> dict:
    """What a face keeps of its photo besides tokens."""
    details = {"thumbnail": _thumbnail(photo, face)}
    if face is None:
        return details
    if face.identity is not None:
        details["identity"] = torch.from_numpy(np.asarray(face.identity, dtype=np.float32))
    if face.landmarks is not None:
        details["landmarks"] = torch.from_numpy(landmark_fractions(face.landmarks, place))
        details["expression"] = read_expression(face.landmarks)
    if face.pose is not None:
        details["pose"] = torch.tensor(face.pose, dtype=torch.float32)
    return details


def encode_photos(
    photos: Sequence[np.ndarray],
    detector: FaceDetector | None,
    clip_tokens: ClipTokens,
    encoder: Encoder,
    encoder_hash: str,
    *,
    order: str = "large-small",
    index: int = 0,
    crop_factor: float = 0.0,
    on_no_face: str = "error",
    name: str = "",
    progress: Progress = iter,
    null_clip_tokens: Callable[[], Tensor] | None = None,
) -> EncodedFace:
    """Several photos of one person -> one face, the mean of their tokens.

    ``photos``: uint8 RGB [h, w, 3] each, as :func:`faces.to_rgb` makes them. ``detector``: None means that no face is
    looked for, which only ``on_no_face="clip only"`` allows. ``clip_tokens``: pixels [K, 3, 224, 224] -> hidden states
    before CLIP's last layer [K, 257, 1280]. ``null_clip_tokens``: gives those of :data:`NULL_PIXELS`, [1, 257, 1280], where
    the host remembers them; None has them computed along with the photos'.
    ``encoder``: identities [K, 512], CLIP tokens [K, 257, 1280], null CLIP tokens [1, 257, 1280] -> face tokens
    [K, T, 768] and null tokens [1, T, 768] (:func:`tokens.encode_tokens` with the face encoder). ``crop_factor``: 0 encodes
    the whole photo, as published, else a square of so many face sizes around the face. ``on_no_face``: one of
    :data:`faces.ON_NO_FACE`. ``progress``: goes through the photos, as ``tqdm`` does, while faces are looked for.
    Raises DynamicIDError for photos that cannot be used, with their numbers.
    """
    if not len(photos):
        raise DynamicIDError("There is no photo to encode. Give at least one.")
    if detector is None and on_no_face != "clip only":
        raise DynamicIDError(
            "Without a face detector only the appearance can be taken from a photo, not the identity. "
            "Connect Load Face Analysis (or give a detector), or set on_no_face to 'clip only'."
        )
    found, chosen = choose_faces(photos, detector, order, index, progress)
    kept, message = faces.on_no_face(chosen, on_no_face) if detector else (list(range(len(photos))), "")
    parts = [_part(photos[i], chosen[i], crop_factor) for i in kept]
    pixels = torch.cat([clip_pixels(part) for part, _ in parts])
    if null_clip_tokens is None:
        pixels = torch.cat((pixels, NULL_PIXELS))
    seen = torch.cat([clip_tokens(some) for some in pixels.split(CLIP_BATCH)])
    seen, null = seen.split((len(parts), 1)) if null_clip_tokens is None else (seen, null_clip_tokens())
    details = [_details(photos[i], chosen[i], place) for i, (_, place) in zip(kept, parts, strict=True)]
    identities = torch.stack([known.get("identity", torch.zeros(512)) for known in details])
    tokens, uncond = encoder(identities, seen, null)
    people = [
        Face(row[None], uncond, encoder_hash, name=name, **known) for row, known in zip(tokens, details, strict=True)
    ]
    return EncodedFace(average_faces(people) if len(people) > 1 else people[0], found, chosen, message, photos)

