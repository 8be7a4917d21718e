"""``report.html`` of a training set: one file with its pictures in it, for people who look before they train."""

from __future__ import annotations

import base64
import io
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from ..landmarks import EXPRESSIONS
from ..pictures import crop_square
from ..types import DynamicIDError
from ..writing import write
from .build import EXAMPLES_EACH, example_path
from .checks import REASONS
from .fill import best_photo, read_records
from .labels import CELLS, FRONT, FULL_LEFT, FULL_RIGHT, GRID_WORD, LEFT, RIGHT, Cell
from .manifest import Manifest, Photo
from .report_page import PAGE
from .settings import FILE as SETTINGS_FILE
from .settings import Settings, read_settings

FILE = "report.html"
POSES = (FULL_LEFT, LEFT, FRONT, RIGHT, FULL_RIGHT)  # as they stand beside each other
FACE_SIDE = 112  # px
MOST_PEOPLE = 150  # that are shown one by one: those with the fewest cells
FACES_EACH = 5  # pictures of a person


def write_report(folder: str | os.PathLike[str], manifest: Manifest) -> Path:
    """Write ``report.html`` into the set's folder; the same set gives the same bytes. Returns its path."""
    try:
        from jinja2 import Environment
    except ImportError as error:
        raise DynamicIDError(
            'The report needs the Python package jinja2. Install it with: python -m pip install "comfyui-dynamicid[train]"'
        ) from error
    folder = Path(folder)
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PAGE)
    return write(folder / FILE, page.render(**_content(folder, manifest)))


