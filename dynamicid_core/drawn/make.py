"""Pictures, sheets and training sets of drawn people."""

from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ..datasets.labels import CELLS
from ..datasets.manifest import Manifest, Photo
from ..detection import InsightFaceDetector, load_detector
from ..landmarks import EXPRESSIONS
from ..types import DynamicIDError
from ..writing import check_folder, write
from .canvas import draw_picture
from .identity import identity_vector
from .people import VALIDATION, YAWS, Motion, draw_clothes, draw_identity, draw_motion, person_generator
from .scene import Background, Figure, Scene, draw_background, draw_places

SMALLEST, LARGEST = 32, 4096
NEXT = 0.75  # of the height: from one head of a group photo to the next
OURS = re.compile(r"drawn_\d+(_\d+)?|manifest\.parquet|report\.html|cache")  # what lies in a set's folder


def portrait(seed: int, motion: Motion, size: int) -> np.ndarray:
    """The person of a seed, alone in the middle of a square picture, uint8 RGB [size, size, 3].

    Clothes and a plain background follow from the seed, so that they stay when expression and pose change.
    """
    return group_photo([seed], motion, size)


def group_photo(seeds: Sequence[int], motion: Motion, size: int) -> np.ndarray:
    """The people of some seeds side by side, dressed as in their portraits, before the first one's background.

    uint8 RGB [size, w, 3]: a square for one person, and ``NEXT`` of its side more for each other one.
    """
    if not SMALLEST <= size <= LARGEST:
        raise DynamicIDError(f"A drawn picture of {size} px cannot be made; choose {SMALLEST} to {LARGEST}.")
    figures, backgrounds = [], []
    for number, seed in enumerate(seeds):
        rng = person_generator(seed, 4)
        clothes, background = draw_clothes(rng), draw_background(rng)
        figures.append(Figure(draw_identity(seed), motion, clothes, 0.5 + NEXT * number, 0.5, 0.33))
        backgrounds.append(background)
    scene = Scene(tuple(figures), Background("plain", backgrounds[0].paint), 1 + NEXT * (len(figures) - 1))
    return draw_picture(scene, size).picture


def posed(expression: str, pose: str, intensity: float = 1.0) -> Motion:
    """An expression in the middle of a pose of ``prompts.GRID_POSES``."""
    if pose not in YAWS:
        raise DynamicIDError(f"Pose {pose!r} is unknown; choose one of {', '.join(YAWS)}.")
    return Motion(expression, intensity, yaw=sum(YAWS[pose]) / 2)


def expression_sheet(seeds: Sequence[int], size: int, pose: str = "front view") -> np.ndarray:
    """A row for each person, with the seven expressions; uint8 RGB."""
    rows = [[portrait(seed, posed(expression, pose), size) for expression in EXPRESSIONS] for seed in seeds]
    return np.concatenate([np.concatenate(row, 1) for row in rows])


def labelled_scene(seed: int, number: int) -> Scene:
    """Photo ``number`` of a person (0 to 34, and on in the same order): a cell of the training set, elsewhere each time."""
    rng = person_generator(seed, 100 + number)
    cell = CELLS[number % len(CELLS)]
    figure = Figure(
        draw_identity(seed),
        draw_motion(rng, cell.expression, cell.pose),
        draw_clothes(rng),
        *draw_places(rng, 1, 1.0)[0],
    )
    return Scene((figure,), draw_background(rng))


def paired_scene(seed: int, number: int) -> Scene:
    """Photo ``number`` of a person, the two of a pair (2n and 2n + 1) with one motion, elsewhere and dressed differently."""
    motion = draw_motion(person_generator(seed, 1_000 + number // 2))
    rng = person_generator(seed, 10_000 + number)
    figure = Figure(draw_identity(seed), motion, draw_clothes(rng), *draw_places(rng, 1, 1.0)[0])
    return Scene((figure,), draw_background(rng))


def check_set(folder: Path) -> None:
    """Raise DynamicIDError for a folder that is no place for a set of drawn people: with anything else in it."""
    check_folder(folder)
    other = [path.name for path in folder.glob("*") if not OURS.fullmatch(path.name)]
    if other:
        raise DynamicIDError(f"{folder} holds other things ({min(other)}); name a new or empty folder.")


def make_dataset(
    folder: Path,
    seeds: Sequence[int],
    per_person: int,
    size: int,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    pairs: bool = False,
    pack: str = "",
    workers: int = 1,
) -> Manifest:
    """A training set with exact labels: PNG files and ``manifest.parquet`` in ``folder`` (``datasets.manifest``).

    ``pairs``: for anchoring. Two photos each show a person with one motion and count as a person of their own; so what
    the face does is read from the reference, as the IMR needs it, while place, clothes and background are not. Captions
    do not tell expression and pose then. ``pack``: folder of the face models whose recogniser reads identities off the
    pictures, as whoever encodes a photo later will have them read; else they are exact. ``workers``: processes that draw.
    """
    draw = partial(photos_of, folder, per_person, size, pairs, pack)
    with multiprocessing.get_context("spawn").Pool(workers) if workers > 1 else nullcontext() as pool:
        made = map(draw, seeds) if pool is None else pool.imap(draw, seeds, chunksize=8)
        photos = [photo for _, several in zip(progress(seeds), made, strict=True) for photo in several]
    manifest = Manifest(tuple(photos), recogniser="drawn", folder=folder)
    manifest.write(folder)
    return manifest


def photos_of(folder: Path, count: int, size: int, pairs: bool, pack: str, seed: int) -> list[Photo]:
    """The photos of one person in a set of :func:`make_dataset`, written."""
    photos = []
    for number in range(count):
        person = f"drawn_{seed:06d}" + f"_{number // 2:02d}" * pairs
        scene = (paired_scene if pairs else labelled_scene)(seed, number)
        caption = scene.caption(frozenset(("clothes", "background"))) if pairs else scene.caption()
        photo = _photo(folder, f"{person}/{number:03d}.png", seed, scene, size, person, caption)
        photos.append(read_identity(photo, folder, _detector(pack)) if pack else photo)
    return photos


@lru_cache(1)
def _detector(pack: str) -> InsightFaceDetector:
    return load_detector(pack)


def read_identity(photo: Photo, folder: Path, detector: InsightFaceDetector) -> Photo:
    """The photo with the identity that the detector's recogniser reads off it, at its exact landmarks."""
    from .face_batches import keypoints_of

    picture = np.asarray(Image.open(folder / photo.path))
    points = keypoints_of(np.asarray(photo.landmarks) * photo.size[::-1])
    return dataclasses.replace(photo, identity=detector.identity_at(picture, points))


def _photo(folder: Path, path: str, seed: int, scene: Scene, size: int, person: str, caption: str) -> Photo:
    drawn, motion = draw_picture(scene, size), scene.figures[0].motion
    data = BytesIO()
    Image.fromarray(drawn.picture).save(data, "PNG", compress_level=1)
    write(folder / path, data.getvalue())
    x0, y0, x1, y1 = (float(v) / size for v in drawn.boxes[0])
    return Photo(
        id=hashlib.sha256(data.getvalue()).hexdigest(),
        path=path,
        person=person,
        expression=motion.expression,
        pose=motion.pose,
        angles=(motion.pitch, motion.yaw, motion.roll),
        landmarks=drawn.landmarks[0] / size,
        identity=identity_vector(scene.figures[0].identity),
        box=(x0, y0, x1, y1),
        size=(size, size),
        caption=caption,
        collection="drawn",
        split="validation" if seed >= VALIDATION else "train",
        source=f"seed {seed}",
        quality=1.0,
    )
