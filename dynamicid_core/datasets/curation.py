"""Analyses -> which photos make the set, and why the others do not: a function of what was seen and of options.

The order: each photo by itself, identities, people under two names, duplicates, the best of each cell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .analysis import Analysis
from .checks import CheckOptions, photo_reason
from .identity import Merge, find_merges, judge_folder, median, nearest_other
from .labels import pose_of
from .selection import Candidate, choose, grouped, leave_out_duplicates, remaining
from .sources import Source

FILLED = "filled"


def curate(
    photos: Iterable[tuple[Source, str, Analysis]], options: CheckOptions
) -> tuple[list[Candidate], list[Merge]]:
    """(source, hash, analysis) of every photo -> all of them, judged, and people who seem to be one."""
    candidates = [_candidate(source, found, seen) for source, found, seen in photos]
    for candidate in candidates:
        reason, detail = photo_reason(candidate.seen, options)
        if reason == "unreadable" or candidate.person:
            candidate.leave_out(reason, detail)
        else:
            candidate.leave_out("no person")
    real = [c for c in candidates if c.source.collection != FILLED]
    medians = _judge_identities(real, options)
    merges = find_merges(medians, {n: len(g) for n, g in _people(real).items()}, options.same_people)
    if options.merge:
        _merge(real, merges)
        medians = {name: median(_identities(group)) for name, group in _people(real).items()}
    made = [c for c in candidates if c.source.collection == FILLED]
    names = {name: merge.name for merge in merges for name in merge.names} if options.merge else {}
    for candidate in remaining(made):
        candidate.person = names.get(candidate.person, candidate.person)
        judge_filled(candidate, medians, options)
    leave_out_duplicates(candidates, options)
    choose(candidates, options)
    return candidates, merges


def _candidate(source: Source, found: str, seen: Analysis) -> Candidate:
    """Labels that a name or a text gives count more than what is read, except where a picture was made to show them."""
    expression, pose = seen.expression, "" if seen.angles is None else pose_of(seen.angles[1])
    if source.collection != FILLED:
        expression, pose = source.labels.expression or expression, source.labels.pose or pose
    if not seen.expression and expression:
        seen = dataclasses.replace(seen, expression=expression)  # measured or not, it is known
    return Candidate(source, found, seen, source.labels.person, expression, pose)


def _people(candidates: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    return grouped(remaining(candidates), lambda c: c.person)


def _identities(group: Sequence[Candidate]) -> np.ndarray:
    return np.stack([c.seen.identity for c in group if c.seen.identity is not None])


def _judge_identities(candidates: Sequence[Candidate], options: CheckOptions) -> dict[str, np.ndarray]:
    """Outliers out, folders of two people too; returns each person's median."""
    people = _people(candidates)
    for name, group in people.items():
        group.sort(key=lambda c: (c.id, c.source.name))
        verdicts = judge_folder(name, _identities(group), options.same_person, options.split_folders)
        for candidate, verdict in zip(group, verdicts, strict=True):
            candidate.person = _free(verdict.person, people) if verdict.person != name else name
            candidate.leave_out(verdict.reason, verdict.detail)
    medians = {name: median(_identities(group)) for name, group in _people(candidates).items()}
    for candidate in candidates:
        if candidate.reason == "other person" and candidate.seen.identity is not None:
            candidate.detail += nearest_other(candidate.seen.identity, candidate.person, medians, options.same_person)
    return medians


def _free(name: str, people: Mapping[str, object]) -> str:
    """A name that no folder has."""
    while name in people:
        name += "'"
    return name


def _merge(candidates: Sequence[Candidate], merges: Sequence[Merge]) -> None:
    names = {name: merge.name for merge in merges for name in merge.names}
    for candidate in candidates:
        new = names.get(candidate.person, candidate.person)
        if new != candidate.person and not candidate.reason:
            candidate.detail = f"under the name {candidate.person}"
        candidate.person = new


def judge_filled(candidate: Candidate, medians: Mapping[str, np.ndarray], options: CheckOptions) -> None:
    """A picture made to fill a cell must be of its person and show what was asked for."""
    wanted, identity = candidate.source.labels, candidate.seen.identity
    middle = medians.get(candidate.person)
    if middle is None or identity is None:
        candidate.leave_out("no person", f"{candidate.person} is no longer in the set")
        return
    likeness = float(identity @ middle)
    if likeness < options.same_person:
        other = nearest_other(identity, candidate.person, medians, options.same_person)
        candidate.leave_out(
            "other person", f"similarity {likeness:.2f} to {candidate.person}; wanted {options.same_person:g}{other}"
        )
    elif candidate.expression != wanted.expression:
        candidate.leave_out("wrong expression", f"seen: {candidate.expression}; wanted: {wanted.expression}")
    elif candidate.pose != wanted.pose:
        candidate.leave_out("wrong pose", f"seen: {candidate.pose}; wanted: {wanted.pose}")
