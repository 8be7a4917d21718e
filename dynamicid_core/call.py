"""One call of the model, for every host: what its rows see, what acts at this noise level, where people are.

A host says once which cast a model carries (:class:`AppliedCast`), and at each call of the model which rows it has
(:class:`Row`), how noisy they are and how large the latent is; :func:`prepare_call` makes of that what the cross attentions
need, and :meth:`Call.add_faces` is all that they do with it (docs/method.md, section 3). Nothing here counts calls:
samplers call a model any number of times for a step, and what acts follows from the noise level alone. One thing is remembered
of a run: the places of people without a region, where they are to be found (:class:`finding.Finder`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from .attention import SiteFaces, acting_terms, add_faces, gate_terms, pack_cast, score_bias, site_faces
from .bases import UNetLayout
from .finding import Finder, Seen
from .gate_maps import GateRecorder
from .networks.saa import SAAModule
from .regions import GridSize, frames_of, halvings, region_weights, with_default_regions
from .types import Cast, SAAOptions
from .views import View

T = TypeVar("T")

NULL_ROLE, FACE_ROLE = 0, 1  # a row sees null tokens, or the people


class Row(NamedTuple):
    """One row of a model call."""

    role: int  # NULL_ROLE or FACE_ROLE
    frame: int  # which picture of the batch
    view: View | None = None  # the part of the picture that is denoised alone; None: all of it


class Schedule(Hashable, Protocol):
    """A host's noise schedule. Its noise levels (sigmas, timesteps) fall while sampling goes on."""

    def level(self, fraction: float) -> float:
        """The noise level at a fraction of the schedule: no level lies above that of 0, none below that of 1."""

    def passed(self, levels: Tensor) -> Tensor:
        """The fraction of the schedule that lies behind at each noise level: 0..1, float32."""


class Memory:
    """Values that depend on sizes, rows and device alone, made once; a host keeps it as long as these may come again."""

    def __init__(self, making: Callable[[], AbstractContextManager[Any]] = nullcontext):
        """``making``: the context in which values are made, such as a gradient mode."""
        self._making = making
        self._values: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value for ``key``, which ``make`` makes the first time."""
        if key not in self._values:
            with self._making():
                self._values[key] = make()
        return self._values[key]


@dataclass(frozen=True, eq=False)
class AppliedCast:
    """A cast as a model carries it while sampling. Immutable; all calls of all runs share it."""

    cast: Cast
    options: SAAOptions
    layout: UNetLayout
    packed: tuple[Tensor, ...]  # for each cross attention, [1 + F, 2 * M + 1, C] of attention.pack_cast
    recorder: GateRecorder | None = None
    warn: Callable[[str], object] = lambda text: None  # gets a sentence for people for whom no place was found

    @classmethod
    def of(
        cls,
        cast: Cast,
        options: SAAOptions,
        layout: UNetLayout,
        saa: SAAModule,
        recorder: GateRecorder | None = None,
        warn: Callable[[str], object] = lambda text: None,
    ) -> AppliedCast:
        """Give everybody a region, unless places are found, and compute all faces' keys and values, 3 MB for up to four, and 1.6 MB more for each further frame.

        ``recorder`` notes down where identity goes in. Raises DynamicIDError for an empty cast and for faces that do not
        fit the weights.
        """
        placed = with_default_regions(cast)
        cast = cast if options.placement == "automatic" else placed
        return cls(cast, options, layout, pack_cast(saa, cast), recorder, warn)

    @property
    def finds_places(self) -> bool:
        """Whether somebody's place is found in each run."""
        return self.options.placement == "automatic" and any(person.region is None for person in self.cast.people)

    def finder(self, levels: Tensor, schedule: Schedule) -> Finder:
        """Who looks for places in a run whose first call has these noise levels. One that begins late, as image to image does,
        has its first part there."""
        begun = float(schedule.passed(levels.max()))
        until = begun + self.options.find_until * (1 - begun)  # fraction of the schedule
        return Finder(self.cast, until, schedule.level(until))

    def with_places(self, finder: Finder) -> AppliedCast:
        """The same with the places that were found; whoever has none is named, and the recorder told."""
        found = finder.places()
        if found.message:
            self.warn(found.message)
        if self.recorder is not None:
            self.recorder.places = found.cast
        # Nobody was pushed anywhere so far, so the push is as long as it is with regions.
        options = dataclasses.replace(self.options, layout_end=min(1.0, finder.until + self.options.layout_end))
        return dataclasses.replace(self, cast=with_default_regions(found.cast), options=options)

    @cached_property
    def token_counts(self) -> list[int]:
        """Face tokens of each person."""
        return [person.face.tokens.shape[1] for person in self.cast.people]

    def looks(self, rows: Sequence[Row]) -> tuple[int, ...]:
        """What each row sees, as its place in packed faces: the null tokens, or the people in its frame."""
        last = self.cast.frames - 1
        return tuple(0 if row.role == NULL_ROLE else 1 + min(row.frame, last) for row in rows)


