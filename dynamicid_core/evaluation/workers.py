"""The processes that share an evaluation: one, or as many as ``accelerate launch`` started on one machine or several."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from ..types import DynamicIDError

Item = TypeVar("Item")
Result = TypeVar("Result")
PATIENCE = timedelta(days=2)  # how long those who are done wait for the others


class Workers:
    """Work is dealt out like cards, and results come back in the order of the work, to every process."""

    def __init__(self, quiet: bool = False) -> None:
        self.rank, self.count = 0, int(os.environ.get("WORLD_SIZE", "1"))
        if self.count > 1:
            self.rank, self.count = _join()
        self._quiet = quiet or self.rank > 0

    @property
    def main(self) -> bool:
        """Is this the process that writes and speaks?"""
        return self.rank == 0

    def map(self, function: Callable[[Item], Result], items: Sequence[Item], what: str) -> list[Result]:
        """``function`` of every item, with a progress bar; each process does its share of them."""
        done = [function(item) for item in self.progress(items[self.rank :: self.count], what)]
        if self.count == 1:
            return done
        from accelerate.utils import gather_object

        shares = gather_object([done])  # [processes][items of each]
        return [shares[place % self.count][place // self.count] for place in range(len(items))]

    def progress(self, items: Sequence[Item], what: str) -> Iterable[Item]:
        """The items, with a bar on stderr while they are gone through."""
        from tqdm import tqdm

        bar: Iterable[Item] = tqdm(items, desc=what, unit="", file=sys.stderr, disable=self._quiet or not items)
        return bar


def _join() -> tuple[int, int]:
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise DynamicIDError(
            "Several processes need the Python package accelerate: python -m pip install accelerate"
        ) from error
    # Only results are exchanged, which are no tensors: by the CPU, wherever the models run.
    state: Any = PartialState(cpu=True, timeout=PATIENCE)
    return state.process_index, state.num_processes
