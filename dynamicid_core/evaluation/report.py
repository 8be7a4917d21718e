"""The report: one HTML file with the tables and the pictures, worst cases first; opens anywhere, needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..captions import person_color
from ..pictures import crop_square, to_rgb
from ..scoring import SAME_PERSON
from ..types import DynamicIDError
from ..writing import write
from .definitions import METRICS, Metric
from .results import MARK, REPORT, FaceResult, PictureResult, ReferenceResult, Run
from .statistics import Line, Table, summarise
from .tables import ARROWS, header, named, sections

TEMPLATE = "report_template.html"
SIDE, THUMB = 640, 128  # px of the longer side of a picture, and of a reference
FACE = 1.9  # a reference's crop, in sizes of the face


@dataclass(frozen=True)
class Overlay:
    """A face's box in the picture, in percent of its size, with whom it matches."""

    x: float
    y: float
    width: float
    height: float
    color: str
    text: str
    below: bool  # where there is room for the text


def write_report(folder: Path, runs: Sequence[Run], shown: int = 60) -> Path:
    """``folder/report.html``: one run, or several beside each other. ``shown``: how many pictures, the worst first."""
    environment = _environment()
    table = summarise(*runs)
    html = environment.get_template(TEMPLATE).render(
        runs=table.runs,
        run=runs[0],
        pictures=len(runs[0].pictures),
        people=len({person.name for run in runs for p in run.pictures for person in p.people}),
        recognisers=list(dict.fromkeys(name for run in runs for name in run.recognisers)),
        titles=header(table),
        sections=_sections(table),
        metrics=[metric for metric in METRICS if any(line.metric is metric for line in table.lines)],
        cards=[_card(pictures, table) for pictures in worst_first(runs)[:shown]],
        same=SAME_PERSON,
        missing=_missing(runs),
        mark=MARK,
    )
    return write(folder / REPORT, html)


def worst_first(runs: Sequence[Run]) -> list[list[PictureResult | None]]:
    """The pictures of one name in each run (None: it lacks it), the one with the worst of them first."""
    by_name = [{picture.id: picture for picture in run.pictures} for run in runs]
    names = list(dict.fromkeys(name for pictures in by_name for name in pictures))
    together = [[pictures.get(name) for pictures in by_name] for name in names]
    return sorted(together, key=lambda pictures: min(picture.badness for picture in pictures if picture))


def _environment() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise DynamicIDError(
            f"The report needs a package that is not installed ({error}). Install it with: python -m pip install jinja2"
        ) from error
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)


def _sections(table: Table) -> list[dict[str, Any]]:
    found = []
    for title, lines in sections(table):
        rows: list[dict[str, Any]] = []
        for line, cells in lines:
            title_of_row = named(line.metric, table.gallery)
            rows.append({
                "label": title_of_row, "arrow": ARROWS[line.metric.better], "text": line.metric.text,
                "recogniser": line.recogniser or "", "cells": [(*cell.partition(" ["), kind) for cell, kind in zip(cells, _kinds(line, cells), strict=True)],
                "first": not rows or rows[-1]["label"] != title_of_row,
            })  # fmt: skip
        found.append({"title": title, "rows": rows})
    return found


def _kinds(line: Line, cells: Sequence[str]) -> list[str]:
    """For each cell "good" or "bad" where it is a difference whose interval does not hold 0."""
    kinds = [""] * (len(cells) - len(line.differences))
    for estimate in line.differences:
        sign = 0 if estimate is None else (estimate.low > 0) - (estimate.high < 0)
        wanted = {"higher": 1, "lower": -1, "": 0}[line.metric.better]
        kinds.append("" if not sign * wanted else "good" if sign == wanted else "bad")
    return kinds


def _missing(runs: Sequence[Run]) -> list[str]:
    """What could not be measured, in how many pictures."""
    notes: dict[str, int] = {}
    for picture in (picture for run in runs for picture in run.pictures):
        for note in dict.fromkeys([*picture.notes, *(n for r in picture.recognisers.values() for n in r.notes)]):
            notes[note] = notes.get(note, 0) + 1
    return [f"{note} ({count} picture{'s' * (count > 1)})" for note, count in notes.items()]


# --- Pictures -----------------------------------------------------------------------------------------------------


