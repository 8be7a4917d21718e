"""Rows are made: what is missing, how large it will be, and the work itself, shared among processes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ..types import DynamicIDError
from .features import Maker, Rows
from .frozen import working
from .store import Part, as_keys

SHARD_BYTES = 256 * 2**20
SHARD_ROWS = 1024  # so that an interruption costs minutes, where rows are small but slow to make


@dataclass(frozen=True)
class Share:
    """One of several processes that make a cache together."""

    rank: int = 0
    world: int = 1
    wait: Callable[[], None] = lambda: None  # until all have come here


class Task:
    """What is missing of one part."""

    def __init__(self, root: Path, maker: Maker):
        self.maker = maker
        self.part = Part(root, maker.kind, maker.made_by)
        keys = as_keys(list(maker.items))
        self.missing = np.flatnonzero(self.part.find(keys) < 0)
        self.total = len(keys)
        self.keys = keys[self.missing]

    @cached_property
    def subjects(self) -> list[Any]:
        subjects = list(self.maker.items.values())
        return [subjects[i] for i in self.missing]

    def row_bytes(self, device: torch.device) -> int:
        """Of a row: of those that are there, else of one that is made to see it."""
        if known := self.part.row_bytes():
            return known
        if not self.subjects:
            return 0
        with working(self.maker.networks, device):
            rows = self.maker.run(_collate([_prepared(self.maker, self.subjects[0])]))
        return sum(tensor.nbytes for tensor in rows.values()) + self.keys.shape[1]

    def chunks(self, row_bytes: int) -> list[range]:
        """The shards to make, as places among what is missing: whole batches, so that who makes them does not matter."""
        batch = self.maker.batch
        rows = max(1, min(SHARD_ROWS, SHARD_BYTES // max(row_bytes, 1)) // batch) * batch
        return [range(start, min(start + rows, len(self.keys))) for start in range(0, len(self.keys), rows)]


@dataclass(frozen=True)
class Planned:
    """One part's row of the plan."""

    kind: str
    folder: Path
    total: int
    missing: int
    row_bytes: int

    @property
    def new_bytes(self) -> int:
        return self.missing * self.row_bytes


def plan(tasks: Sequence[Task], device: torch.device) -> list[Planned]:
    return [Planned(t.maker.kind, t.part.folder, t.total, len(t.missing), t.row_bytes(device)) for t in tasks]


def check_room(root: Path, planned: Sequence[Planned]) -> None:
    """Raise DynamicIDError if the disk has no room for what is planned."""
    needed = sum(one.new_bytes for one in planned)
    folder = next(p for p in (root.absolute(), *root.absolute().parents) if p.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DynamicIDError(
            f"The cache needs {gigabytes(needed)} more, but the disk of {root} has {gigabytes(free)} left; make room, or "
            "set cache to a folder on another disk."
        )


def gigabytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"


def make(
    task: Task, planned: Planned, device: torch.device, share: Share, workers: int, tick: Callable[[int], Any]
) -> float:
    """Make this process's share of a part; ``tick`` hears how many rows were made. Returns seconds."""
    began = time.monotonic()
    mine = task.chunks(planned.row_bytes)[share.rank :: share.world]
    if mine:
        task.part.describe()
        with working(task.maker.networks, device):
            for chunk, rows in _made(task, mine, workers, tick):
                task.part.write(task.keys[chunk.start : chunk.stop], rows)
    return time.monotonic() - began


def _made(
    task: Task, chunks: Sequence[range], workers: int, tick: Callable[[int], Any]
) -> Iterator[tuple[range, Rows]]:
    """The rows of each shard."""
    batches = [
        list(chunk[i : i + task.maker.batch]) for chunk in chunks for i in range(0, len(chunk), task.maker.batch)
    ]
    several = workers if len(batches) > 1 else 0
    loader = DataLoader(
        _Prepared(task.maker, task.subjects), batch_sampler=batches, num_workers=several, collate_fn=_collate
    )
    inputs = iter(loader)
    for chunk in chunks:
        rows: list[Rows] = []
        for _ in range(0, len(chunk), task.maker.batch):
            rows.append(task.maker.run(_usable(next(inputs))))
            tick(len(next(iter(rows[-1].values()))))
        yield chunk, {name: torch.cat([some[name] for some in rows]) for name in rows[0]}


class _Prepared(Dataset[Any]):
    """Items, prepared where they are asked for: in worker processes, which get no network."""

    def __init__(self, maker: Maker, subjects: Sequence[Any]):
        self.prepare, self.subjects = maker.prepare, subjects

    def __getitem__(self, place: int) -> Any:
        try:
            return self.prepare(self.subjects[place])
        except DynamicIDError as error:  # travels as a value, or the worker's traceback would become its text
            return error


def _prepared(maker: Maker, subject: Any) -> Any:
    return _usable(maker.prepare(subject))


def _usable(prepared: Any) -> Any:
    if isinstance(prepared, DynamicIDError):
        raise prepared
    return prepared


def _collate(prepared: Sequence[Any]) -> Any:
    for one in prepared:
        if isinstance(one, DynamicIDError):
            return one
    if isinstance(prepared[0], str):
        return list(prepared)
    return {name: torch.stack([one[name] for one in prepared]) for name in prepared[0]}
