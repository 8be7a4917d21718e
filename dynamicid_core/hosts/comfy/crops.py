"""What is known of crops in this host: the runs of one graph, and whether they denoise all of their latent."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from weakref import WeakKeyDictionary, WeakSet

from comfy_execution.utils import get_executing_context
from torch import Tensor

from ...call import AppliedCast
from ...crops import Sampled, crop_warning, glance
from ...regions import GridSize

_first: WeakKeyDictionary[AppliedCast, tuple[str, Sampled]] = (
    WeakKeyDictionary()
)  # run of a graph, by the graph's number
_warned: WeakSet[AppliedCast] = WeakSet()


def note_run(casts: Sequence[AppliedCast], now: Sampled) -> None:
    """Say once of each cast where this run may sample a crop of the picture that its people were placed in.

    That picture is what was sampled first: in this run of the graph, or, for a part of a picture, in an earlier one, whose
    result the host may have kept. What is new in another run of a graph may be another picture.
    """
    context = get_executing_context()  # None outside of a graph
    for applied in casts:
        graph, before = _first.get(applied, ("", None))
        if context is not None and graph != context.prompt_id and not (before is not None and now.masked):
            before = None
            _first[applied] = context.prompt_id, now
        _warn(applied, crop_warning(applied.cast, now, None if context is None else before))


def note_made(casts: Sequence[AppliedCast], now: Sampled, latents: Tensor) -> None:
    """Remember what came of a run [B, C, h, w], if it is the one that later ones of its graph are compared with."""
    for applied in casts:
        graph, first = _first.get(applied, ("", None))
        if first is now:
            _first[applied] = graph, dataclasses.replace(now, made=glance(latents))


def note_tile(casts: Sequence[AppliedCast], whole: GridSize, tile: GridSize) -> None:
    """Say once of each cast that the model is given parts of what is sampled, whose place nobody tells."""
    for applied in casts:
        if applied not in _warned:
            _warn(applied, crop_warning(applied.cast, Sampled(whole), tile=tile))


def _warn(applied: AppliedCast, message: str | None) -> None:
    if message and applied not in _warned:
        _warned.add(applied)
        logging.warning("DynamicID: %s", message)
