"""An evaluation from beginning to end: look at every file, measure every picture, write what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..types import DynamicIDError
from .cases import Case, Reference, who_is_who
from .clip import ClipScore
from .measure import Gallery, Judges, View, measure
from .readings import ExpressionReader, LandmarkReader
from .recognisers import Recogniser
from .results import Run
from .sight import Known, files_of, know, look
from .store import Store
from .workers import Workers


@dataclass(frozen=True, eq=False)
class Tools:
    """What judges. ``recognisers``: the one that conditioned the pictures first, then one that never took part."""

    recognisers: tuple[Recogniser, ...]
    reader: ExpressionReader = LandmarkReader()
    clip: ClipScore | None = None


def evaluate(
    cases: Sequence[Case],
    tools: Tools,
    store: Store,
    workers: Workers,
    name: str = "",
    gallery: Sequence[Reference] = (),
) -> Run:
    """Every picture measured; the same result in every process, whatever their number.

    ``gallery``: further people among whom those of the pictures are looked up.
    Raises DynamicIDError where two pictures have one name, and for files that cannot be read.
    """
    cases = with_names(cases)
    everybody = dict.fromkeys([*(p for case in cases for p in case.people), *gallery])
    who = who_is_who(everybody)
    files = files_of(cases, gallery)
    views = []
    for recogniser in tools.recognisers:
        seen = look(recogniser, files, store, workers)
        known = {person: know(person, recogniser, seen) for person in everybody}
        views.append(View(recogniser, seen, known, _gallery(recogniser, known, who)))
    judges = Judges(tuple(views), tools.reader, tools.clip)
    pictures = workers.map(lambda case: measure(case, judges), cases, "measuring")
    return Run(
        name,
        tuple(recogniser.name for recogniser in tools.recognisers),
        max(len(view.gallery.labels) for view in views),
        tuple(pictures),
        {"expressions": tools.reader.name, "clip": tools.clip.name if tools.clip else ""},
    )


def with_names(cases: Sequence[Case]) -> list[Case]:
    """The cases with a name each: their id, or the file's name, with the folder's where several files have one name.

    Raises DynamicIDError where that does not tell them apart, and where there is none.
    """
    if not cases:
        raise DynamicIDError("There are no pictures to evaluate.")
    times = Counter(case.name for case in cases)
    named = [
        replace(case, id=case.name if case.id or times[case.name] == 1 else f"{case.picture.parent.name}/{case.name}")
        for case in cases
    ]
    (name, most), *_ = Counter(case.id for case in named).most_common(1)
    if most > 1:
        files = " and ".join(str(case.picture) for case in named if case.id == name)
        raise DynamicIDError(f"{files} have one name, {name!r}; rename one, or give each an id in a list.")
    return named


def _gallery(recogniser: Recogniser, known: dict[Reference, Known], who: dict[Reference, str]) -> Gallery:
    """Everybody once, whatever the photos; people whose photos show no face cannot be found."""
    identities: dict[str, list[np.ndarray]] = {}
    for person, one in known.items():
        if one.identity is not None:
            identities.setdefault(who[person], []).append(one.identity)
    averages = [recogniser.average(np.stack(rows)) for rows in identities.values()]
    return Gallery(who, tuple(identities), np.stack(averages) if averages else np.zeros((0, 0)))
