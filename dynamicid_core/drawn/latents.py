"""Scenes of a training as latents on disk: each is drawn and encoded when a step first asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .autoencoder import Autoencoder
from .canvas import draw_picture
from .people import person_generator
from .runs import pixels_of
from .scene import Scene, draw_scene, lacks, looks
from .text import PLACES, caption_ids

SAID = ("expression", "pose", "clothes", "background")
LOOKS = 0.85  # share of captions of one person that tell looks
FACE_WEIGHT = 4.0  # of what is learned about a place in a face, against one elsewhere
CHUNK = 16  # pictures encoded at once


@dataclass(frozen=True)
class Kind:
    """One kind of training picture: how many people, how wide, how many scenes, and how many in a batch."""

    name: str
    people: tuple[int, ...]
    width: float  # in heights
    scenes: int
    batch: int


KINDS = {
    "one": Kind("one", (1,), 1.0, 60_000, 64),
    "two": Kind("two", (2,), 1.5, 12_000, 40),
    "several": Kind("several", (3, 4, 2), 2.0, 12_000, 32),
}
SCHEDULE = ("one", "one", "two", "one", "one", "several")  # of steps


def scene_of(kind: Kind, index: int) -> Scene:
    """The scene with a number among those of its kind, of training people only."""
    offset = 10**8 * (1 + list(KINDS).index(kind.name)) if kind.name in KINDS else 0
    people = kind.people[index % len(kind.people)]
    return draw_scene(offset + index, people, kind.width)


def training_caption(scene: Scene, seed: int, empty: float = 0.1) -> str:
    """A caption that leaves out each thing now and then, so that words may be missing at inference, and sometimes all.

    Most of those of one person tell some of the looks, and of what is not there: so cross attention learns to decide
    about looks at all, which is what faces come in by later.
    """
    rng = person_generator(seed, 3)
    if rng.uniform() < empty:
        return ""
    said = frozenset(what for what in SAID if rng.uniform() < 0.85)
    told: list[str] = []
    if len(scene.figures) == 1 and rng.uniform() < LOOKS:
        who = scene.figures[0].identity
        every = looks(who) + lacks(who)
        for index in rng.permutation(len(every)):
            longer = sorted([*told, every[index]], key=every.index)
            if rng.uniform() < 0.75 and len(caption_ids(scene.caption(said, longer))) < PLACES:
                told = longer
    return scene.caption(said, told)


def face_weights(scene: Scene, rows: int) -> np.ndarray:
    """float32 [rows, columns], with a mean of 1: faces, which are small and are what this world is about, weigh more."""
    y, x = (np.arange(count) + 0.5 for count in (rows, round(rows * scene.width)))
    inside = [
        np.hypot(x[None] / rows - figure.x, y[:, None] / rows - figure.y) < figure.size for figure in scene.figures
    ]
    weights = np.where(np.any(inside, 0), FACE_WEIGHT, 1.0).astype(np.float32)
    mean_one: np.ndarray = weights / weights.mean()
    return mean_one


class Latents:
    """The latents [scenes, 4, h, w] of one kind in a file of half precision, and which of them are there."""

    def __init__(self, folder: Path, kind: Kind, autoencoder: Autoencoder, height: int = 128) -> None:
        self.kind, self.autoencoder, self.height = kind, autoencoder.eval(), height
        self.shape = (kind.scenes, 4, height // 8, round(kind.width * height / 8))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"latents_{kind.name}.f16"
        whole = path.exists() and path.stat().st_size == 2 * np.prod(self.shape)
        self.kept: np.memmap = np.memmap(path, np.float16, "r+" if whole else "w+", shape=self.shape)

    @torch.no_grad()
    def of(self, indices: Sequence[int]) -> Tensor:
        """float32 [B, 4, h, w]."""
        # A latent of zeros alone is one that was never written.
        missing = [index for index in indices if not self.kept[index, :, 0].any()]
        device = next(self.autoencoder.parameters()).device
        for start in range(0, len(missing), CHUNK):
            part = missing[start : start + CHUNK]
            pixels = pixels_of([draw_picture(scene_of(self.kind, index), self.height).picture for index in part])
            self.kept[part] = self.autoencoder.encode(pixels.to(device)).cpu().numpy().astype(np.float16)
        return torch.from_numpy(self.kept[list(indices)].astype(np.float32))
