"""Means over pictures with bootstrap intervals, for all of them and by the number of people; paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..types import DynamicIDError
from .definitions import METRICS, Metric
from .results import PictureResult, Run

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 0
AT_ONCE = 4_000_000  # numbers drawn at a time, to bound memory


@dataclass(frozen=True)
class Estimate:
    """A mean over pictures and the interval in which it lies with 95% confidence."""

    mean: float
    low: float
    high: float
    pictures: int  # that were measured


@dataclass(frozen=True)
class Line:
    """One metric by one recogniser in one group of pictures: an estimate for each run, and differences to the first."""

    group: str
    metric: Metric
    recogniser: str | None  # None: the metric needs none
    estimates: tuple[Estimate | None, ...]  # None: nothing was measured
    differences: tuple[
        Estimate | None, ...
    ] = ()  # second run minus first, third minus first, ...; pictures of one name


@dataclass(frozen=True)
class Table:
    """All lines of one run, or of several beside each other."""

    runs: tuple[str, ...]
    lines: tuple[Line, ...]
    gallery: int = 0

    @property
    def groups(self) -> list[str]:
        """In the order of the lines."""
        return list(dict.fromkeys(line.group for line in self.lines))


def bootstrap(values: Sequence[float] | np.ndarray, seed: int = SEED, resamples: int = RESAMPLES) -> Estimate:
    """The mean of values (one of each picture) with its percentile bootstrap interval; one value has no interval (NaN).

    The same values give the same interval. Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13.
    """
    values = np.asarray(values, dtype=np.float64)
    count = len(values)
    if count == 0:
        raise DynamicIDError("There is nothing to average.")
    if count == 1:
        return Estimate(float(values[0]), float("nan"), float("nan"), 1)
    generator = np.random.default_rng(seed)
    means, step = [], max(AT_ONCE // count, 1)
    for start in range(0, resamples, step):
        drawn = generator.integers(0, count, size=(min(step, resamples - start), count))
        means.append(values[drawn].mean(1))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), (tail, 1 - tail))
    return Estimate(float(values.mean()), float(low), float(high), count)


def people_text(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"


def _groups(runs: Sequence[Run]) -> dict[str, int | None]:
    """Group -> number of people; None: all. One number of people is all there is."""
    counts = sorted({picture.asked for run in runs for picture in run.pictures})
    apart: dict[str, int | None] = {people_text(count): count for count in counts}
    return {"all": None, **apart} if len(counts) > 1 else {"all": None}


def summarise(*runs: Run) -> Table:
    """A table of one run, or of several with their paired differences to the first."""
    names = _distinct([run.name for run in runs])
    recognisers = list(dict.fromkeys(name for run in runs for name in run.recognisers))
    lines = []
    for group, count in _groups(runs).items():
        chosen = [[p for p in run.pictures if count in (None, p.asked)] for run in runs]
        for metric in METRICS:
            for recogniser in recognisers if metric.recognised else [None]:
                line = _line(group, metric, recogniser, chosen)
                if any(line.estimates):
                    lines.append(line)
    return Table(tuple(names), tuple(lines), max((run.gallery for run in runs), default=0))


def _distinct(names: Sequence[str]) -> list[str]:
    """Names that are taken twice get a number."""
    return [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names, 1)]


def _line(group: str, metric: Metric, recogniser: str | None, chosen: Sequence[Sequence[PictureResult]]) -> Line:
    values = [_values(metric, recogniser, pictures) for pictures in chosen]
    estimates = tuple(bootstrap([*column.values()]) if column else None for column in values)
    differences = []
    for other in values[1:]:
        both = sorted(values[0].keys() & other.keys())
        differences.append(bootstrap([other[name] - values[0][name] for name in both]) if both else None)
    return Line(group, metric, recogniser, estimates, tuple(differences))


def _values(metric: Metric, recogniser: str | None, pictures: Sequence[PictureResult]) -> dict[str, float]:
    """Picture's name -> value, where one was measured."""
    column = {picture.id: picture.value(metric.key, recogniser) for picture in pictures}
    return {name: value for name, value in column.items() if value is not None}


def as_json(table: Table) -> list[dict[str, Any]]:
    """A dictionary for each line and run, for machines; what has no interval has None."""
    rows = []
    for line in table.lines:
        entries = [*zip(table.runs, line.estimates, strict=True)]
        entries += [
            (f"{run} - {table.runs[0]}", difference)
            for run, difference in zip(table.runs[1:], line.differences, strict=True)
        ]
        for run, estimate in entries:
            if estimate is not None:
                bounds = [None if np.isnan(bound) else bound for bound in (estimate.low, estimate.high)]
                rows.append({
                    "run": run, "group": line.group, "metric": line.metric.key, "label": line.metric.label,
                    "recogniser": line.recogniser, "mean": estimate.mean, "low": bounds[0], "high": bounds[1],
                    "pictures": estimate.pictures,
                })  # fmt: skip
    return rows
