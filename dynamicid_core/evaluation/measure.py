"""One picture and what was asked for, as numbers: what ``sight`` saw goes through ``metrics``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..faces import DetectedFace
from ..pictures import to_rgb
from ..scoring import SAME_PERSON
from ..types import DynamicIDError
from . import metrics
from .cases import Case, Reference
from .clip import ClipScore
from .readings import ExpressionReader, expression_word, pose_word, shown_pose
from .recognisers import Recogniser
from .results import FaceResult, PersonResult, PictureResult, RecogniserResult, ReferenceResult, Values
from .sight import Known, Seen, fractions


@dataclass(frozen=True, eq=False)
class Gallery:
    """Everybody among whom a face is looked up, by one recogniser."""

    who: Mapping[Reference, str]  # the label of each reference's person (cases.who_is_who)
    labels: tuple[str, ...]  # of those whose photos show a face
    identities: np.ndarray  # [N, d]


@dataclass(frozen=True, eq=False)
class View:
    """All that one recogniser knows."""

    recogniser: Recogniser
    seen: Mapping[Path, Seen]
    known: Mapping[Reference, Known]
    gallery: Gallery


@dataclass(frozen=True, eq=False)
class Judges:
    """What measures pictures. Expression and pose are read by the last view whose faces have landmarks and angles: where
    there are several, one that took no part in making pictures. A classifier looks at the faces of the first view."""

    views: tuple[View, ...]
    reader: ExpressionReader
    clip: ClipScore | None = None


def measure(case: Case, judges: Judges) -> PictureResult:
    """Every number of one picture; what cannot be measured is None, with a note where somebody should know why."""
    if not case.people:
        raise DynamicIDError(f"Nobody is named for {case.picture}. Say in a list who it shall show.")
    seen = {view.recogniser.name: _by(view, case) for view in judges.views}
    values: Values = {}
    notes: list[str] = []
    values |= _motion(case, judges, seen)
    if case.prompt and judges.clip:
        values["clip_t"] = judges.clip.score(case.picture, case.prompt)
    if case.baseline:
        try:
            values["outside"] = _number(_outside(case, case.baseline, judges.views))
        except DynamicIDError as error:
            notes.append(str(error))
    return PictureResult(
        case.name, str(case.picture), len(case.people), case.prompt, values, seen, _references(case, judges.views),
        str(case.ground_truth or ""), str(case.baseline or ""), tuple(notes),
    )  # fmt: skip


def _references(case: Case, views: Sequence[View]) -> tuple[ReferenceResult, ...]:
    boxes = [next((v.known[p].box for v in views if v.known[p].box), None) for p in case.people]
    return tuple(
        ReferenceResult(person.label, tuple(map(str, person.photos)), box, person.box, person.expression, person.pose)
        for person, box in zip(case.people, boxes, strict=True)
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


# --- By one recogniser --------------------------------------------------------------------------------------------


def _identities(seen: Seen, width: int) -> np.ndarray:
    """[F, width]; a face without an identity is like nobody (NaN is no similarity, 0 is)."""
    rows = [np.zeros(width, np.float32) if face.identity is None else face.identity for face in seen.faces]
    return np.stack(rows) if rows else np.zeros((0, width), np.float32)


def _by(view: View, case: Case) -> RecogniserResult:
    seen = view.seen[case.picture]
    known = [view.known[person] for person in case.people]
    notes = tuple(person.note for person in known if person.note)
    values: Values = {"count": metrics.count_accuracy(len(case.people), len(seen.faces))}
    people = [person.identity for person in known if person.identity is not None]
    if len(people) < len(known):
        return RecogniserResult(values, _faces(seen, None, None), notes=notes)
    references = np.stack(people)
    identities = _identities(seen, references.shape[1])
    similarity = view.recogniser.similarity(references, identities)
    matching = metrics.match(similarity)
    values |= {
        "matched": _number(metrics.matched_similarity(similarity)),
        "blending": _number(metrics.blending(similarity, matching)),
        "id_conf": _number(metrics.id_confidence(similarity)),
        "place": _number(_place(case, seen, matching)),
        "identified": _number(_identified(view, case, identities, matching)),
    }
    single: list[Values] = [{} for _ in case.people]
    if case.ground_truth:
        truth, more = _ground_truth(view, case, references, identities)
        notes += more
        values |= {key: _number(_mean(column)) for key, column in truth.items()}
        single = [{key: _number(column[i]) for key, column in truth.items()} for i in range(len(case.people))]
    own = metrics.similarities(similarity, matching)
    results = tuple(
        PersonResult(person.label, matching[i], float(own[i]), single[i]) for i, person in enumerate(case.people)
    )
    return RecogniserResult(values, _faces(seen, similarity, matching), results, notes)


def _mean(column: np.ndarray) -> float:
    known = column[~np.isnan(column)]
    return float(known.mean()) if len(known) else float("nan")


def _faces(seen: Seen, similarity: np.ndarray | None, matching: metrics.Matching | None) -> tuple[FaceResult, ...]:
    person_of = {face: person for person, face in enumerate(matching or []) if face is not None}
    results = []
    for number, face in enumerate(seen.faces):
        box, person = fractions(face.box, seen.size), person_of.get(number)
        if similarity is None:
            results.append(FaceResult(box, None, 0.0))
            continue
        nearest = int(similarity[:, number].argmax()) if person is None else person
        alike = float(similarity[nearest, number])
        results.append(FaceResult(box, person, alike, nearest if person is None and alike >= SAME_PERSON else None))
    return tuple(results)


def _place(case: Case, seen: Seen, matching: metrics.Matching) -> float:
    height, width = seen.size
    centers = np.array([face.center for face in seen.faces]).reshape(-1, 2) / (width, height)
    return metrics.place_accuracy(matching, centers, [person.box for person in case.people])


def _identified(view: View, case: Case, identities: np.ndarray, matching: metrics.Matching) -> float:
    """The share of people whose face is nearest to them among everybody."""
    if len(view.gallery.labels) < 2:
        return float("nan")
    nearest = metrics.nearest(view.recogniser.similarity(view.gallery.identities, identities), view.gallery.labels)
    shown = [None if face is None else nearest[face] for face in matching]
    return metrics.agreement([view.gallery.who[person] for person in case.people], shown)


def _ground_truth(
    view: View, case: Case, references: np.ndarray, identities: np.ndarray
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Sim(GT), Sim(Ref) and Copy-Paste of each person, [P], NaN for those whom the ground truth does not show.

    The people are found in the ground truth by their references, and in the picture by the ground truth.
    """
    assert case.ground_truth is not None
    alike, width = view.recogniser.similarity, references.shape[1]
    real = _identities(view.seen[case.ground_truth], width)
    faces = metrics.match(alike(references, real))
    there = [person for person, face in enumerate(faces) if face is not None]
    truth: dict[str, np.ndarray] = {key: np.full(len(faces), np.nan) for key in ("sim_gt", "sim_ref", "copy_paste")}
    absent = [person.label for person, face in zip(case.people, faces, strict=True) if face is None]
    notes = (f"{view.recogniser.name} finds no face of {', '.join(absent)} in the ground truth.",) if absent else ()
    if not there:
        return truth, notes
    own, shown = real[[face for face in faces if face is not None]], references[there]
    gen_gt = alike(own, identities)
    matching = metrics.match(gen_gt)
    truth["sim_gt"][there] = metrics.similarities(gen_gt, matching)
    truth["sim_ref"][there] = metrics.similarities(alike(shown, identities), matching)
    between = np.diagonal(alike(shown, own))
    truth["copy_paste"][there] = metrics.copy_paste(truth["sim_gt"][there], truth["sim_ref"][there], between)
    return truth, notes


