"""What the judges say of a series: networks that took no part in conditioning (``drawn/weights/judge``)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from asked import Series
from making import photo_of

from dynamicid_core.detection import load_detector
from dynamicid_core.drawn.face_packs import DRAWN, DRAWN_JUDGE, EXPRESSION_JUDGE, fill_packs
from dynamicid_core.evaluation.cases import gallery_of, read_cases
from dynamicid_core.evaluation.readings import load_reader
from dynamicid_core.evaluation.recognisers import PackRecogniser, Recogniser
from dynamicid_core.evaluation.results import Run
from dynamicid_core.evaluation.run import Tools, evaluate
from dynamicid_core.evaluation.statistics import Estimate, bootstrap
from dynamicid_core.evaluation.store import Store
from dynamicid_core.evaluation.workers import Workers
from dynamicid_core.pictures import to_rgb

JUDGE = DRAWN_JUDGE
KEYS: tuple[tuple[str, str | None], ...] = (
    ("identified", JUDGE), ("matched", JUDGE), ("count", JUDGE), ("place", JUDGE), ("blending", JUDGE), ("id_conf", JUDGE),
    ("expression", None), ("pose", None), ("outside", None),
)  # fmt: skip


def judges(models: Path) -> Tools:
    """The judge first: its faces are those whose expression and pose are read. ``models``: a folder for the packs."""
    fill_packs(models)
    packs: tuple[Recogniser, ...] = tuple(
        PackRecogniser(name, load_detector(name, [models / "insightface"], identity_channels=channels))
        for name, channels in ((DRAWN_JUDGE, "bgr"), (DRAWN, "rgb"))
    )
    return Tools(packs, load_reader(models / "insightface" / "models" / DRAWN_JUDGE / EXPRESSION_JUDGE), None)


def judge(series: Series, folder: Path, people: Path, tools: Tools) -> Run:
    """The results of a series whose pictures are made, also written beside them."""
    cases = read_cases(folder / f"{series.name}.jsonl")
    run = evaluate(cases, tools, Store(folder / "cache"), Workers(quiet=True), series.name, gallery_of(people))
    run.write(folder / "results" / series.name)
    return run


@dataclass(frozen=True)
class Results:
    """All series as they were judged. ``strangers``: how alike photos are of two people who are asked for together."""

    runs: Mapping[str, Run]
    strangers: float

    def estimate(self, series: str, key: str, recogniser: str | None = JUDGE) -> Estimate | None:
        """The mean over pictures; ``recogniser`` None: of numbers that need none."""
        if series not in self.runs:
            return None
        values = [picture.value(key, recogniser) for picture in self.runs[series].pictures]
        known = [value for value in values if value is not None]
        return bootstrap(known) if known else None

    def kept(self) -> float | None:
        """Similarity to the photo after an edit of the expression, over that of the same people without one."""
        if not {"expressions", "one"} <= self.runs.keys():
            return None
        edited = self.runs["expressions"].pictures
        people = {picture.people[0].name for picture in edited}
        plain = [picture for picture in self.runs["one"].pictures if picture.people[0].name in people]
        means = [np.mean([p.value("matched", JUDGE) or 0.0 for p in pictures]) for pictures in (edited, plain)]
        return float(means[0] / means[1]) if means[1] > 0 else None

    def text(self) -> str:
        lines = []
        for name in self.runs:
            for key, recogniser in KEYS:
                found = self.estimate(name, key, recogniser)
                if found is not None:
                    lines.append(
                        f"{name:22} {key:12} {found.mean:.3f} [{found.low:.3f}, {found.high:.3f}] of {found.pictures}"
                    )
        return "\n".join([*lines, f"strangers {self.strangers:.3f}, kept {self.kept()}"])

    def write(self, path: Path) -> None:
        """The numbers alone, for the record."""
        found = {
            name: {
                key: [round(v, 4) for v in (e.mean, e.low, e.high)] + [e.pictures]
                for key, recogniser in KEYS
                if (e := self.estimate(name, key, recogniser)) is not None
            }
            for name in self.runs
        }
        path.write_text(json.dumps({"strangers": self.strangers, "kept": self.kept(), "series": found}, indent=1))


def strangers(every: Sequence[Series], people: Path, tools: Tools) -> float:
    """How alike the photos are of people who are asked for together: what blending has to be compared with."""
    recogniser = tools.recognisers[0]
    pairs = {
        (a, b)
        for series in every
        for question in series.questions
        for a in question.people
        for b in question.people
        if a < b
    }
    numbers = sorted({number for pair in pairs for number in pair})
    known = {number: recogniser.detect(to_rgb(photo_of(people, number)))[0].identity for number in numbers}
    alike = [recogniser.similarity(known[a][None], known[b][None])[0, 0] for a, b in sorted(pairs)]
    return float(np.mean(alike)) if alike else 0.0
