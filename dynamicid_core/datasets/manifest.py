"""The manifest of a training set: a row for each photo, those that were left out too, and why.

It is ``manifest.parquet`` in the set's folder (docs/training.md, Data). Whatever makes a set writes one, and whatever
trains on or measures a set reads nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..landmarks import EXPRESSIONS
from ..pictures import to_rgb
from ..prompts import GRID_POSES
from ..types import RECOGNISER, DynamicIDError
from ..writing import writing

if TYPE_CHECKING:
    import pyarrow

FILE = "manifest.parquet"
FORMAT, VERSION = b"dynamicid-dataset", b"1"
COLLECTIONS = ("photos", "kdef", "filled", "drawn")
SPLITS = ("train", "validation")


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo, and what is known of it. What was not reached, because it was left out before, is "" or None."""

    id: str  # sha256 of the file's bytes, hexadecimal
    path: str  # of its file, relative to the set's folder, with forward slashes; "": not kept, as it was left out
    person: str
    expression: str = ""  # one of landmarks.EXPRESSIONS
    pose: str = ""  # one of prompts.GRID_POSES
    angles: tuple[float, float, float] | None = None  # pitch (up is positive), yaw, roll in degrees
    landmarks: np.ndarray | None = None  # [106, 2] float32, fractions of the photo
    identity: np.ndarray | None = None  # [512] float32, length 1
    box: tuple[float, float, float, float] | None = None  # of the face: x0, y0, x1, y1, fractions of the photo
    size: tuple[int, int] = (0, 0)  # height, width in pixels
    caption: str = ""
    collection: str = "photos"  # one of COLLECTIONS
    split: str = "train"  # one of SPLITS; all photos of a person are in one
    reason: str | None = None  # why it was left out; None: it is taken
    detail: str = ""  # what was measured, or which other photo or person it is about
    source: str = ""  # where it came from, for people to read
    quality: float = 0.0  # 0..1; of two photos that show the same, the better one has more