# --- Of the picture -----------------------------------------------------------------------------------------------


def _motion(case: Case, judges: Judges, seen: Mapping[str, RecogniserResult]) -> Values:
    """Do people show the expression and the pose that was asked for?"""
    asked: dict[str, list[str | None]] = {
        "expression": [expression_word(person.expression) for person in case.people],
        "pose": [pose_word(person.pose) or pose_word(person.expression) for person in case.people],
    }
    image = to_rgb(case.picture) if any(asked["expression"]) else None
    values: Values = {}
    for key, wanted in asked.items():
        landmarks = key == "pose" or judges.reader.landmarks
        able = [view for view in judges.views if view.recogniser.landmarks or not landmarks]
        view = (able[-1] if landmarks else able[0]) if able else None
        people = seen[view.recogniser.name].people if view else ()
        if view is None or not people or not any(wanted):
            continue
        found = view.seen[case.picture].faces
        shown = [
            None if person.face is None else _read(key, found[person.face], image, judges.reader) for person in people
        ]
        values[key] = _number(metrics.agreement(wanted, shown))
    return values


def _read(key: str, face: DetectedFace, image: np.ndarray | None, reader: ExpressionReader) -> str | None:
    return shown_pose(face) if key == "pose" or image is None else reader.read(image, face)


def _outside(case: Case, baseline: Path, views: Sequence[View]) -> float:
    """The change where nobody is: outside the boxes asked for, and outside all heads of both pictures."""
    picture, other = to_rgb(case.picture), to_rgb(baseline)
    height, width = picture.shape[:2]
    boxes: list[metrics.Box] = [
        (box[0] * width, box[1] * height, box[2] * width, box[3] * height) for p in case.people if (box := p.box)
    ]
    for view in views:
        faces = [*view.seen[case.picture].faces, *view.seen[baseline].faces]
        boxes += [metrics.grown(face.box, metrics.HEAD) for face in faces]
    return metrics.outside_change(picture, other, metrics.inside_boxes(height, width, boxes))
