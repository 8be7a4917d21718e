"""What was measured: of a person, of a picture by one recogniser, of a picture, of a run; written to ``results.json``."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from ..plain import build, one_line, parse_json
from ..scoring import SAME_PERSON
from ..types import DynamicIDError
from ..writing import check_file, check_folder, write

FILE, REPORT = "results.json", "report.html"
TABLES = {"markdown": "table.md", "csv": "table.csv", "latex": "table.tex"}
MARK = '<meta name="generator" content="DynamicID">'  # of our reports
VERSION = 1
Values = dict[str, float | None]  # by definitions.Metric.key; None: nothing to measure


Box = tuple[float, float, float, float]  # x0, y0, x1, y1: fractions of a picture


@dataclass(frozen=True)
class ReferenceResult:
    """Who was asked for, and what."""

    name: str
    photos: tuple[str, ...]
    face: Box | None  # in the first photo
    box: Box | None = None  # where in the picture
    expression: str = ""
    pose: str = ""


@dataclass(frozen=True)
class FaceResult:
    """A face that was found."""

    box: Box
    person: int | None  # whom it is matched to, from 0; None: nobody
    similarity: float  # to that person, or the largest to anybody asked for
    again: int | None = None  # whom it shows once more, if it is matched to nobody


@dataclass(frozen=True)
class PersonResult:
    """A person who was asked for, as one recogniser sees them."""

    name: str
    face: int | None  # which of the faces; None: missing
    similarity: float  # 0 when missing
    values: Values = field(default_factory=dict)


@dataclass(frozen=True)
class RecogniserResult:
    """A picture as one recogniser sees it."""

    values: Values
    faces: tuple[FaceResult, ...]
    people: tuple[PersonResult, ...] = ()  # empty where somebody's reference shows no face
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PictureResult:
    """A picture."""

    id: str
    picture: str
    asked: int  # people asked for
    prompt: str
    values: Values  # those that need no recogniser, and agreement
    recognisers: dict[str, RecogniserResult]
    people: tuple[ReferenceResult, ...] = ()
    ground_truth: str = ""
    baseline: str = ""
    notes: tuple[str, ...] = ()

    @property
    def badness(self) -> tuple[bool, float, str]:
        """Sorts the worst first: failures (somebody not recognisable, a wrong number of faces) before all others, then by
        matched similarity over the recognisers."""
        seen = self.recognisers.values()
        fine = all(r.values.get("count") and all(p.similarity >= SAME_PERSON for p in r.people) for r in seen)
        matched = [value for r in seen if (value := r.values.get("matched")) is not None]
        return (fine, sum(matched) / len(matched) if matched else 0.0, self.id)

    def value(self, key: str, recogniser: str | None) -> float | None:
        """One number, None if it was not measured; ``recogniser`` None: one that needs none."""
        if recogniser is None:
            return self.values.get(key)
        return self.recognisers[recogniser].values.get(key) if recogniser in self.recognisers else None


@dataclass(frozen=True)
class Run:
    """An evaluation."""

    name: str
    recognisers: tuple[str, ...]
    gallery: int  # people among whom somebody is found again
    pictures: tuple[PictureResult, ...]
    tools: dict[str, str] = field(default_factory=dict)  # what read expressions, which CLIP

    def write(self, folder: Path) -> Path:
        """``folder/results.json``, complete or not at all."""
        values = {"version": VERSION, **dataclasses.asdict(self)}
        return write(folder / FILE, json.dumps(values, ensure_ascii=False, indent=1, allow_nan=False))


def check_output(folder: Path) -> None:
    """Raise DynamicIDError for a folder that is no place for results: where nothing can be written, or where files of
    their names are somebody else's."""
    if folder.is_file():
        raise DynamicIDError(f"{folder} is a file; give --output a folder.")
    check_folder(folder)
    there = [path for name in (FILE, REPORT, *TABLES.values()) if (path := folder / name).exists()]
    for path in there:
        check_file(path)
    if there and not _is_ours(folder):
        raise DynamicIDError(f"{there[0]} is there already and is not of an evaluation; give --output another folder.")


def _is_ours(folder: Path) -> bool:
    try:
        if MARK in (folder / REPORT).read_text(encoding="utf-8"):
            return True
    except (OSError, ValueError):
        pass
    try:
        return bool(read_run(folder))
    except DynamicIDError:
        return False


def read_run(folder: Path) -> Run:
    """The results of an evaluation's folder (or of its results.json); DynamicIDError for anything else."""
    path = folder / FILE if os.path.isdir(folder) else folder
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DynamicIDError(f"There is no {path}; evaluate these pictures first, with --output {folder}.") from None
    except (OSError, ValueError) as error:
        raise DynamicIDError(f"{path} holds no results of an evaluation ({one_line(str(error))}).") from error
    try:
        values = parse_json(text)
        version = values.pop("version", None) if isinstance(values, dict) else VERSION
        if type(version) is not int or version != VERSION:
            raise DynamicIDError(
                "another version of DynamicID wrote it, or something else; evaluate its pictures again"
            )
        run: Run = build(Run, values, "")
        return run
    except DynamicIDError as error:
        raise DynamicIDError(f"{path} holds no results of an evaluation ({str(error).rstrip('.')}).") from error