class GridTerms(NamedTuple):
    """What regions do on one grid: to the scores, and to the gate.

    The gate's are [B or 1, 2, 2, N] in general (:func:`attention.gate_terms`), and [B, 2, N] once it is known what acts
    (:func:`attention.acting_terms`). One row means that all are alike.
    """

    bias: Tensor  # [B or 1, 1, N, M], added to the scores
    gate: Tensor


@dataclass(eq=False)
class Call:
    """What the cross attentions of one model call need of one cast. What varies from step to step are tensors."""

    applied: AppliedCast
    memory: Memory
    rows: tuple[Row, ...]
    recorded: tuple[int, ...]  # numbers of the rows that a recorder notes down
    boost: Tensor  # [B]: 1 where the layout boost acts, else 0
    strength: Tensor  # [B]: the factor of all faces, 0 while none acts
    grids: dict[GridSize, GridTerms]
    sizes: dict[int, GridSize]  # of these grids, by their number of cells
    levels: Tensor  # [B]: noise levels
    schedule: Schedule
    latent: GridSize  # of what the UNet is given
    finder: Finder | None = None  # looks for places

    @cached_property
    def moment(self) -> Tensor:
        """For the recorder: the fraction of the schedule that lies behind, of the rows that it notes down."""
        return self.schedule.passed(self.levels[list(self.recorded)])

    def grid(self, height: int, width: int, like: Tensor) -> GridTerms:
        """Regions on a grid. The UNet's usual ones are there already; others, of patched layers, are made as ``like``."""
        usual = self.grids.get((height, width))
        return self._other_grid(height, width, like) if usual is None else usual

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _other_grid(self, height: int, width: int, like: Tensor) -> GridTerms:
        bias, terms = grid_terms(self.applied, self.rows, (height, width), like, self.memory)
        return GridTerms(bias, acting_terms(terms, self.boost, self.strength))

    def add_faces(self, text: Tensor, q: Tensor, faces: SiteFaces, height: int, width: int) -> Tensor:
        """A cross attention's text attention, plus the faces: [B, N, C], before ``to_out``.

        ``text``, ``q`` [B, N, C] on a grid of ``height`` x ``width`` cells; ``faces``: what its rows see.
        """
        bias, terms = self.grid(height, width, q)
        if q.dtype != bias.dtype:
            faces, bias = faces.to(q.dtype), bias.to(q.dtype)
        out, gate = add_faces(text, q, faces, bias, terms, self.applied.options.gate_threshold)
        if self.finder is not None:
            self._find(self.finder, q, faces, bias, (height, width))
        if self.applied.recorder is not None:
            self._record(self.applied.recorder, q, faces.keys, bias, gate, height, width)
        return out

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _record(
        self, recorder: GateRecorder, q: Tensor, keys: Tensor, bias: Tensor, gate: Tensor, height: int, width: int
    ) -> None:
        rows = list(self.recorded)
        if rows:
            bias = bias[rows] if len(bias) > 1 else bias
            counts = self.applied.token_counts
            recorder.record(q[rows], keys[rows], bias, gate[rows], counts, height, width, self.moment)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _find(self, finder: Finder, q: Tensor, faces: SiteFaces, bias: Tensor, size: GridSize) -> None:
        if rows := list(self.recorded):
            seen = tuple(Seen(self.rows[i].frame, self.rows[i].view) for i in rows)
            bias = bias[rows] if len(bias) > 1 else bias
            finder.record(seen, q[rows], SiteFaces(*(part[rows] for part in faces)), bias, size, self.latent)


def look_index(applied: AppliedCast, rows: Sequence[Row], device: torch.device, memory: Memory) -> Tensor:
    """:meth:`AppliedCast.looks` as an index [B], from memory if it is there."""
    looks = applied.looks(rows)
    return memory.get(("looks", looks, device), lambda: torch.tensor(looks, device=device))


def faces_of_rows(applied: AppliedCast, rows: Sequence[Row], like: Tensor, memory: Memory) -> tuple[SiteFaces, ...]:
    """What each row sees, for every cross attention: null tokens or faces, as ``like``, from memory if they are there.

    Of faces that move only the packed ones are remembered: the frames of a call may be others than those of the last.
    """
    looks, kind = applied.looks(rows), (like.device, like.dtype)

    def gather() -> tuple[SiteFaces, ...]:
        index = torch.tensor(looks)
        rows_of = (packed[index].to(like.device, like.dtype) for packed in applied.packed)
        return tuple(map(site_faces, rows_of, applied.layout.heads))

    def bring() -> tuple[Tensor, ...]:
        return tuple(packed.to(like.device, like.dtype) for packed in applied.packed)

    if applied.cast.frames == 1:
        return memory.get(("faces", id(applied), looks, *kind), gather)
    frames = memory.get(("frames", id(applied), *kind), bring)
    index = look_index(applied, rows, like.device, memory)
    return tuple(site_faces(packed[index], heads) for packed, heads in zip(frames, applied.layout.heads, strict=True))


