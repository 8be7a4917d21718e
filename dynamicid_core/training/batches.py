"""What one step of training sees: the tensors of a batch, and chance as a function of seed, step and row (``data``).

Row r of a global batch is the same whoever makes it and whatever was made before. So several processes together see
what one would see with a larger batch, and a run that goes on where another stopped needs no state of its data.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

B = TypeVar("B", bound="_Batch")


# --- Chance -------------------------------------------------------------------------------------------------------


def row_generator(seed: int, step: int, row: int, purpose: str = "noise") -> torch.Generator:
    """Random numbers (on the CPU) of one row of the global batch of a step.

    ``purpose`` keeps apart what is drawn for different ends: the loops draw noise and timesteps, this module which photos
    a row has ("data") and what is dropped from it ("drop").
    """
    digest = hashlib.sha256(f"{seed} {step} {row} {purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)  # below 2^63


def shuffled(place: int, count: int, seed: int, epoch: int) -> int:
    """Where ``place`` (0..count-1) of an epoch's order is: every number below ``count`` once, without a list of them.

    A Feistel network of four rounds permutes the numbers of an even count of bits; those that are too large are sent
    through it again until they are not.
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for turn in range(4):
            mixed = hashlib.blake2b(f"{seed} {epoch} {turn} {right}".encode(), digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(mixed, "little") & mask)
        place = left << half | right
        if place < count:
            return place


# --- Batches ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Batch:
    def _map(self: B, change: Callable[[Tensor], Tensor]) -> B:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **{k: change(v) for k, v in values.items() if isinstance(v, Tensor)})

    def to(self: B, device: torch.device | str, dtype: torch.dtype | None = None) -> B:
        """The same batch on a device; ``dtype``: of everything in it, else as it is."""
        return self._map(lambda tensor: tensor.to(device, dtype, non_blocking=True))

    def pin_memory(self: B) -> B:
        """The same batch in memory that a device copies from while it computes; a DataLoader calls this."""
        return self._map(lambda tensor: tensor.pin_memory())

    def __len__(self) -> int:
        return len(getattr(self, dataclasses.fields(self)[0].name))


@dataclass(frozen=True, eq=False)
class AnchorBatch(_Batch):
    """B rows of the anchoring stage: a reference that is shown, and a target to be denoised."""

    latents: Tensor  # [B, 4, h, w]: the target's, scaled by the VAE's factor
    text: Tensor  # [B, S, W]: states of the caption; of the empty prompt where the text is dropped
    identity: Tensor  # [B, 512]: the reference's; zeros where the face is dropped
    clip: Tensor  # [B, L, Wc]: CLIP's states of the reference; of zero pixels where the face is dropped
    pooled: Tensor | None = None  # [B, W2]: SDXL's pooled text
    sizes: Tensor | None = (
        None  # [B, 6]: SDXL's size conditions (original h, w; crop top, left; target h, w), in pixels
    )
    places: Tensor | None = None  # [B, 1, h, w]: how much each place counts, 1 on average; None: all alike
    photos: tuple[tuple[str, str], ...] = ()  # (reference, target) of each row, by photo id: for messages and tests


@dataclass(frozen=True, eq=False)
class ReconfigureBatch(_Batch):
    """B sources of the reconfiguration stage with k targets each, of the same person."""

    source_tokens: Tensor  # [B, T, 768]
    target_tokens: Tensor  # [B, k, T, 768]
    source_landmarks: Tensor  # [B, 106, 2], fractions of the photo
    target_landmarks: Tensor  # [B, k, 106, 2]
    source_text: Tensor  # [B, Wt]: unprojected pooled text feature of what the source shows
    target_text: Tensor  # [B, k, Wt]
    latents: Tensor  # [B, k, 4, h, w]: the targets', scaled by the VAE's factor
    prompt: Tensor  # [S, W]: states of the fixed portrait prompt
    pooled: Tensor | None = None  # [W2]: SDXL's pooled text of that prompt
    sizes: Tensor | None = None  # [B, k, 6]: SDXL's size conditions
    photos: tuple[tuple[str, ...], ...] = ()  # (source, targets...) of each row, by photo id
