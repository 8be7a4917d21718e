"""What the judges say of a series: networks that took no part in conditioning (``drawn/weights/judge``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from asked import GALLERY, Series
from dynamicid_core.detection import load_detector
from dynamicid_core.drawn.carried import WEIGHTS
from dynamicid_core.evaluation.cases import gallery_of, read_cases
from dynamicid_core.evaluation.readings import load_reader
from dynamicid_core.evaluation.recognisers import PackRecogniser, Recogniser
from dynamicid_core.evaluation.results import Run
from dynamicid_core.evaluation.run import Tools, evaluate
from dynamicid_core.evaluation.statistics import Estimate, bootstrap
from dynamicid_core.evaluation.store import Store
from dynamicid_core.evaluation.workers import Workers
from making import photo_of

CONDITIONING, JUDGE = "drawn", "judge"  # folders of the carried weights
EXPRESSIONS = "expressions.onnx"


def judges() -> Tools:
    """The judge first: its faces are those whose expression and pose are read."""
    packs: tuple[Recogniser, ...] = tuple(
        PackRecogniser(name, load_detector(str(WEIGHTS / folder), identity_channels=channels))
        for name, folder, channels in ((JUDGE, JUDGE, "bgr"), (CONDITIONING, "faces", "rgb"))
    )
    return Tools(packs, load_reader(WEIGHTS / JUDGE / EXPRESSIONS), None)


def judge(series: Series, folder: Path, people: Path, tools: Tools) -> Run:
    """The results of a series whose pictures are made, also written beside them."""
    cases = read_cases(folder / f"{series.name}.jsonl")
    run = evaluate(cases, tools, Store(folder / "cache"), Workers(quiet=True), series.name, gallery_of(people))
    run.write(folder / "results" / series.name)
    return run


@dataclass(frozen=True)
class Measured:
    """One number of a series, by the judge where it takes a recogniser."""

    run: Run

    def __call__(self, key: str, recogniser: str = JUDGE) -> Estimate | None:
        values = [
            value
            for picture in self.run.pictures
            for value in (picture.value(key, None), picture.value(key, recogniser))
            if value is not None
        ]
        return bootstrap(values) if values else None


def strangers(series: Series, people: Path, tools: Tools) -> float:
    """How alike the photos are of people who are asked for together: what blending has to be compared with."""
    recogniser = tools.recognisers[0]
    known = {
        number: recogniser.average(np.stack([face.identity for face in _faces(recogniser, photo_of(people, number))]))
        for question in series.questions
        for number in question.people
        if number < GALLERY
    }
    pairs = [
        float(recogniser.similarity(known[a][None], known[b][None])[0, 0])
        for question in series.questions
        for a in question.people
        for b in question.people
        if a != b
    ]
    return float(np.mean(pairs))


def _faces(recogniser: Recogniser, path: Path) -> list:  # type: ignore[type-arg]
    from dynamicid_core.pictures import to_rgb

    faces = recogniser.detect(to_rgb(path))
    return faces[:1]