@dataclass(frozen=True, eq=False)
class Manifest:
    """The photos of a set. ``folder`` is where their files are: known after :meth:`read`, and needed for :meth:`open`."""

    photos: tuple[Photo, ...]
    recogniser: str = RECOGNISER  # what made the identities, as detectors call it
    folder: Path | None = None

    @cached_property
    def taken(self) -> tuple[Photo, ...]:
        """The photos to train with, in the manifest's order."""
        return tuple(photo for photo in self.photos if photo.reason is None)

    def people(self, split: str | None = None) -> dict[str, list[Photo]]:
        """Person -> photos taken, people by name, photos in the manifest's order; ``split``: only those of it."""
        if split is not None and split not in SPLITS:
            raise DynamicIDError(f"A training set has no part {split!r}; choose one of {', '.join(SPLITS)}.")
        found: dict[str, list[Photo]] = {}
        for photo in self.taken:
            if split in (None, photo.split):
                found.setdefault(photo.person, []).append(photo)
        return dict(sorted(found.items()))

    def open(self, photo: Photo) -> np.ndarray:
        """The picture, uint8 RGB [h, w, 3]. Raises DynamicIDError if its file is not there or was not kept."""
        if self.folder is None:
            raise DynamicIDError("This manifest was not read from a folder, so its photos cannot be opened.")
        if not photo.path:
            raise DynamicIDError(f"The photo {photo.source or photo.id} was left out ({photo.reason}) and not kept.")
        return to_rgb(self.folder / photo.path)

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``manifest.parquet`` into ``folder``: the old file or the whole new one; equal rows, equal bytes.

        Raises DynamicIDError for photos that say what nobody would understand, and if the file cannot be written.
        """
        check(self.photos)
        import pyarrow.parquet

        path = Path(folder) / FILE
        with writing(path) as file:
            pyarrow.parquet.write_table(self._table(), file, compression="zstd")
        return path

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Manifest:
        """The manifest of the training set in ``folder``; DynamicIDError if there is none, or none that can be read."""
        need_pyarrow()
        import pyarrow
        import pyarrow.parquet

        path = Path(folder) / FILE
        if not path.is_file():
            what = "There is no folder" if not Path(folder).is_dir() else "There is no training set in"
            raise DynamicIDError(f"{what} {folder}. `python -m dynamicid_core dataset build` makes one from photos.")
        try:
            table = pyarrow.parquet.read_table(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise DynamicIDError(f"{path} cannot be read ({error}); build the set again.") from error
        known = table.schema.metadata or {}
        if known.get(b"format") != FORMAT or known.get(b"version") != VERSION:
            raise DynamicIDError(f"{path} is no manifest of a training set that this version can read; build it again.")
        return cls(_photos(table), known[b"recogniser"].decode(), Path(folder))

    def _table(self) -> pyarrow.Table:
        need_pyarrow()
        import pyarrow as pa

        texts = (
            "id",
            "path",
            "person",
            "expression",
            "pose",
            "caption",
            "collection",
            "split",
            "reason",
            "detail",
            "source",
        )
        columns: dict[str, Any] = {
            name: pa.array([getattr(p, name) for p in self.photos], pa.string()) for name in texts
        }
        floats = pa.list_(pa.float32())
        for name in ("angles", "landmarks", "identity", "box"):
            values = [getattr(p, name) for p in self.photos]
            rows = [None if v is None else np.asarray(v, np.float32).reshape(-1) for v in values]
            columns[name] = pa.array(rows, floats)
        for place, name in enumerate(("height", "width")):
            columns[name] = pa.array([p.size[place] for p in self.photos], pa.int32())
        columns["quality"] = pa.array([p.quality for p in self.photos], pa.float32())
        known = {"format": FORMAT, "version": VERSION, "recogniser": self.recogniser}
        return pa.table(columns).replace_schema_metadata(known)


def check(photos: Sequence[Photo]) -> None:
    """Raise DynamicIDError for a photo taken that lacks its cell, or a name that is not in one of the lists."""
    allowed = (("expression", EXPRESSIONS), ("pose", GRID_POSES), ("collection", COLLECTIONS), ("split", SPLITS))
    for photo in photos:
        for name, choices in allowed:
            value = getattr(photo, name)
            if value not in choices and (value or photo.reason is None):
                raise DynamicIDError(
                    f"The photo {photo.source or photo.path} has the {name} {value!r}; it must be one of {', '.join(choices)}."
                )
        if photo.reason is None and not photo.path:
            raise DynamicIDError(f"The photo {photo.source or photo.id} is taken, but the set holds no file of it.")


def need_pyarrow() -> None:
    """Raise DynamicIDError, with what to install, if pyarrow is missing or does not go with the NumPy that is there."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise DynamicIDError(
            f"Training sets need the Python package pyarrow ({error}). Install it with: "
            'python -m pip install "comfyui-dynamicid[train]"'
        ) from error


def _lists(column: pyarrow.ChunkedArray) -> list[np.ndarray | None]:
    """A column of lists -> an array for each row; without a Python number for each value."""
    import pyarrow as pa

    whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    values, offsets = whole.values.to_numpy(zero_copy_only=False), whole.offsets.to_numpy()
    valid = whole.is_valid().to_numpy(zero_copy_only=False)
    return [values[a:b].copy() if ok else None for a, b, ok in zip(offsets[:-1], offsets[1:], valid, strict=True)]


def _photos(table: pyarrow.Table) -> tuple[Photo, ...]:
    rows = {name: table[name].to_pylist() for name in table.column_names if name not in ("landmarks", "identity")}
    points, identities = _lists(table["landmarks"]), _lists(table["identity"])
    sizes = list(zip(rows.pop("height"), rows.pop("width"), strict=True))
    for name in ("angles", "box"):
        rows[name] = [None if value is None else tuple(value) for value in rows[name]]
    names = list(rows)
    return tuple(
        Photo(
            **dict(zip(names, row, strict=True)),
            size=sizes[n],
            landmarks=None if (p := points[n]) is None else p.reshape(-1, 2),
            identity=identities[n],
        )
        for n, row in enumerate(zip(*rows.values(), strict=True))
    )