def grid_terms(applied: AppliedCast, rows: Sequence[Row], size: GridSize, like: Tensor, memory: Memory) -> GridTerms:
    """Regions on one grid for each row, from memory if they are there; the bias as ``like``, the gate's in float32."""
    pictures: dict[tuple[View | None, tuple[int, ...]], int] = {}  # of each kind of row, one that stands for all
    places = [(row.view, frames_of(applied.cast, row.frame)) for row in rows]
    for row, place in zip(rows, places, strict=True):
        pictures.setdefault(place, row.frame)
    places = places[:1] if len(pictures) == 1 else places

    def make() -> GridTerms:
        found: dict[Any, tuple[Tensor, Tensor]] = {}
        for view in dict.fromkeys(view for view, _ in pictures):
            here = {place: picture for place, picture in pictures.items() if place[0] == view}
            weights = region_weights(
                applied.cast,
                *size,
                applied.options.outside,
                view,
                tuple(here.values()),
                strips=not applied.finds_places,
            )
            bias = score_bias(weights.visible, applied.token_counts)
            gate = gate_terms(weights, applied.options.layout_strength)
            found |= dict(zip(here, zip(bias, gate, strict=True), strict=True))
        bias, gate = (torch.stack([found[place][i] for place in places]) for i in (0, 1))
        return GridTerms(bias.to(like.device, like.dtype), gate.to(like.device))

    return memory.get(("grid", id(applied), tuple(places), size, like.device, like.dtype), make)


def _acting_grids(
    applied: AppliedCast,
    rows: tuple[Row, ...],
    latent: GridSize,
    like: Tensor,
    memory: Memory,
    boost: Tensor,
    strength: Tensor,
) -> dict[GridSize, GridTerms]:
    """Regions on every grid of the UNet in one call. What acts is applied to all grids at once, since on a GPU each
    operation costs a launch."""

    def join() -> tuple[dict[GridSize, Tensor], Tensor]:
        sizes = halvings(*latent, applied.layout.levels)
        terms = {size: grid_terms(applied, rows, size, like, memory) for size in sizes}
        return {size: grid.bias for size, grid in terms.items()}, torch.cat([g.gate for g in terms.values()], dim=-1)

    biases, gates = memory.get(("grids", id(applied), rows, latent, like.device, like.dtype), join)
    parts = torch.split(acting_terms(gates, boost, strength), [height * width for height, width in biases], dim=-1)
    return {size: GridTerms(bias, part) for (size, bias), part in zip(biases.items(), parts, strict=True)}


def _placed(
    applied: AppliedCast, levels: Tensor, schedule: Schedule, memory: Memory
) -> tuple[AppliedCast, Finder | None]:
    """The cast of a call at these noise levels, and who looks for places in it, if somebody does."""
    if not applied.finds_places:
        return applied, None
    finder = memory.get(("finder", id(applied)), lambda: applied.finder(levels, schedule))
    if not finder.is_done(levels):
        return applied, finder
    return memory.get(("found", id(applied)), lambda: applied.with_places(finder)), None


def prepare_call(
    applied: AppliedCast,
    rows: tuple[Row, ...],
    latent: GridSize,
    levels: Tensor,
    schedule: Schedule,
    like: Tensor,
    memory: Memory,
    recorded: Sequence[int] | None = None,
) -> Call:
    """Everything that one call of the model needs but the faces, from memory where possible; only a run's first call may wait for the device.

    ``latent``: the height and width of what the UNet is given. ``levels`` [B], float32: the rows' noise levels, in
    ``schedule``'s terms. ``like``: a tensor with the device and dtype of the attention's queries. ``recorded``: rows for the
    recorder; None: those that see people.
    """
    applied, finder = _placed(applied, levels, schedule, memory)
    options = applied.options
    if recorded is None:
        recorded = [i for i, row in enumerate(rows) if row.role == FACE_ROLE]

    def level(fraction: float) -> float:
        return memory.get(("level", schedule, fraction), lambda: schedule.level(fraction))

    boost = (levels > level(options.layout_end)).float()
    strength = ((levels <= level(options.start_at)) & (levels >= level(options.end_at))).float() * options.weight
    grids = _acting_grids(applied, rows, latent, like, memory, boost, strength)
    sizes = {height * width: (height, width) for height, width in grids}
    return Call(applied, memory, rows, tuple(recorded), boost, strength, grids, sizes, levels, schedule, latent, finder)