def _card(pictures: Sequence[PictureResult | None], table: Table) -> dict[str, Any]:
    first = next(picture for picture in pictures if picture)
    return {
        "id": first.id,
        "prompt": first.prompt,
        "asked": first.asked,
        "references": [_reference(person, number) for number, person in enumerate(first.people)],
        "others": [
            {"title": title, "picture": _file_uri(path, THUMB * 2)}
            for title, path in (("ground truth", first.ground_truth), ("without faces", first.baseline))
            if path
        ],
        "shots": [_shot(p, run, table.gallery) if p else None for p, run in zip(pictures, table.runs, strict=True)],
    }


def _shot(picture: PictureResult, run: str, gallery: int) -> dict[str, Any]:
    names = [person.name for person in picture.people]
    asked = [
        {"x": 100 * p.box[0], "y": 100 * p.box[1], "width": 100 * (p.box[2] - p.box[0]),
         "height": 100 * (p.box[3] - p.box[1]), "color": css_color(number)}
        for number, p in enumerate(picture.people) if p.box
    ]  # fmt: skip
    views = []
    for name, seen in picture.recognisers.items():
        absent = [(i, person.name) for i, person in enumerate(seen.people) if person.face is None]
        views.append({
            "name": name,
            "overlays": [overlay(face, names) for face in seen.faces],
            "absent": [{"name": name, "color": css_color(i)} for i, name in absent],
            "values": _values(seen.values, True, gallery),
            "wrong_count": len(seen.faces) if seen.values.get("count") == 0 else None,
            "people": [
                {"name": p.name, "color": css_color(i), "similarity": f"{p.similarity:.2f}", "missing": p.face is None,
                 "good": p.similarity >= SAME_PERSON, "width": round(100 * max(p.similarity, 0))}
                for i, p in enumerate(seen.people)
            ],
            "notes": seen.notes,
        })  # fmt: skip
    return {
        "run": run,
        "picture": _file_uri(picture.picture, SIDE),
        "asked": asked,
        "views": views,
        "values": _values(picture.values, False, gallery),
        "notes": picture.notes,
    }


def _values(values: dict[str, float | None], recognised: bool, gallery: int) -> list[dict[str, Any]]:
    """Numbers beside a picture; matched similarity and count stand there already."""
    return [
        {"label": named(metric, gallery), "text": metric.text, "value": _short(value, metric),
         "bad": metric.share and value == 0}
        for metric in METRICS
        if metric.recognised == recognised
        and metric.key not in ("matched", "count")
        and (value := values.get(metric.key)) is not None
    ]  # fmt: skip


def _short(value: float, metric: Metric) -> str:
    return (
        f"{100 * value:.0f}%"
        if metric.share
        else f"{value:.3f}"
        if metric.key in ("outside", "clip_t")
        else f"{value:.2f}"
    )


def css_color(number: int) -> str:
    """The colour of person ``number`` as CSS writes it."""
    return "#{:02x}{:02x}{:02x}".format(*person_color(number))


def overlay(face: FaceResult, names: Sequence[str]) -> Overlay:
    """What is drawn over a face: the person's colour and name, red for somebody shown twice, grey for strangers."""
    x0, y0, x1, y1 = (100 * min(max(end, 0), 1) for end in face.box)
    if face.person is None:
        color = "#c8c8c8" if face.again is None else "#ff7a6b"
        text = f"{names[face.again]} again {face.similarity:.2f}" if face.again is not None else "not asked for"
        return Overlay(x0, y0, x1 - x0, y1 - y0, color, text, y1 < 92)
    text = f"{names[face.person]} {face.similarity:.2f}"
    return Overlay(x0, y0, x1 - x0, y1 - y0, css_color(face.person), text, y1 < 92)


def _reference(person: ReferenceResult, number: int) -> dict[str, Any]:
    wanted = [word for word in (person.expression, person.pose) if word]
    found: dict[str, Any] = {
        "name": person.name,
        "color": css_color(number),
        "wanted": ", ".join(wanted),
        "picture": "",
    }
    try:
        photo = to_rgb(person.photos[0])
    except DynamicIDError:
        return found  # a face file, or a photo that is gone
    if person.face:
        height, width = photo.shape[:2]
        x0, y0, x1, y1 = person.face
        photo, _ = crop_square(photo, (x0 * width, y0 * height, x1 * width, y1 * height), FACE)
    return {**found, "picture": _uri(photo, THUMB)}


def _file_uri(path: str, side: int) -> str:
    """A picture for the report; "" if it is gone."""
    try:
        return _uri(to_rgb(path), side)
    except DynamicIDError:
        return ""


def _uri(image: np.ndarray, side: int) -> str:
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
