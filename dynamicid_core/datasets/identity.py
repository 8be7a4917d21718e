"""Whose photo is it? Groups of alike identities, outliers, one person under two names, two people under one.

Identities are rows of length 1; likeness is their cosine. Of a person the median counts, value by value, brought to
length 1: outliers do not move it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

OWN_PERSON = 3  # photos that a group needs to become a person
BLOCK = 1024  # rows of the matrix of people that are in memory at once
ROUNDS = 10


@dataclass(frozen=True)
class Merge:
    """People who seem to be one."""

    names: tuple[str, ...]
    name: str  # whose photos are most: the name they get
    similarity: float  # of the least alike pair that joined them


@dataclass(frozen=True)
class Verdict:
    """What the identities say of one photo."""

    person: str  # the name it gets
    reason: str = ""  # "", "other person" or "two people"
    detail: str = ""


def median(identities: np.ndarray) -> np.ndarray:
    """[n, d] -> [d], length 1."""
    middle = np.median(identities.astype(np.float64), axis=0)
    length = np.linalg.norm(middle)
    return middle / length if length > 0 else identities[0].astype(np.float64)


def alike_groups(identities: np.ndarray, threshold: float) -> list[np.ndarray]:
    """[n, d] -> groups of row numbers, largest first: each holds what is alike to its median.

    A group begins with whoever has most others alike to him, as the median of two people together is like both.
    """
    rest = np.arange(len(identities))
    groups = []
    while len(rest):
        own = identities[rest].astype(np.float64)
        near = own @ own.T >= threshold
        members = near[near.sum(1).argmax()]
        members[near.sum(1).argmax()] = True
        for _ in range(ROUNDS):
            again = own @ median(own[members]) >= threshold
            if not again.any() or (again == members).all():
                break
            members = again
        groups.append(rest[members])
        rest = rest[~members]
    return sorted(groups, key=lambda group: (-len(group), group[0]))


def judge_folder(name: str, identities: np.ndarray, threshold: float, split: bool = False) -> list[Verdict]:
    """The photos under one name -> a verdict for each.

    The largest group bears the name. Another one is of somebody else; if it has more than half as many photos as the
    largest, nobody knows whose name it is. With ``split``, groups of three or more are people of their own.
    """
    groups = alike_groups(identities, threshold)
    middle = median(identities[groups[0]])
    torn = len(groups) > 1 and 2 * len(groups[1]) > len(groups[0])
    verdicts = [Verdict(name)] * len(identities)
    for number, group in enumerate(groups):
        own = split and len(group) >= OWN_PERSON
        for row in group:
            likeness = f"similarity {identities[row] @ middle:.2f} to the person's median; wanted {threshold:g}"
            if own:
                verdicts[row] = Verdict(name if number == 0 else f"{name} ({number + 1})")
            elif torn and (number == 0 or len(group) * 2 > len(groups[0])):
                shares = " and ".join(str(len(g)) for g in groups[:2])
                verdicts[row] = Verdict(name, "two people", f"{shares} photos of two people under one name")
            elif number:
                more = f", with {len(group) - 1} more of the same person" if len(group) > 1 else ""
                verdicts[row] = Verdict(name, "other person", likeness + more)
    return verdicts


def find_merges(medians: Mapping[str, np.ndarray], counts: Mapping[str, int], threshold: float) -> list[Merge]:
    """People whose medians are alike, directly or through others; each group gets the name with most photos."""
    names = sorted(medians)
    parent = {name: name for name in names}
    weakest: dict[str, float] = {}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for a, b, similarity in _alike_pairs(names, medians, threshold):
        first, second = sorted((root(a), root(b)))
        if first != second:
            weakest[first] = min(similarity, weakest.get(first, 1.0), weakest.pop(second, 1.0))
            parent[second] = first
    merges = []
    for leader, similarity in sorted(weakest.items()):
        group = tuple(name for name in names if root(name) == leader)
        merges.append(Merge(group, min(group, key=lambda name: (-counts[name], name)), round(similarity, 4)))
    return merges


def _alike_pairs(
    names: Sequence[str], medians: Mapping[str, np.ndarray], threshold: float
) -> list[tuple[str, str, float]]:
    """Pairs from the most alike down; a block of rows at a time, so that ten thousand people fit."""
    if len(names) < 2:
        return []
    rows = np.stack([medians[name] for name in names]).astype(np.float32)
    pairs = []
    for start in range(0, len(names), BLOCK):
        cosines = rows[start : start + BLOCK] @ rows.T
        for i, j in np.argwhere(cosines >= threshold):
            if i + start < j:
                pairs.append((names[i + start], names[j], float(cosines[i, j])))
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))


def nearest_other(identity: np.ndarray, name: str, medians: Mapping[str, np.ndarray], threshold: float) -> str:
    """Who else it may be, in words; "" if it is like nobody."""
    likeness = {other: float(middle @ identity) for other, middle in medians.items() if other != name}
    best = min(likeness, key=lambda other: (-likeness[other], other), default=None)
    if best is None or likeness[best] < threshold:
        return ""
    return f"; looks like {best} ({likeness[best]:.2f})"
