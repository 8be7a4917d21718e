"""What frozen networks say of photos and texts: a maker for each kind of row in the cache.

A maker knows its items, all that its rows depend on, and how to make them. Photos become pictures in worker processes
(``prepare``), batches of them become rows on the device (``run``). Photos are prepared as ``encode`` does it, so that
what is trained on is what inference gives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets.manifest import Manifest, Photo
from ..encode import NULL_PIXELS, check_clip_width, encoded_part
from ..landmarks import landmark_fractions
from ..pictures import clip_pixels, square_around
from ..types import DynamicIDError, is_same_recogniser
from .frozen import Networks, weights_hash
from .store import Made, digest

Rows = dict[str, Tensor]
NULL = digest("null")  # the item that is no photo: what a dropped face is made of
IDENTITY, POINTS = 512, 106

CLIP_BATCH, LATENT_BATCH, TEXT_BATCH, COPY_BATCH = 32, 8, 32, 256


@dataclass(frozen=True, eq=False)
class Maker:
    """One kind of rows, and how they are made."""

    kind: str
    made_by: Made  # all that rows depend on, besides what their keys say
    items: Mapping[bytes, Any]  # key -> what a row is made from: a photo, None for the null photo, or a text
    key: Callable[[Any], bytes]  # of a photo or a text
    prepare: Callable[[Any], Any]  # an item -> tensors, or the text itself; picklable, for worker processes
    run: Callable[[Any], Rows]  # a batch of these (tensors stacked, or a list of texts) -> rows [n, ...]
    batch: int
    networks: tuple[nn.Module, ...] = ()  # are on the device, in float32, while rows are made


def pixel_box(photo: Photo) -> tuple[float, float, float, float] | None:
    """The face's box in pixels of the photo."""
    if photo.box is None:
        return None
    (height, width), (x0, y0, x1, y1) = photo.size, photo.box
    return x0 * width, y0 * height, x1 * width, y1 * height


def floats(values: Any) -> bytes | None:
    return None if values is None else np.asarray(values, np.float32).tobytes()


def files_of(manifest: Manifest) -> Manifest:
    """What opens a set's photos, without a list of them: worker processes need no more."""
    return dataclasses.replace(manifest, photos=())


def identity_of(photo: Photo | None) -> Tensor:
    """[512]; zeros where no face was found, and for the null photo, as published."""
    if photo is None or photo.identity is None:
        return torch.zeros(IDENTITY)
    return torch.from_numpy(np.array(photo.identity, np.float32))


@dataclass(frozen=True)
class ClipInput:
    """Photo -> CLIP's pixels of the part that is encoded, and the identity."""

    manifest: Manifest
    crop_factor: float

    def __call__(self, photo: Photo | None) -> Rows:
        if photo is None:
            return {"pixels": NULL_PIXELS[0], "identity": identity_of(None)}
        part, _ = encoded_part(self.manifest.open(photo), pixel_box(photo), self.crop_factor)
        return {"pixels": clip_pixels(part)[0], "identity": identity_of(photo)}


def photo_items(photos: Iterable[Photo], key: Callable[[Photo], bytes], null: bool = True) -> dict[bytes, Any]:
    items: dict[bytes, Any] = {NULL: None} if null else {}
    return items | {key(photo): photo for photo in photos}


def _seen(photo: Photo, crop_factor: float) -> tuple[Any, ...]:
    """What the encoded part of a photo depends on."""
    return (photo.id, floats(photo.box) if crop_factor > 0 else None)


def clip_maker(manifest: Manifest, networks: Networks, crop_factor: float, dtype: torch.dtype) -> Maker:
    """``clip`` [L, Wc]: CLIP's states of each photo, and of zero pixels."""
    clip = networks.clip()

    def key(photo: Photo) -> bytes:
        return digest(*_seen(photo, crop_factor))

    return Maker(
        "clip",
        {"clip_vision": weights_hash(networks.clip_vision), "crop_factor": crop_factor, "dtype": str(dtype)},
        photo_items(manifest.taken, key),
        key,
        ClipInput(files_of(manifest), crop_factor),
        lambda inputs: {"clip": cast(clip.tokens(inputs["pixels"]), dtype)},
        CLIP_BATCH,
        (networks.clip_vision,),
    )


def token_maker(manifest: Manifest, networks: Networks, crop_factor: float) -> Maker:
    """``tokens`` [T, 768], float32: face tokens of each photo, and null tokens; equal to those of ``encode``."""
    clip, saa = networks.clip(), networks.saa
    if saa is None:
        raise DynamicIDError("Face tokens need an SAA checkpoint. Run `train anchor` first, or set reconfigure.saa.")
    if not is_same_recogniser(saa.origin.recogniser, manifest.recogniser):
        raise DynamicIDError(
            f"The SAA checkpoint knows identities of {saa.origin.recogniser}, but those of the dataset are "
            f"{manifest.recogniser}'s. Build the dataset with {saa.origin.recogniser}, or anchor with this dataset first."
        )
    encoder = saa.face_encoder

    def key(photo: Photo) -> bytes:
        return digest(*_seen(photo, crop_factor), floats(photo.identity))

    def run(inputs: Rows) -> Rows:
        seen = clip.tokens(inputs["pixels"]).to(networks.device)
        check_clip_width(encoder.sizes, seen, saa.origin)
        return {"tokens": encoder(inputs["identity"].to(networks.device), seen).cpu()}

    made_by = {
        "encoder": saa.encoder_hash,
        "clip_vision": weights_hash(networks.clip_vision),
        "crop_factor": crop_factor,
    }
    return Maker(
        "tokens",
        made_by,
        photo_items(manifest.taken, key),
        key,
        ClipInput(files_of(manifest), crop_factor),
        run,
        CLIP_BATCH,
        (networks.clip_vision, encoder),
    )


@dataclass(frozen=True)
class Measures:
    """Photo -> identity and landmarks, as fractions of the part that is encoded; NaN where there are none."""

    crop_factor: float

    def __call__(self, photo: Photo | None) -> Rows:
        points = torch.full((POINTS, 2), float("nan"))
        if photo is not None and photo.landmarks is not None:
            (height, width), box = photo.size, pixel_box(photo)
            whole = self.crop_factor == 0 or box is None
            place = (0, 0, width, height) if whole or box is None else square_around(photo.size, box, self.crop_factor)
            points = torch.from_numpy(landmark_fractions(np.asarray(photo.landmarks) * (width, height), place))
        return {"identity": identity_of(photo), "landmarks": points}


def measure_maker(manifest: Manifest, crop_factor: float) -> Maker:
    """``identity`` [512] and ``landmarks`` [106, 2], float32, out of the manifest: read as columns, without objects."""

    def key(photo: Photo) -> bytes:
        return digest(*_seen(photo, crop_factor), photo.size, floats(photo.identity), floats(photo.landmarks))

    return Maker(
        "measures",
        {"recogniser": manifest.recogniser, "crop_factor": crop_factor},
        photo_items(manifest.taken, key),
        key,
        Measures(crop_factor),
        lambda inputs: inputs,
        COPY_BATCH,
    )


def cast(values: Tensor, dtype: torch.dtype) -> Tensor:
    """To the cache's dtype, on the CPU. float16 keeps 11 bits: it is off by at most 1/2048 of a value.

    Raises DynamicIDError for values that the dtype cannot hold (float16 ends at 65504).
    """
    made = values.to("cpu", dtype)
    if not torch.isfinite(made).all():
        raise DynamicIDError(f"A network gives values that {str(dtype)[6:]} cannot hold; set cache_dtype to float32.")
    return made
