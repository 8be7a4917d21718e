"""Photos of one person -> a face (docs/method.md, section 1). Detector, CLIP and encoder are injected by the host.

Each host calls :func:`encode_photos` with its own way of running networks; what is detected, cropped, averaged and said
about photos without a face is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import faces
from .blending import average_faces
from .faces import DetectedFace, FaceDetector, order_faces, pick_face, recogniser_of
from .landmarks import landmark_fractions, read_expression
from .networks.face_encoder import FaceEncoderSizes
from .origins import CLIP_WIDTHS, Origin, check_recogniser, clip_needed
from .pictures import CLIP_SIZE, check_crop_factor, clip_crop, clip_pixels, crop_square
from .types import DynamicIDError, Face, Missing

THUMBNAIL_SIZE = 192  # px
THUMBNAIL_FACTOR = 1.7  # of the face box: the head
CLIP_BATCH = 32  # photos at a time; more would only take more memory, where video frames are encoded
NULL_PIXELS = torch.zeros(1, 3, CLIP_SIZE, CLIP_SIZE)  # zero after normalisation: CLIP's mean colour

Place = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels of a photo, ends excluded
Progress = Callable[[Sequence[np.ndarray]], Iterable[np.ndarray]]  # goes through the photos, as tqdm does


class ClipVision(Protocol):
    """CLIP's vision model, as a host runs it."""

    @property
    def model(self) -> object:
        """What is run: an object that lives as long as the network is the same. Null tokens are remembered by it."""
        ...

    def tokens(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [K, 3, 224, 224] -> hidden states before the last layer [K, 257, 1280]."""
        ...


@dataclass(frozen=True)
class TokenEncoder:
    """The face encoder, as a host or a training step runs it."""

    run: Callable[[Tensor, Tensor], Tensor]  # identities [K, 512], CLIP tokens [K, 257, 1280] -> [K, T, 768]
    sizes: FaceEncoderSizes
    hash: str  # sha256 of its weights, which faces carry
    origin: Origin = Origin()  # whose identities and CLIP tokens it reads


@dataclass(frozen=True, eq=False)
class EncodedFace:
    """A face and how it came about."""

    face: Face
    found: list[list[DetectedFace]]  # every face of every photo, in the order asked for
    chosen: list[DetectedFace | None]  # of each photo; None where it shows no face
    message: str  # what the user should know, e.g. which photos show no face; "" if there is nothing to say
    photos: Sequence[np.ndarray] = ()  # uint8 RGB [h, w, 3] each


# --- Tokens -------------------------------------------------------------------------------------------------------

_null_tokens: WeakKeyDictionary[Any, Tensor] = WeakKeyDictionary()


def null_clip_tokens(clip: ClipVision) -> Tensor:
    """CLIP tokens [1, 257, 1280] of :data:`NULL_PIXELS`: the same for all photos, so found only once for each model."""
    if clip.model not in _null_tokens:
        _null_tokens[clip.model] = clip.tokens(NULL_PIXELS)
    return _null_tokens[clip.model]


def check_clip_width(sizes: FaceEncoderSizes, clip_tokens: Tensor, origin: Origin = Origin()) -> None:
    """Raise DynamicIDError when CLIP tokens [.., L, width] come from another CLIP model than the encoder's."""
    if (found := clip_tokens.shape[-1]) != sizes.clip:
        known = CLIP_WIDTHS.get(found)
        raise DynamicIDError(
            f"This CLIP vision model {f'seems to be {known}: it ' if known else ''}gives tokens of width {found}, but the "
            f"face encoder needs {sizes.clip}. {clip_needed(origin)}"
        )


def encode_tokens(
    encoder: TokenEncoder, identities: Tensor, clip_tokens: Tensor, null_clip_tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """Face tokens [K, T, 768] of K photos and the null tokens [1, T, 768], in one pass of the encoder.

    ``identities`` [K, 512] (zeros where no face was found), ``clip_tokens`` [K, 257, 1280]: hidden states before CLIP's
    last layer; ``null_clip_tokens`` [1, 257, 1280]: the same of a picture that is zero after normalisation.
    Raises DynamicIDError for tokens of another CLIP model.
    """
    check_clip_width(encoder.sizes, clip_tokens, encoder.origin)
    identities = torch.cat((identities, torch.zeros_like(identities[:1])))
    tokens = encoder.run(identities, torch.cat((clip_tokens, null_clip_tokens)))
    return tokens[:-1], tokens[-1:]


# --- Photos -------------------------------------------------------------------------------------------------------


def choose_faces(
    photos: Sequence[np.ndarray],
    detector: FaceDetector | None,
    order: str = "large-small",
    index: int = 0,
    progress: Progress = iter,
    names: Sequence[str] = (),
) -> tuple[list[list[DetectedFace]], list[DetectedFace | None]]:
    """All faces of each photo (uint8 RGB [h, w, 3]) in ``order``, and the one numbered ``index``, None without any.

    Raises DynamicIDError if a photo shows faces but not so many, with its name, and its number if there are several.
    """
    found: list[list[DetectedFace]] = []
    chosen: list[DetectedFace | None] = []
    for number, photo in enumerate(progress(photos), 1):
        height, width = photo.shape[:2]
        found.append(order_faces(detector.detect(photo) if detector else [], order, (height, width)))
        try:
            chosen.append(pick_face(found[-1], order, index, (height, width)) if found[-1] else None)
        except DynamicIDError as error:
            which = [f"Photo {number}"] * (len(photos) > 1) + [name for name in names[number - 1 : number] if name]
            raise DynamicIDError(f"{', '.join(which)}: {error}" if which else str(error)) from None
    return found, chosen


def encoded_part(photo: np.ndarray, box: Sequence[float] | None, factor: float) -> tuple[np.ndarray, Place]:
    """The part of a photo (uint8 RGB [h, w, 3]) that is encoded, and its place there.

    ``box``: of the face, x0, y0, x1, y1 in pixels, None where none was found; ``factor``: 0 for the whole photo.
    """
    if factor > 0 and box is not None:
        return crop_square(photo, box, factor)
    return photo, (0, 0, photo.shape[1], photo.shape[0])


def _thumbnail(photo: np.ndarray, face: DetectedFace | None) -> Tensor:
    """[s, s, 3] in 0..1: the head, or what CLIP sees where no face was found."""
    picture = clip_crop(photo) if face is None else crop_square(photo, face.box, THUMBNAIL_FACTOR)[0]
    small = Image.fromarray(picture)
    small.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    return torch.from_numpy(np.asarray(small).copy()).float() / 255


def _details(photo: np.ndarray, face: DetectedFace | None, place: Place) -> dict[str, Any]:
    """What a face keeps of its photo besides tokens."""
    details: dict[str, Any] = {"thumbnail": _thumbnail(photo, face)}
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


def _check_numbers(values: Tensor, network: str) -> None:
    """Raise DynamicIDError where a network gave NaN or infinity, which no photo is to blame for."""
    if not torch.isfinite(values).all():
        raise DynamicIDError(
            f"The {network} gave NaN or infinite values, whatever the photo shows: its file is damaged, or it runs in "
            "a precision that is too low. Get the file again, or run it in float32."
        )


def encode_shown(
    photos: Sequence[np.ndarray],
    shown: Sequence[DetectedFace | None],
    clip: ClipVision,
    encoder: TokenEncoder,
    crop_factor: float = 0.0,
    name: str = "",
) -> list[Face]:
    """A face for each photo (uint8 RGB [h, w, 3]; one may come several times) and who is shown in it, None: nobody was found.

    ``crop_factor`` as in :func:`encode_photos`. Raises DynamicIDError for networks that give no numbers.
    """
    parts = [
        encoded_part(photo, None if face is None else face.box, crop_factor)
        for photo, face in zip(photos, shown, strict=True)
    ]
    pixels = torch.cat([clip_pixels(part) for part, _ in parts])
    seen = torch.cat([clip.tokens(some) for some in torch.split(pixels, CLIP_BATCH)])
    null = null_clip_tokens(clip)
    for given in (seen, null):
        _check_numbers(given, "CLIP vision model")
    details = [_details(photo, face, place) for photo, face, (_, place) in zip(photos, shown, parts, strict=True)]
    unknown = torch.zeros(encoder.sizes.identity)
    identities = torch.stack([known.get("identity", unknown) for known in details])
    _check_numbers(identities, "face model")
    tokens, uncond = encode_tokens(encoder, identities, seen, null)
    for given in (tokens, uncond):
        _check_numbers(given, "face encoder of the DynamicID weights")
    return [
        Face(row[None], uncond, encoder.hash, name=name, recogniser=encoder.origin.recogniser, **known)
        for row, known in zip(tokens, details, strict=True)
    ]


Encode = Callable[
    [Sequence[np.ndarray], Sequence[DetectedFace | None], ClipVision, TokenEncoder, float, str], list[Face]
]  # as :func:`encode_shown`


def check_detector(detector: FaceDetector | None, encoder: TokenEncoder, on_no_face: str) -> None:
    """Raise DynamicIDError for a detector whose recogniser the encoder does not know, and :class:`types.Missing` for one that
    is needed: only ``on_no_face="clip only"`` does without."""
    if detector is not None:
        check_recogniser(recogniser_of(detector), encoder.origin, "The face analysis")
    elif on_no_face != "clip only":
        raise Missing(
            "face detector",
            "Without a face detector only the appearance can be taken from a photo, not the identity, "
            "and only where on_no_face is 'clip only'.",
        )


def encode_photos(
    photos: Sequence[np.ndarray],
    detector: FaceDetector | None,
    clip: ClipVision,
    encoder: TokenEncoder,
    *,
    order: str = "large-small",
    index: int = 0,
    crop_factor: float = 0.0,
    on_no_face: str = "error",
    name: str = "",
    files: Sequence[str] = (),
    progress: Progress = iter,
    encode: Encode = encode_shown,
) -> EncodedFace:
    """Several photos of one person -> one face, the mean of their tokens.

    ``photos``: uint8 RGB [h, w, 3] each, as :func:`pictures.to_rgb` makes them. ``detector``: None means that no face
    is looked for, which only ``on_no_face="clip only"`` allows. ``order``, ``index``: which face of several.
    ``crop_factor``: 0 encodes the whole photo, as published, else a square of so many face sizes around the face.
    ``on_no_face``: one of :data:`faces.ON_NO_FACE`. ``files``: the photos' names in messages (default: ``name``).
    ``progress``: goes through the photos while faces are looked for. ``encode``: :func:`encode_shown`, or what remembers
    its results (:class:`remembering.PhotoMemory`).
    Raises DynamicIDError for photos that cannot be used, for a detector whose recogniser the encoder does not know and
    for networks that give no numbers, and :class:`types.Missing` for a detector that is needed.
    """
    check_crop_factor(crop_factor)
    files = files or [name] * len(photos)
    if not len(photos):
        raise DynamicIDError("There is no photo to encode. Give at least one.")
    check_detector(detector, encoder, on_no_face)
    found, chosen = choose_faces(photos, detector, order, index, progress, files)
    kept, message = faces.on_no_face(chosen, on_no_face, files) if detector else (list(range(len(photos))), "")
    shown = [photos[i] for i in kept], [chosen[i] for i in kept]
    people = encode(*shown, clip, encoder, crop_factor, name)
    return EncodedFace(average_faces(people) if len(people) > 1 else people[0], found, chosen, message, photos)
