"""What frozen networks say of photos and texts: a maker for each kind of row in the cache.

A maker knows its items, all that its rows depend on, and how to make them. Photos become pictures in worker processes
(``prepare``), batches of them become rows on the device (``run``). Photos are prepared as ``encode`` does it, so that
what is trained on is what inference gives.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..checkpoints import SAACheckpoint
from ..datasets.manifest import Manifest, Photo
from ..encode import NULL_PIXELS, ClipVision, check_clip_width, encoded_part
from ..hosts.diffusers.photos import ClipVision as RunningClip
from ..landmarks import landmark_fractions
from ..pictures import clip_pixels, square_around
from ..types import DynamicIDError
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


class Networks:
    """The frozen networks of a base, each loaded when it is first asked for."""

    def __init__(
        self,
        pipe: Callable[[], Any],
        clip_vision: Callable[[], nn.Module],
        saa: Callable[[], SAACheckpoint] | None = None,
        device: torch.device = torch.device("cpu"),
    ):
        """``pipe``: a diffusers pipeline from text to image; ``saa``: whose face encoder makes tokens."""
        self._pipe, self._clip_vision, self._saa, self.device = pipe, clip_vision, saa, device

    @cached_property
    def pipe(self) -> Any:
        return self._pipe()

    @cached_property
    def clip_vision(self) -> nn.Module:
        return self._clip_vision()

    @cached_property
    def saa(self) -> SAACheckpoint | None:
        return self._saa() if self._saa else None

    def clip(self) -> ClipVision:
        return RunningClip(self.clip_vision, lambda: self.device)

    def text_encoders(self) -> list[tuple[Any, Any]]:
        """The pipeline's tokenizers and text encoders, in its order."""
        pairs = [
            (getattr(self.pipe, f"tokenizer{n}", None), getattr(self.pipe, f"text_encoder{n}", None))
            for n in ("", "_2")
        ]
        return [(tokenizer, encoder) for tokenizer, encoder in pairs if encoder is not None]


# --- What rows depend on ------------------------------------------------------------------------------------------

_hashes: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def weights_hash(module: nn.Module) -> str:
    """16 hexadecimal digits for a network's weights as float16: the same in whatever dtype a file was loaded."""
    if module not in _hashes:
        hashed = hashlib.sha256()
        for name, tensor in sorted(module.state_dict().items()):
            values = tensor.detach().half() if tensor.is_floating_point() else tensor.detach()
            hashed.update(f"{name} {tuple(tensor.shape)}".encode())
            hashed.update(values.cpu().contiguous().flatten().view(torch.uint8).numpy())
        _hashes[module] = hashed.hexdigest()[:16]
    return _hashes[module]


def tokenizer_hash(tokenizer: Any) -> str:
    ids = tokenizer("A photo of Anna's 2 friends, smiling (outdoors).", truncation=True).input_ids
    return digest(str(ids), tokenizer.model_max_length).hex()


@contextlib.contextmanager
def working(maker: Maker, device: torch.device) -> Iterator[None]:
    """While this lasts, a maker's networks are on the device in float32; then they are where and what they were."""
    homes = [(module, next(module.parameters())) for module in maker.networks]
    was = [(module, first.device, first.dtype) for module, first in homes]
    try:
        for module in maker.networks:
            module.to(device, torch.float32)
        with torch.inference_mode():
            yield
    finally:
        for module, home, dtype in was:
            module.to(home, dtype)


# --- Photos -------------------------------------------------------------------------------------------------------


def pixel_box(photo: Photo) -> tuple[float, float, float, float] | None:
    """The face's box in pixels of the photo."""
    if photo.box is None:
        return None
    (height, width), (x0, y0, x1, y1) = photo.size, photo.box
    return x0 * width, y0 * height, x1 * width, y1 * height


def _floats(values: Any) -> bytes | None:
    return None if values is None else np.asarray(values, np.float32).tobytes()


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


def _items(photos: Iterable[Photo], key: Callable[[Photo], bytes], null: bool = True) -> dict[bytes, Any]:
    items: dict[bytes, Any] = {NULL: None} if null else {}
    return items | {key(photo): photo for photo in photos}


def _seen(photo: Photo, crop_factor: float) -> tuple[Any, ...]:
    """What the encoded part of a photo depends on."""
    return (photo.id, _floats(photo.box) if crop_factor > 0 else None)


def clip_maker(manifest: Manifest, networks: Networks, crop_factor: float, dtype: torch.dtype) -> Maker:
    """``clip`` [L, Wc]: CLIP's states of each photo, and of zero pixels."""
    clip = networks.clip()

    def key(photo: Photo) -> bytes:
        return digest(*_seen(photo, crop_factor))

    return Maker(
        "clip",
        {"clip_vision": weights_hash(networks.clip_vision), "crop_factor": crop_factor, "dtype": str(dtype)},
        _items(manifest.taken, key),
        key,
        ClipInput(manifest, crop_factor),
        lambda inputs: {"clip": cast(clip.tokens(inputs["pixels"]), dtype)},
        CLIP_BATCH,
        (networks.clip_vision,),
    )


