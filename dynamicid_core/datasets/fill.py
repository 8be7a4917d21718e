"""Cells that a person lacks, filled by a function that the user names; what it makes passes the checks that photos pass.

Every picture made is kept under ``filled/`` with a line in ``filled.jsonl``, also those that are left out: nothing is made twice.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..pictures import to_rgb
from ..plain import parse_json
from ..types import DynamicIDError
from ..writing import write
from .analysis import photo_id
from .build import Means, build
from .functions import load_function
from .labels import CELLS, FRONT, Cell, Labels
from .manifest import Manifest, Photo
from .settings import Settings
from .sources import Source
from .storage import safe_names

FOLDER, INDEX = "filled", "filled.jsonl"
Fill = Callable[[np.ndarray, "Wanted"], Any]  # photo, uint8 RGB [h, w, 3], and what is wanted -> a picture, or None


@dataclass(frozen=True)
class Wanted:
    """What a picture shall show: what the user's function gets besides a photo of the person."""

    expression: str  # one of landmarks.EXPRESSIONS
    pose: str  # one of prompts.GRID_POSES
    prompt: str  # both in the words of the training set
    person: str
    attempt: int  # from 0
    seed: int  # another one for each person, cell and attempt; always the same for these


@dataclass(frozen=True)
class Record:
    """A picture that was made, or was not."""

    file: str  # in the set's folder; "": the function gave none
    person: str
    expression: str
    pose: str
    attempt: int
    function: str
    of: str  # hash of the photo that the function got

    @property
    def key(self) -> tuple[str, str, str, int, str, str]:
        return self.person, self.expression, self.pose, self.attempt, self.function, self.of


def read_records(folder: Path) -> list[Record]:
    """What was made so far; a last line that was cut short is passed over."""
    path = folder / INDEX
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(Record(**parse_json(line)))
        except (ValueError, TypeError):
            continue
    return records


def filled_sources(folder: Path) -> list[Source]:
    """The pictures made so far, as sources of a build."""
    return [
        Source(r.file, str(folder / r.file), labels=Labels(r.person, r.expression, r.pose), collection="filled")
        for r in sorted(read_records(folder), key=lambda r: r.file)
        if r.file and (folder / r.file).is_file()
    ]


def fill(folder: Path, settings: Settings, function: str, attempts: int = 1, means: Means = Means()) -> Manifest:
    """Fill what can be filled; returns the new manifest. A second call makes only what was not made before.

    Each person's best photo, from the front if there is one, is what the function gets. A round makes one picture for
    each cell still missing; those left out are tried again in the next, up to ``attempts`` times.
    Raises DynamicIDError if the function fails; what it made before is kept.
    """
    make: Fill = load_function(function, "The function")
    manifest = build(folder, settings, means, filled_sources(folder))
    for attempt in range(attempts):
        done = {record.key for record in read_records(folder)}
        todo = [
            (photo, wanted)
            for person, photos in manifest.people().items()
            for photo in [best_photo(photos)]
            for wanted in missing(person, photos, attempt)
            if (person, wanted.expression, wanted.pose, attempt, function, photo.id) not in done
        ]
        if todo:
            _make_all(folder, manifest, make, function, todo, means)
            manifest = build(folder, settings, means, filled_sources(folder))
    return manifest


def best_photo(photos: Sequence[Photo]) -> Photo:
    """A real photo before a made one, from the front before others, neutral before others, then the best."""
    return min(
        photos, key=lambda p: (p.collection == "filled", p.pose != FRONT, p.expression != "neutral", -p.quality, p.id)
    )


def missing(person: str, photos: Sequence[Photo], attempt: int = 0) -> list[Wanted]:
    """The cells that none of a person's photos shows."""
    there = {Cell(photo.expression, photo.pose) for photo in photos}
    return [
        Wanted(cell.expression, cell.pose, cell.prompt, person, attempt, _seed(person, cell, attempt))
        for cell in CELLS
        if cell not in there
    ]


def _seed(person: str, cell: Cell, attempt: int) -> int:
    digest = hashlib.sha256(f"{person}\0{cell.prompt}\0{attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def _make_all(
    folder: Path, manifest: Manifest, make: Fill, function: str, todo: list[tuple[Photo, Wanted]], means: Means
) -> None:
    from tqdm import tqdm

    with (folder / INDEX).open("a", encoding="utf-8") as index:
        if index.tell() and not (folder / INDEX).read_bytes().endswith(b"\n"):
            index.write("\n")  # a line that was cut short
        for photo, wanted in tqdm(todo, desc="filling", unit=" cells", file=sys.stderr, disable=not means.progress):
            file = _make(folder, manifest.open(photo), make, function, wanted)
            cell = (wanted.expression, wanted.pose)
            record = Record(file, wanted.person, *cell, wanted.attempt, function, photo.id)
            index.write(json.dumps(asdict(record), ensure_ascii=False) + "\n")
            index.flush()


def _make(folder: Path, picture: np.ndarray, make: Fill, function: str, wanted: Wanted) -> str:
    """Call the user's function; returns the file that holds what it made, "" if it gave None."""
    try:
        made = make(picture, wanted)
        if made is None:
            return ""
        made = to_rgb(made)
    except Exception as error:  # whatever a user's function raises
        raise DynamicIDError(
            f"The function {function} failed for {wanted.person}, {wanted.prompt} ({type(error).__name__}: {error}). What it "
            "made before is kept; the same command continues."
        ) from error
    content = io.BytesIO()
    Image.fromarray(made).save(content, "PNG")
    # The same picture may be made for two cells; each is judged by itself.
    name = hashlib.sha256(f"{photo_id(content.getvalue())}{wanted}".encode()).hexdigest()[:12]
    person = safe_names([wanted.person])[wanted.person]
    file = f"{FOLDER}/{person}/{wanted.expression}, {wanted.pose} {name}.png"
    write(folder / file, content.getvalue())
    return file