def _content(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """Everything that the page names."""
    settings, found = read_settings(folder) if (folder / SETTINGS_FILE).is_file() else (None, {})
    records = read_records(folder)
    fillers = sorted({record.function for record in records})
    people = manifest.people()
    covered = {name: {Cell(p.expression, p.pose) for p in photos} for name, photos in people.items()}
    shown = sorted(people, key=lambda name: (len(covered[name]), name))[:MOST_PEOPLE]
    left_out: dict[str, Counter[str]] = defaultdict(Counter)
    for photo in manifest.photos:
        if photo.reason:
            left_out[photo.person][photo.reason] += 1
    made = [photo for photo in manifest.photos if photo.collection == "filled"]
    return {
        "name": folder.resolve().name,
        "taken": len(manifest.taken),
        "photos": len(manifest.photos),
        "people": len(people),
        "validation": len(manifest.people("validation")),
        "cells": sum(map(len, covered.values())),
        "all_cells": len(CELLS) * len(people),
        "collections": Counter(photo.collection for photo in manifest.taken).most_common(),
        "poses": POSES,
        "grid": [_grid_row(manifest, expression, len(people)) for expression in EXPRESSIONS],
        "cards": [_person(manifest, name, people[name], left_out[name]) for name in shown],
        "merges": [_merge(manifest, merge) for merge in found.get("merges", [])],
        "merged": settings is None or settings.checks.merge,
        "reasons": _reasons(folder, manifest),
        "ignored": found.get("ignored", {}),
        "made": len(made),
        "not_made": sum(not record.file for record in records),
        "made_taken": sum(photo.reason is None for photo in made),
        "made_reasons": Counter(photo.reason for photo in made if photo.reason).most_common(),
        "hints": _hints(manifest, settings, covered),
        "settings": _settings(manifest, settings) + [("filled by", name) for name in fillers],
    }


# --- pictures -----------------------------------------------------------------------------------------------------


def _embedded(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _face(manifest: Manifest, photo: Photo) -> str:
    """The face with what is around it, as a picture in the page; "" if its file is gone."""
    try:
        picture = manifest.open(photo)
    except DynamicIDError:
        return ""
    height, width = picture.shape[:2]
    box = (0.0, 0.0, 1.0, 1.0) if photo.box is None else photo.box
    crop, _ = crop_square(picture, (box[0] * width, box[1] * height, box[2] * width, box[3] * height), 1.6)
    return _embedded(Image.fromarray(crop).resize((FACE_SIDE, FACE_SIDE), Image.Resampling.LANCZOS))


def _example(folder: Path, manifest: Manifest, photo: Photo, taken: dict[str, Photo]) -> dict[str, Any] | None:
    """A photo that was left out, whole, with the face's box in percent of it, and what it is a copy of."""
    path = folder / example_path(photo)
    if not photo.id or not path.is_file():
        return None
    with Image.open(path) as image:
        picture = _embedded(image.convert("RGB"))
    box = None
    if photo.box is not None:
        x0, y0, x1, y1 = (100 * min(max(value, 0.0), 1.0) for value in photo.box)
        box = {"left": f"{x0:.1f}", "top": f"{y0:.1f}", "width": f"{x1 - x0:.1f}", "height": f"{y1 - y0:.1f}"}
    named = photo.detail.removeprefix("of ")
    twin = taken.get(named) or taken.get(named.rpartition(": ")[0])
    shown = _face(manifest, twin) if twin and photo.reason and "duplicate" in photo.reason else ""
    return {"picture": picture, "box": box, "source": photo.source, "detail": photo.detail, "twin": shown}


# --- parts of the page --------------------------------------------------------------------------------------------


def _grid_row(manifest: Manifest, expression: str, people: int) -> dict[str, Any]:
    cells = []
    for pose in POSES:
        photos = [p for p in manifest.taken if (p.expression, p.pose) == (expression, pose)]
        count = len({photo.person for photo in photos})
        best = min(photos, key=lambda p: (-p.quality, p.id), default=None)
        share = count / people if people else 0.0
        cells.append(
            {"people": count, "share": share, "photos": len(photos), "picture": best and _face(manifest, best)}
        )
    return {"name": GRID_WORD[expression], "cells": cells}


def _person(manifest: Manifest, name: str, photos: Sequence[Photo], left_out: Counter[str]) -> dict[str, Any]:
    cells: dict[Cell, list[Photo]] = defaultdict(list)
    for photo in photos:
        cells[Cell(photo.expression, photo.pose)].append(photo)

    def square(cell: Cell) -> dict[str, str]:
        shown = cells.get(cell, [])
        made = bool(shown) and all(photo.collection == "filled" for photo in shown)
        state = "made" if made else "full" if shown else "empty"
        return {"state": state, "title": f"{GRID_WORD[cell.expression]}, {cell.pose}: {len(shown)}"}

    first = best_photo(photos)
    others = sorted(photos, key=lambda p: (len(cells[Cell(p.expression, p.pose)]), -p.quality, p.id))
    shown = [first, *(photo for photo in others if photo is not first)][:FACES_EACH]
    return {
        "name": name,
        "validation": photos[0].split == "validation",
        "count": len(photos),
        "cells": len(cells),
        "grid": [[square(Cell(expression, pose)) for pose in POSES] for expression in EXPRESSIONS],
        "faces": [face for photo in shown if (face := _face(manifest, photo))],
        "out": left_out.most_common(),
    }


def _merge(manifest: Manifest, merge: dict[str, Any]) -> dict[str, Any]:
    """People who seem to be one: each name with the best photo that came under it."""
    faces = []
    for name in merge["names"]:
        here = [
            p for p in manifest.taken
            if (p.person == name and not p.detail.startswith("under the name")) or p.detail == f"under the name {name}"
        ]  # fmt: skip
        faces.append({"name": name, "picture": _face(manifest, best_photo(here)) if here else ""})
    return {"faces": faces, "name": merge["name"], "similarity": f"{merge['similarity']:.2f}"}


def _reasons(folder: Path, manifest: Manifest) -> list[dict[str, Any]]:
    found: dict[str, list[Photo]] = defaultdict(list)
    for photo in manifest.photos:
        if photo.reason:
            found[photo.reason].append(photo)
    taken = {photo.source: photo for photo in manifest.taken}
    reasons = []
    for name in sorted(found, key=lambda reason: (-len(found[reason]), reason)):
        photos = sorted(found[name], key=lambda p: p.id)
        pictured = (example for photo in photos if (example := _example(folder, manifest, photo, taken)))
        examples = list(islice(pictured, EXAMPLES_EACH))
        lines = [] if examples else [{"source": p.source, "detail": p.detail} for p in photos[:EXAMPLES_EACH]]
        reasons.append(
            {"name": name, "count": len(photos), "text": REASONS.get(name, ""), "examples": examples, "lines": lines}
        )
    return reasons


def _hints(manifest: Manifest, settings: Settings | None, covered: dict[str, set[Cell]]) -> list[str]:
    """What would make the set better, in sentences."""
    hints = []
    nowhere = [cell for cell in CELLS if not any(cell in cells for cells in covered.values())]
    if len(nowhere) == len(CELLS):
        return ["No photo was taken. What was left out, and why, is below."]
    if nowhere:
        hints.append(f"{len(nowhere)} of the 35 cells are shown by nobody, so a model cannot learn them from this set.")
    if any(len(cells) < len(CELLS) for cells in covered.values()):
        hints.append(
            "Missing cells can be filled by a function that you name: python -m dynamicid_core dataset fill --help"
        )
    alone = [name for name, photos in manifest.people().items() if len(photos) == 1]
    if alone:
        hints.append(
            f"{len(alone)} of the people have one photo only, which is then both reference and target; more photos of them "
            "teach more."
        )
    if settings and not settings.classifier:
        hints.append(
            "Expressions were read from landmarks, which sees clear ones from the front only; a classifier "
            "(--expressions) sees more."
        )
    if not manifest.people("validation"):
        hints.append(
            "Nobody is kept for validation; more people, or a larger --validation, would show how training goes."
        )
    return hints


def _settings(manifest: Manifest, settings: Settings | None) -> list[tuple[str, str]]:
    rows = [("recogniser", manifest.recogniser)]
    if settings is None:
        return rows
    checks = settings.checks
    return [
        *rows,
        ("photos from", ", ".join(settings.sources)),
        ("expressions", Path(settings.classifier).name if settings.classifier else "read from landmarks"),
        ("captions", settings.captioner or settings.caption),
        *(
            (name.replace("_", " "), f"{getattr(checks, name):g}")
            for name in (
                "smallest_face",
                "sharpness",
                "score",
                "disagreement",
                "cut",
                "rival",
                "same_person",
                "same_people",
                "near_duplicate",
                "per_cell",
                "per_person",
                "fewest",
            )
        ),
    ]