def token_maker(manifest: Manifest, networks: Networks, crop_factor: float) -> Maker:
    """``tokens`` [T, 768], float32: face tokens of each photo, and null tokens; equal to those of ``encode``."""
    clip, saa = networks.clip(), networks.saa
    if saa is None:
        raise DynamicIDError("Face tokens need an SAA checkpoint. Run `train anchor` first, or set reconfigure.saa.")
    encoder = saa.face_encoder

    def key(photo: Photo) -> bytes:
        return digest(*_seen(photo, crop_factor), _floats(photo.identity))

    def run(inputs: Rows) -> Rows:
        seen = clip.tokens(inputs["pixels"]).to(networks.device)
        check_clip_width(encoder.sizes, seen)
        return {"tokens": encoder(inputs["identity"].to(networks.device), seen).cpu()}

    made_by = {
        "encoder": saa.encoder_hash,
        "clip_vision": weights_hash(networks.clip_vision),
        "crop_factor": crop_factor,
    }
    return Maker(
        "tokens",
        made_by,
        _items(manifest.taken, key),
        key,
        ClipInput(manifest, crop_factor),
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
        return digest(*_seen(photo, crop_factor), photo.size, _floats(photo.identity), _floats(photo.landmarks))

    return Maker(
        "measures",
        {"recogniser": manifest.recogniser, "channels": manifest.identity_channels, "crop_factor": crop_factor},
        _items(manifest.taken, key),
        key,
        Measures(crop_factor),
        lambda inputs: inputs,
        COPY_BATCH,
    )


# --- Training pictures --------------------------------------------------------------------------------------------


def training_crop(
    size: tuple[int, int], box: Sequence[float] | None, side: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """How a photo becomes a square: its size (h, w) after resizing, and top and left of the crop there.

    The shorter side becomes ``side`` px. The crop is the middle, moved no further than it must be to hold the face's
    ``box`` (x0, y0, x1, y1, fractions); of a box that is larger, the middle.
    """
    scale = side / min(size)
    resized = (max(side, round(size[0] * scale)), max(side, round(size[1] * scale)))
    starts = []
    for axis in (0, 1):  # y, x
        start = (resized[axis] - side) / 2
        if box is not None:
            low, high = box[1 - axis] * resized[axis], box[3 - axis] * resized[axis]
            start = (low + high - side) / 2 if high - low > side else min(max(start, high - side), low)
        starts.append(min(max(round(start), 0), resized[axis] - side))
    return resized, (starts[0], starts[1])


@dataclass(frozen=True)
class TrainingPicture:
    """Photo -> a square picture, and SDXL's conditions: original size, place of the crop, target size (y before x)."""

    manifest: Manifest
    side: int

    def __call__(self, photo: Photo) -> Rows:
        picture = self.manifest.open(photo)
        size, side = (picture.shape[0], picture.shape[1]), self.side
        (height, width), (top, left) = training_crop(size, photo.box, side)
        resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
        cropped = np.asarray(resized.crop((left, top, left + side, top + side)))
        conditions = torch.tensor((*size, top, left, side, side), dtype=torch.int32)
        return {"picture": torch.from_numpy(cropped.copy()), "sizes": conditions}


def latent_maker(manifest: Manifest, networks: Networks, side: int, dtype: torch.dtype) -> Maker:
    """``latents`` [4, h, w], the mean of the VAE's distribution, scaled; ``sizes`` [6].

    The mean alone: the deviation is far below the noise of the first timestep, would double the disk, and a sample would
    make the cache depend on more than its keys say.
    """
    vae = networks.pipe.vae
    scale, shift = float(vae.config.scaling_factor), float(getattr(vae.config, "shift_factor", None) or 0.0)

    def key(photo: Photo) -> bytes:
        return digest(photo.id, _floats(photo.box))

    def run(inputs: Rows) -> Rows:
        pixels = inputs["picture"].to(networks.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        mean = vae.encode(pixels).latent_dist.mean
        return {"latents": cast((mean - shift) * scale, dtype), "sizes": inputs["sizes"]}

    return Maker(
        "latents",
        {"vae": weights_hash(vae), "scale": scale, "shift": shift, "size": side, "dtype": str(dtype)},
        _items(manifest.taken, key, null=False),
        key,
        TrainingPicture(manifest, side),
        run,
        LATENT_BATCH,
        (vae,),
    )


def cast(values: Tensor, dtype: torch.dtype) -> Tensor:
    """To the cache's dtype, on the CPU. float16 keeps 11 bits: it is off by at most 1/2048 of a value.

    Raises DynamicIDError for values that the dtype cannot hold (float16 ends at 65504).
    """
    made = values.to("cpu", dtype)
    if not torch.isfinite(made).all():
        raise DynamicIDError(f"A network gives values that {str(dtype)[6:]} cannot hold; set cache_dtype to float32.")
    return made
