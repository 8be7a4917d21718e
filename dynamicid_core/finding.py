"""Where a picture that has just begun wants people: from what attention looks for to one connected place for each person.

In the first part of a sampling run, people without a region may be anywhere. A :class:`Finder` notes meanwhile where queries
look for a face (the activation, docs/method.md, section 3.4) and for whose (each person's share of the face attention).
:func:`find_places` makes places of that, which hold for the rest of the run.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .attention import SiteFaces, gate
from .gate_maps import person_shares
from .hills import hills, smooth
from .regions import GridSize, region_weights
from .types import Cast, Region
from .views import View

CELLS = 32  # of the longer side of the grid on which places are looked for
GRIDS = 2  # so many of the UNet's grids tell where people are, the largest; on coarser ones neighbours run together


@dataclass(frozen=True)
class Seen:
    """One row that is looked at: which picture of a batch, and which part of it (None: all)."""

    frame: int
    view: View | None = None


@dataclass(frozen=True)
class FoundPlaces:
    """A cast with the places that were found for it."""

    cast: Cast
    missing: tuple[tuple[str, int], ...] = ()  # people without a place, by name, and in how many pictures
    pictures: int = 1

    @property
    def message(self) -> str | None:
        """What to tell the user; None where everybody has a place."""
        if not self.missing:
            return None
        whom = ", ".join(
            name if count == self.pictures else f"{name} (in {count} of {self.pictures} pictures)"
            for name, count in self.missing
        )
        return (
            f"No place was found for {whom}: the picture does not look for so many faces. Let the prompt say how many people "
            "there are, make the picture wider, or give everybody a region."
        )


class Finder:
    """What attention looked for in the first part of a run, while people could be anywhere."""

    def __init__(self, cast: Cast, until: float = 1.0, level: float = float("-inf")) -> None:
        """``until``: the fraction of the schedule at which the first part ends; ``level``: the noise level there."""
        self.cast, self.until, self.level = cast, until, level
        self._done = False
        self._counts = [person.face.tokens.shape[1] for person in cast.people]
        self._sums: dict[tuple[tuple[Seen, ...], GridSize, GridSize, torch.device], Tensor] = {}
        self._layers: Counter[tuple[tuple[Seen, ...], GridSize, GridSize, torch.device]] = Counter()

    def is_done(self, levels: Tensor) -> bool:
        """Whether a call at these noise levels, and so all that come after it, has found places. The first that can tell is
        always asked. Waits for the device until then."""
        self._done = self._done or (bool(self._sums) and float(levels.max()) <= self.level)
        return self._done

    def record(
        self, seen: tuple[Seen, ...], q: Tensor, faces: SiteFaces, bias: Tensor, size: GridSize, latent: GridSize
    ) -> None:
        """Note one cross attention of rows that see people.

        ``q`` [B, N, C], ``faces`` and ``bias`` [B or 1, 1, N, M] as :func:`attention.add_faces` takes them, a row for each
        of ``seen``; ``size``: of the layer's grid; ``latent``: of what the model was given.
        """
        activation = gate(torch.bmm(q, faces.probe).squeeze(-1), 0.0)[:, None]  # [B, 1, N]
        shares = person_shares(q, faces.keys, bias, self._counts)  # [B, P, N]
        maps = torch.cat((activation, activation * shares), dim=1).detach()
        key = seen, size, latent, q.device
        self._sums[key] = self._sums[key] + maps if key in self._sums else maps
        self._layers[key] += 1

    def maps(self) -> dict[int, Tensor]:
        """For each picture [P + 1, h, w], float32 on the CPU: activation, then each person's part of it; means over layers
        of the largest grids, steps and, where they overlap, parts of the picture."""
        sums: dict[int, Tensor] = {}
        counts: dict[int, Tensor] = {}
        shape: GridSize | None = None  # one for all: parts of a picture tell its size in cells of their own
        for key, total in self._sums.items():
            seen, size, latent, _ = key
            if size not in self._largest(latent):
                continue
            for row, values in zip(seen, total.cpu().unflatten(-1, size), strict=True):
                shape = shape or _canvas(row.view, latent)
                down, across = _cells(row.view, shape)
                here = _resized(values, len(down), len(across))
                sums.setdefault(row.frame, torch.zeros(len(values), *shape))[:, down[:, None], across] += here
                counts.setdefault(row.frame, torch.zeros(shape))[down[:, None], across] += self._layers[key]
        return {frame: total / counts[frame].clamp_min(1) for frame, total in sorted(sums.items())}

    def _largest(self, latent: GridSize) -> list[GridSize]:
        """The largest grids of calls that were given such a latent."""
        sizes = {size for _, size, given, _ in self._sums if given == latent}
        return sorted(sizes, key=lambda size: -size[0] * size[1])[:GRIDS]

    def places(self) -> FoundPlaces:
        """The cast with a region for everybody for whom a place was found, the same for the same sums."""
        maps = self.maps()
        frames = max(maps, default=-1) + 1
        wanting = [number for number, person in enumerate(self.cast.people) if person.region is None]
        height, width = next(iter(maps.values())).shape[1:] if maps else (1, 1)
        masks = torch.zeros(len(wanting), max(frames, 1), height, width)
        for frame, found in maps.items():
            taken = region_weights(self.cast, height, width, pictures=(frame,), strips=False).boosted
            taken = taken.reshape(height, width)
            own = found[1:][wanting].numpy()
            for i, place in enumerate(find_places(found[0].numpy(), own, (taken < 0.5).numpy())):
                masks[i, frame] += 0 if place is None else torch.from_numpy(place)
        return _with_masks(self.cast, wanting, masks, max(len(maps), 1))


def _resized(maps: Tensor, height: int, width: int) -> Tensor:
    """[P + 1, h, w] -> [P + 1, height, width]"""
    return interpolate(maps[None], size=(height, width), mode="bilinear", align_corners=False, antialias=True)[0]


def _with_masks(cast: Cast, wanting: Sequence[int], masks: Tensor, pictures: int) -> FoundPlaces:
    """Masks [people, F, h, w], zero in pictures without a place, become the regions of the people ``wanting``."""
    people, missing = list(cast.people), []
    for number, mask in zip(wanting, masks, strict=True):
        has = int((mask.amax((1, 2)) > 0).sum())
        if has:
            people[number] = dataclasses.replace(people[number], region=Region(mask=mask))
        if has < pictures:
            missing.append((people[number].face.name or f"person {number + 1}", pictures - has))
    return FoundPlaces(Cast(tuple(people)), tuple(missing), pictures)


def _canvas(view: View | None, latent: GridSize) -> GridSize:
    """The grid of the whole picture on which places are looked for, told by a part that was given such a latent."""
    whole = latent if view is None else view.on_grid(*latent)[:2]
    scale = min(1.0, CELLS / max(whole))
    return max(1, round(whole[0] * scale)), max(1, round(whole[1] * scale))


def _cells(view: View | None, canvas: GridSize) -> tuple[Tensor, Tensor]:
    """The rows and the columns of that grid that a part of the picture covers."""
    if view is None:
        return torch.arange(canvas[0]), torch.arange(canvas[1])
    down = _along(view.top, view.height, view.whole[0], canvas[0])
    return down, _along(view.left, view.width, view.whole[1], canvas[1])


def _along(first: int, count: int, whole: int, cells: int) -> Tensor:
    """Which of so many cells a part covers that is ``count`` of ``whole`` long; over the edge it goes on at the opposite one."""
    covered = max(1, round(count * cells / whole))
    start = round(first * cells / whole)
    start = start if first + count > whole else min(start, cells - covered)
    return (start + torch.arange(covered)) % cells


def find_places(activation: np.ndarray, shares: np.ndarray, free: np.ndarray) -> list[np.ndarray | None]:
    """One connected place for each person, no two people one: soft masks [h, w] in 0..1, None for whom there is none.

    ``activation`` [h, w] in 0..1; ``shares`` [P, h, w]: each person's part of it; ``free`` [h, w]: where places may be. The
    places are the hills of the smoothed activation that rise most; who gets which maximises the sum of what
    everybody's share there is against their share of the whole picture, so that nobody strong takes all.
    """
    from scipy.optimize import linear_sum_assignment

    found = hills(smooth(activation), free)[: len(shares)]
    places: list[np.ndarray | None] = [None] * len(shares)
    if not found:
        return places
    mine = np.stack([_share(activation, shares, hill) for hill in found], axis=1)  # [P, hills]
    own = _share(activation, shares, free).clip(1e-12)[:, None]
    for person, hill in zip(*linear_sum_assignment(-mine / own), strict=True):
        soft = smooth(found[hill].astype(np.float32)) * free
        places[person] = (soft / soft.max()).astype(np.float32)
    return places


def _share(activation: np.ndarray, shares: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Each person's share of the activation in some cells: [P]"""
    total: np.ndarray = (shares * cells).sum((1, 2)) / (activation * cells).sum().clip(1e-12)
    return total
