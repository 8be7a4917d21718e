"""What is measured, as functions of arrays: similarities, boxes, labels, pixels (docs/evaluation.md).

``similarity`` is always [P, F]: rows are the people asked for, columns the faces found in the picture, values are
cosines in -1..1 (``recognisers``). A *matching* gives each person a column or None. A number that nothing could be
measured for is NaN, and then left out of means; a person who is missing is no such case and counts as the worst.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..types import DynamicIDError

Matching = list[int | None]
Box = Sequence[float]  # x0, y0, x1, y1
SMALLEST_ANGLE = 1e-6  # radians: two photos of one person that are the same file have no angle between them
HEAD = 2.0  # a head with its hair, in sizes of the face's box


def match(similarity: np.ndarray) -> Matching:
    """The face of each person such that the sum of similarities is largest (Hungarian method); one face, one person.

    ``similarity`` [P, F]; with fewer faces than people some have none. Source: MultiHuman-Testbench, section on
    multi-identity similarity.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(similarity, maximize=True)
    face_of = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    return [face_of.get(person) for person in range(len(similarity))]


def similarities(similarity: np.ndarray, matching: Matching) -> np.ndarray:
    """The similarity of each person to their face, 0 for who is missing: [P]."""
    return np.array([0.0 if face is None else similarity[person, face] for person, face in enumerate(matching)])


def matched_similarity(similarity: np.ndarray) -> float:
    """The sum over matched pairs, divided by the people asked for; -1..1. Source: MultiHuman-Testbench."""
    if not len(similarity):
        raise DynamicIDError("Nobody was asked for in this picture, so no similarity can be measured. Name its people.")
    return float(similarities(similarity, match(similarity)).mean())


def count_accuracy(asked: int, found: int) -> float:
    """1 if exactly as many faces were found as people were asked for, else 0. Source: MultiHuman-Testbench."""
    return float(asked == found)


def blending(similarity: np.ndarray, matching: Matching) -> float:
    """Mean similarity of people and the faces that are matched to others; NaN where there is no such pair.

    Source: MultiID-Bench (identity blending: the matrix of matched faces and references without its diagonal).
    """
    pairs = [
        similarity[person, face]
        for person in range(len(similarity))
        for other, face in enumerate(matching)
        if face is not None and other != person
    ]
    return float(np.mean(pairs)) if pairs else float("nan")


def id_confidence(similarity: np.ndarray) -> float:
    """Mean over the references of (s1 - s2) / s1, with s1 >= s2 the two largest similarities to any face; 0..1.

    At most 1 (a negative s2), and 0 where s1 is not positive, as in UMO's code. One person with one face has nothing to
    be confused with: NaN. Several people with fewer than two faces between them are not told apart: 0.
    Source: UMO, arXiv 2509.06818, eval/id_conf_xversebench.py.
    """
    people, faces = similarity.shape
    if faces < 2:
        return 0.0 if people > 1 else float("nan")
    second, first = np.sort(similarity, axis=1)[:, -2:].T
    return float(np.where(first > 0, np.minimum((first - second) / np.where(first > 0, first, 1), 1), 0).mean())


def angles(similarity: np.ndarray) -> np.ndarray:
    """Angles of cosines, in radians 0..pi."""
    return np.arccos(np.clip(similarity, -1, 1))


def copy_paste(gen_gt: np.ndarray, gen_ref: np.ndarray, gt_ref: np.ndarray) -> np.ndarray:
    """(angle(gen, GT) - angle(gen, ref)) / angle(GT, ref) of each person, -1..1; arguments are similarities, [P].

    1: the reference was copied; 0: as far from one as from the other, also for who is missing (similarities 0); -1: the
    ground truth. NaN where reference and ground truth are one photo. Source: MultiID-Bench, arXiv 2510.14975.
    """
    between = angles(gt_ref)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (angles(gen_gt) - angles(gen_ref)) / between
    return np.where(between > SMALLEST_ANGLE, np.clip(ratio, -1, 1), np.nan)


def place_accuracy(matching: Matching, centers: np.ndarray, boxes: Sequence[Box | None]) -> float:
    """The share of people with a box whose face has its centre there; a missing person counts 0, NaN without boxes.

    ``centers`` [F, 2] as (x, y) and boxes in one unit.
    """
    hits = []
    for face, box in zip(matching, boxes, strict=True):
        if box is not None:
            x, y = (np.nan, np.nan) if face is None else centers[face]
            hits.append(bool(box[0] <= x <= box[2] and box[1] <= y <= box[3]))
    return float(np.mean(hits)) if hits else float("nan")


def nearest(similarity: np.ndarray, labels: Sequence[str]) -> list[str]:
    """For each face the label of the most similar one in the gallery; ``similarity`` [gallery, F]."""
    return [labels[place] for place in similarity.argmax(0)] if similarity.size else []


def agreement(asked: Sequence[str | None], shown: Sequence[str | None]) -> float:
    """The share of people who show what was asked for; None in ``asked``: does not count, in ``shown``: is wrong."""
    hits = [wanted == seen for wanted, seen in zip(asked, shown, strict=True) if wanted is not None]
    return float(np.mean(hits)) if hits else float("nan")


def grown(box: Box, factor: float) -> tuple[float, float, float, float]:
    """The box with its sides ``factor`` times as long, around the same centre."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    width, height = (box[2] - box[0]) * factor / 2, (box[3] - box[1]) * factor / 2
    return x - width, y - height, x + width, y + height


def inside_boxes(height: int, width: int, boxes: Sequence[Box]) -> np.ndarray:
    """Which pixels lie in any of the boxes (in pixels, rounded outwards): bool [height, width]"""
    inside = np.zeros((height, width), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        rows = slice(max(int(np.floor(y0)), 0), max(int(np.ceil(y1)), 0))
        inside[rows, max(int(np.floor(x0)), 0) : max(int(np.ceil(x1)), 0)] = True
    return inside


def outside_change(picture: np.ndarray, baseline: np.ndarray, people: np.ndarray) -> float:
    """Mean absolute difference of two pictures (uint8 RGB [h, w, 3]) where ``people`` [h, w] is False; 0..1.

    NaN if the people fill the picture. Raises DynamicIDError for pictures of two sizes.
    """
    if picture.shape != baseline.shape:
        one, other = ("x".join(map(str, p.shape[1::-1])) for p in (picture, baseline))
        raise DynamicIDError(
            f"A picture has {one} px and its baseline {other}; make both in one size, with the same seed."
        )
    if people.all():
        return float("nan")
    difference = np.abs(picture.astype(np.int16) - baseline.astype(np.int16))
    return float(difference[~people].mean() / 255)
