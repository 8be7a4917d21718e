"""Training pictures: how a photo becomes a square, and the VAE's latents of it. A maker, as in ``features``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..datasets.manifest import Manifest, Photo
from ..pictures import LONGEST_SHAPE
from .features import LATENT_BATCH, Maker, Rows, cast, files_of, floats, photo_items
from .frozen import Networks, weights_hash
from .store import digest


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


def face_places(sizes: Tensor, box: Sequence[float] | None, cells: tuple[int, int], weight: float) -> Tensor:
    """How much each cell of a latent counts where those of the face count ``weight`` times as much: [1, h, w], mean 1.

    ``sizes`` [6] as :class:`TrainingPicture` writes them, ``box`` of the face (x0, y0, x1, y1, fractions of the photo).
    """
    if box is None:
        return torch.ones(1, *cells)
    height, width, top, left, side = (int(value) for value in sizes[:5])
    inside = []
    for axis, (whole, start) in enumerate(((height, top), (width, left))):  # y, x
        resized = max(side, round(whole * side / min(height, width)))
        middles = (torch.arange(cells[axis]) + 0.5) * side / cells[axis] + start
        inside.append((box[1 - axis] * resized <= middles) & (middles <= box[3 - axis] * resized))
    places = 1 + (weight - 1) * (inside[0][:, None] & inside[1]).float()
    return (places / places.mean())[None]


@dataclass(frozen=True)
class TrainingPicture:
    """Photo -> a square picture, and SDXL's conditions: original size, place of the crop, target size (y before x)."""

    manifest: Manifest
    side: int

    def __call__(self, photo: Photo) -> Rows:
        picture = self.manifest.open(photo)
        size, side = (picture.shape[0], picture.shape[1]), self.side
        (height, width), (top, left) = training_crop(size, photo.box, side)
        whole, place = Image.fromarray(picture), (left, top, left + side, top + side)
        if max(height, width) > LONGEST_SHAPE * side:  # all of it, enlarged, would take gigabytes
            (x0, x1), (y0, y1) = (
                (start * n / resized, (start + side) * n / resized)
                for start, n, resized in ((left, whole.width, width), (top, whole.height, height))
            )
            cropped = whole.resize((side, side), Image.Resampling.BICUBIC, box=(x0, y0, x1, y1))
        else:
            cropped = whole.resize((width, height), Image.Resampling.BICUBIC).crop(place)
        conditions = torch.tensor((*size, top, left, side, side), dtype=torch.int32)
        return {"picture": torch.from_numpy(np.array(cropped)), "sizes": conditions}


def _encoded(vae: Any, pixels: Tensor) -> Tensor:
    """[B, 3, 8h, 8w], -1 to 1 -> [B, 4, h, w]: the mean of the distribution; TAESD and its like have none."""
    said = vae.encode(pixels)
    latents: Tensor = said.latent_dist.mean if hasattr(said, "latent_dist") else said.latents
    return latents


def latent_maker(manifest: Manifest, networks: Networks, side: int, dtype: torch.dtype) -> Maker:
    """``latents`` [4, h, w], the mean of the VAE's distribution, scaled; ``sizes`` [6].

    The mean alone: the deviation is far below the noise of the first timestep, would double the disk, and a sample would
    make the cache depend on more than its keys say.
    """
    vae = networks.pipe.vae
    scale, shift = float(vae.config.scaling_factor), float(getattr(vae.config, "shift_factor", None) or 0.0)

    def key(photo: Photo) -> bytes:
        return digest(photo.id, floats(photo.box))

    def run(inputs: Rows) -> Rows:
        pixels = inputs["picture"].to(networks.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        return {"latents": cast((_encoded(vae, pixels) - shift) * scale, dtype), "sizes": inputs["sizes"]}

    return Maker(
        "latents",
        {"vae": weights_hash(vae), "scale": scale, "shift": shift, "size": side, "dtype": str(dtype)},
        photo_items(manifest.taken, key, null=False),
        key,
        TrainingPicture(files_of(manifest), side),
        run,
        LATENT_BATCH,
        (vae,),
    )
