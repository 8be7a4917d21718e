"""The pictures from which the world's detector, recogniser and judges learn: drawn once, kept in a folder.

Every training person stands alone in two pictures; besides there are groups, backgrounds without anybody, and some of all
as they come back from the world's autoencoder, because that is what generated pictures look like.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..landmarks import EXPRESSIONS
from ..writing import writing
from .canvas import draw_picture
from .people import VALIDATION, Motion, draw_identity, person_generator
from .scene import Scene, draw_background, draw_scene

HEIGHTS, SHARES = (128, 192, 256, 512), (0.7, 0.12, 0.14, 0.04)  # most are of the world's own height
FREE = 0.3  # share of faces at any angle, not only those of the five poses
FIRST = 3 * 10**8  # scene seeds of the pool


@dataclass(frozen=True)
class Faces:
    """Faces of all pictures, a row each."""

    picture: np.ndarray  # int32 [n], which picture
    seed: np.ndarray  # int32 [n], whose
    landmarks: np.ndarray  # float32 [n, 106, 2], pixels of the picture
    expression: np.ndarray  # int8 [n], of landmarks.EXPRESSIONS
    angles: np.ndarray  # float32 [n, 3], pitch, yaw, roll in degrees

    @property
    def boxes(self) -> np.ndarray:
        """float32 [n, 4]."""
        return np.concatenate((self.landmarks.min(1), self.landmarks.max(1)), 1)


class Pictures:
    """uint8 RGB pictures of several sizes; ``again[i]`` is picture i as the autoencoder gives it back, or None."""

    def __init__(self, pictures: list[np.ndarray], faces: Faces) -> None:
        self.pictures, self.faces = pictures, faces
        self.again: list[np.ndarray | None] = [None] * len(pictures)
        order = np.argsort(faces.picture, kind="stable")
        starts = np.searchsorted(faces.picture[order], np.arange(len(pictures) + 1))
        self.in_picture = [order[a:b] for a, b in pairwise(starts)]

    def choose(self, rng: np.random.Generator, index: int) -> np.ndarray:
        """Picture ``index``, in half of the cases as the autoencoder gives it back."""
        again = self.again[index]
        return self.pictures[index] if again is None or rng.uniform() < 0.5 else again


def free_motion(rng: np.random.Generator, expression: str) -> Motion:
    return Motion(
        expression,
        float(rng.uniform(0.7, 1.2)),
        float(rng.uniform(-16, 16)),
        float(rng.uniform(-80, 80)),
        float(rng.uniform(-12, 12)),
    )


def pool_scene(seed: int, people: tuple[int, ...]) -> Scene:
    """A scene of the people with these seeds; some of the faces at any angle."""
    rng = person_generator(seed, 3)
    if not people:
        return Scene((), draw_background(rng), float(rng.choice((1.0, 1.5, 2.0))))
    scene = draw_scene(seed, tuple(draw_identity(person) for person in people))
    figures = tuple(
        dataclasses.replace(f, motion=free_motion(rng, f.motion.expression)) if rng.uniform() < FREE else f
        for f in scene.figures
    )
    return dataclasses.replace(scene, figures=figures)


def plan(people: int, groups: int, empty: int, first: int = 0) -> list[tuple[int, ...]]:
    """Whom each picture shows: everybody twice alone, then groups of two to four, then nobody."""
    rng = person_generator(FIRST + first)
    alone = [(first + seed,) for seed in range(people)] * 2
    sizes = rng.integers(2, 5, groups)
    return [*alone, *(tuple((first + rng.integers(0, people, n)).tolist()) for n in sizes), *[()] * empty]


def make_pictures(
    people: int = VALIDATION,
    groups: int = 2000,
    empty: int = 2400,
    first: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Pictures:
    """Draw the pool for the people with seeds ``first`` to ``first + people``."""
    identity = functools.cache(draw_identity)
    pictures, rows = [], []
    for number, seeds in enumerate(progress(plan(people, groups, empty, first))):
        scene = pool_scene(FIRST + first * 10**4 + number, seeds)
        height = int(person_generator(FIRST + first * 10**4 + number, 4).choice(HEIGHTS, p=SHARES))
        drawn = draw_picture(scene, height)
        pictures.append(drawn.picture)
        for figure, points in zip(scene.figures, drawn.landmarks, strict=True):
            seed = next(s for s in seeds if identity(s) == figure.identity)
            m = figure.motion
            rows.append((number, seed, points, EXPRESSIONS.index(m.expression), (m.pitch, m.yaw, m.roll)))
    picture, seed, landmarks, expression, angles = zip(*rows, strict=True)
    return Pictures(
        pictures,
        Faces(
            np.array(picture, np.int32),
            np.array(seed, np.int32),
            np.stack(landmarks),
            np.array(expression, np.int8),
            np.array(angles, np.float32),
        ),
    )


def write_pictures(pool: Pictures, folder: Path) -> None:
    with writing(folder / "faces.npz") as file:
        np.savez(file, **dataclasses.asdict(pool.faces))
    _write(folder / "pictures", pool.pictures)


def _write(base: Path, pictures: Sequence[np.ndarray]) -> None:
    """Pictures behind each other in ``base``.bin, which is there when all are; their sizes in ``base``.npy."""
    _write_array(base.with_suffix(".npy"), [p.shape[:2] for p in pictures])
    with writing(base.with_suffix(".bin")) as file:
        for picture in pictures:
            picture.tofile(file)


def _write_array(path: Path, values: Sequence[Any]) -> None:
    with writing(path) as file:
        np.save(file, np.array(values, np.int32))


def _read(base: Path) -> list[np.ndarray]:
    """By memory mapping."""
    shapes = np.load(base.with_suffix(".npy"))
    pixels = np.memmap(base.with_suffix(".bin"), np.uint8, "r")
    ends = np.cumsum(shapes.astype(np.int64).prod(1) * 3)
    return [pixels[end - h * w * 3 : end].reshape(h, w, 3) for end, (h, w) in zip(ends, shapes.tolist(), strict=True)]


def pool_in(folder: Path, progress: Callable[[Iterable[Any]], Iterable[Any]] = iter) -> Pictures:
    """The pool that lies in ``folder``, drawn first where it is missing."""
    if not (folder / "pictures.bin").is_file():
        write_pictures(make_pictures(progress=progress), folder)
    with np.load(folder / "faces.npz") as kept:
        return Pictures(_read(folder / "pictures"), Faces(**kept))


def again_in(folder: Path, pool: Pictures, autoencoder: Any, seed: int = 0) -> None:
    """Sets ``again`` of a pool to what lies in ``folder``, made first with the autoencoder where it is missing."""
    if not (folder / "again.bin").is_file():
        through(pool, autoencoder, seed=seed)
        kept = [index for index, picture in enumerate(pool.again) if picture is not None]
        _write_array(folder / "again_index.npy", kept)
        _write(folder / "again", [pool.again[index] for index in kept])  # type: ignore[misc]
    for index, picture in zip(np.load(folder / "again_index.npy"), _read(folder / "again"), strict=True):
        pool.again[index] = picture


def through(pool: Pictures, autoencoder: Any, share: float = 0.35, seed: int = 0, batch: int = 32) -> None:
    """Sets ``again`` for a share of the pictures of the world's height, those that show somebody or nobody alike."""
    import torch

    from .runs import pictures_of, pixels_of

    rng = person_generator(FIRST + 1, seed)
    sizes: dict[tuple[int, ...], list[int]] = {}
    for index, picture in enumerate(pool.pictures):
        if picture.shape[0] == HEIGHTS[0] and rng.uniform() < share:
            sizes.setdefault(picture.shape, []).append(index)
    autoencoder = autoencoder.to(memory_format=torch.channels_last)
    for indices in sizes.values():
        for start in range(0, len(indices), batch):
            part = indices[start : start + batch]
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                pixels = autoencoder.decode(autoencoder.encode(pixels_of([pool.pictures[i] for i in part])))
            for index, picture in zip(part, pictures_of(pixels), strict=True):
                pool.again[index] = picture
