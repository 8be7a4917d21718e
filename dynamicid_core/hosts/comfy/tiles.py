"""Which part of the picture is sampled: maps of the picture among the conditionings, which tilers cut as they cut hints.

Tilers tell a model's patches nothing, but they cut what is attached to conditionings. So a map of the picture
(:func:`views.picture_map`) is attached there as a ControlNet's hint. Those that sample each tile by itself (Ultimate SD
Upscale) cut it before the run: :func:`parts_of` reads it when the run begins. Those that call the model with tiles of what is
sampled (TiledDiffusion) cut it in the run: there each conditioning gets a map of its own cells, and the map writes what was
left of it into the rows' labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from comfy.controlnet import ControlBase
from torch import Tensor

from ...regions import GridSize
from ...views import FINE, View, parts_shown, picture_map
from .rows import KEY, Conditionings, labels_of_tiles

CELLS = 1024  # rows and columns of a map: a latent cell of a picture of 8192 px
WHOLE = View(0, 0, FINE, FINE, (FINE, FINE))


class PictureMap(ControlBase):  # type: ignore[misc]
    """A ControlNet to the host and to other packs, whose hint is a map, and which adds nothing to any picture."""

    def __init__(self, hint: Tensor):
        """``hint`` [b, 2, h, w]: fractions of the picture, or cells of the latent."""
        super().__init__()
        self.cond_hint_original = hint
        self.compression_ratio = 1
        # Where and how TiledDiffusion keeps what it cuts: where it is read, and with whole numbers up to 2**24.
        self.device, self.manual_cast_dtype = torch.device("cpu"), torch.float32

    def copy(self) -> PictureMap:
        """The host's hook, and that of packs that cut hints: a copy without the ControlNets before it."""
        made = PictureMap(self.cond_hint_original)
        self.copy_to(made)
        return made

    def deepclone_multigpu(self, load_device: Any, autoregister: bool = False) -> PictureMap:
        """The host's hook: a copy for another device."""
        made = self.copy()
        if autoregister:
            self.multigpu_clones[load_device] = made
        return made

    def get_control(self, x: Tensor, t: Tensor, cond: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The host's hook before each model call: what the ControlNets before this give.

        ``cond``: what the model gets. Where a tiler has cut the map (``cond_hint`` [B, 2, h, w]), the labels in it learn where
        the tiles lie.
        """
        if self.cond_hint is not None and KEY in cond:
            cond[KEY] = labels_of_tiles(cond[KEY], self.cond_hint)
        before = self.previous_controlnet
        return None if before is None else before.get_control(x, t, cond, *args, **kwargs)


def with_map(conditioning: Sequence[Sequence[Any]], part: View | None = None) -> list[list[Any]]:
    """A CONDITIONING that tells which part of the picture it is used for, however it is cut on its way to the model.

    ``part``: what of the picture it shows now; None: all of it.
    """
    hint = picture_map(CELLS, CELLS, part)
    maps: dict[int, PictureMap] = {}  # prompts that share their ControlNets share the map
    made = []
    for text, values, *_ in conditioning:
        before = values.get("control")
        control = maps.setdefault(id(before), PictureMap(hint).set_previous_controlnet(before))
        shared = {"control_apply_to_uncond": True} if before is None else {}  # so that the host may join both sides
        made.append([text, {**values, **shared, "control": control}])
    return made


def parts_of(conds: Conditionings) -> tuple[View, ...]:
    """What each picture of a run's batch shows of the whole picture, as far as a map says; () where all is shown, or none says.

    One map speaks for all conditionings, since all are used for the same latent.
    """
    found = next((control for control in _controls(conds) if isinstance(control, PictureMap)), None)
    parts = () if found is None else parts_shown(found.cond_hint_original)
    return () if all(part == WHOLE for part in parts) else parts


def _controls(conds: Conditionings) -> Iterator[Any]:
    for cond in (cond for entries in conds.values() for cond in entries or ()):
        control = cond.get("control")
        while control is not None:
            yield control
            control = control.previous_controlnet


def ready_for_run(conds: Conditionings, latent: GridSize, tiled: bool) -> Conditionings:
    """Copies of a run's conditionings without the maps that were read already, as if there had been none.

    ``tiled``: somebody calls the model with parts of the ``latent``, so each gets a map of its cells there.
    """
    maps: dict[Any, PictureMap] = {}

    def ready(cond: dict[str, Any]) -> dict[str, Any]:
        control = cond.get("control")
        while isinstance(control, PictureMap):
            control = control.previous_controlnet
        if tiled:
            area = cond.get("area") or (*latent, 0, 0)
            made = PictureMap(_cells(area, latent)).set_previous_controlnet(control)
            control = maps.setdefault((tuple(area), id(control)), made)
        rest = {name: value for name, value in cond.items() if name != "control"}
        return rest if control is None else {**rest, "control": control}

    return {name: [ready(cond) for cond in entries] if entries else entries for name, entries in conds.items()}


def _cells(area: Sequence[int], latent: GridSize) -> Tensor:
    """The number of its row and of its column in each cell of an area (height, width, top, left) of a latent: [1, 2, h, w]"""
    height, width, top, left = area
    rows, columns = torch.arange(top, min(top + height, latent[0])), torch.arange(left, min(left + width, latent[1]))
    return torch.stack(torch.meshgrid(rows.float(), columns.float(), indexing="ij"))[None]


def window_of(options: dict[str, Any], latent: GridSize, dims: int) -> View | None:
    """The part of the latent that a context window of the host's denoises in this call, if it goes over height or width.

    ``options``: the call's transformer options; ``dims``: how many dimensions the latent has.
    """
    window = options.get("context_window")
    if window is None or dims - window.dim not in (1, 2):
        return None
    anchor = getattr(window, "causal_anchor_index", None)  # one more, in front of the others
    first = window.index_list[0] if anchor is None or anchor < 0 else anchor
    across = dims - window.dim == 1
    count = (window.index_list[-1] - first) % latent[across] + 1
    return View(0, first, latent[0], count, latent) if across else View(first, 0, count, latent[1], latent)
