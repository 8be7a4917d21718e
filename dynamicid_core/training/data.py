"""The batches of both stages, from the cache: functions of the seed and the step, read ahead by worker processes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..datasets.manifest import Manifest, Photo
from ..types import DynamicIDError
from .batches import AnchorBatch, ReconfigureBatch, row_generator, shuffled
from .cache import Cache, Photos
from .latents import face_places
from .settings import AnchorSettings, ReconfigureSettings
from .store import Part

Rows = Mapping[str, Tensor]
AHEAD = 4  # batches that each worker has ready


def _stack(rows: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(rows))


def _with_text(text: Rows, sizes: Tensor) -> dict[str, Tensor]:
    """SDXL's added conditions, for bases whose texts have a pooled feature."""
    return {"pooled": text["pooled"], "sizes": sizes.float()} if "pooled" in text else {}


@dataclass(frozen=True, eq=False)
class AnchorData:
    """Batches of the anchoring stage. In an epoch, each photo of the training split is the target once."""

    photos: Photos
    parts: Mapping[str, Part]
    null_clip: Tensor  # [L, Wc]
    empty: Rows  # of the empty prompt
    options: AnchorSettings
    seed: int = 0
    boxes: Mapping[str, tuple[float, ...] | None] = dataclasses.field(default_factory=dict)  # of faces, by photo id

    @classmethod
    def of(cls, cache: Cache, manifest: Manifest, options: AnchorSettings, seed: int = 0) -> AnchorData:
        """Raises DynamicIDError for a set without training photos, and if the cache lacks something."""
        people = manifest.people("train")
        if not people:
            raise DynamicIDError("The dataset has no photos in its split train; build it from more photos.")
        photos = cache.photos(people, ("measures", "clip", "latents", "caption"))
        boxes = {photo.id: photo.box for photo in manifest.taken} if options.face_weight != 1 else {}
        return cls(photos, cache.parts, cache.null("clip")["clip"], cache.text(""), options, seed, boxes)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> AnchorBatch:
        """Rows of process ``rank`` of ``world`` in the global batch of a step (from 0)."""
        size = self.options.batch
        rows = [self._row(step, rank * size + i, step * size * world + rank * size + i) for i in range(size)]
        references, targets, no_face, no_text = zip(*rows, strict=True)
        latents = self.parts["latents"].read(self.photos.rows["latents"][list(targets)])
        text = self._texts(targets, no_text)
        return AnchorBatch(
            latents=latents["latents"],
            text=text["states"],
            **self._faces(references, no_face),
            **_with_text(text, latents["sizes"]),
            places=self._places(targets, latents),
            photos=tuple((self.photos.id(r), self.photos.id(t)) for r, t in zip(references, targets, strict=True)),
        )

    def _row(self, step: int, row: int, number: int) -> tuple[int, int, bool, bool]:
        """Places of reference and target, and whether face and text are dropped."""
        epoch, place = divmod(number, len(self.photos))
        target = shuffled(place, len(self.photos), self.seed, epoch)
        others = self.photos.others(target)
        chosen = torch.randint(max(len(others), 1), (1,), generator=row_generator(self.seed, step, row, "data"))
        face, text, both = (getattr(self.options, f"drop_{name}") for name in ("face", "text", "both"))
        drawn = float(torch.rand(1, generator=row_generator(self.seed, step, row, "drop"), dtype=torch.float64))
        drop_both = face + text <= drawn < face + text + both
        reference = int(others[int(chosen)]) if len(others) else target
        return reference, target, drawn < face or drop_both, face <= drawn < face + text or drop_both

    def _faces(self, places: Sequence[int], dropped: Sequence[bool]) -> dict[str, Tensor]:
        shown = [place for place, drop in zip(places, dropped, strict=True) if not drop]
        clip = iter(self._read("clip", shown, "clip"))
        identity = iter(self._read("measures", shown, "identity"))
        zeros = torch.zeros(512)
        return {
            "identity": _stack([zeros if drop else next(identity) for drop in dropped]),
            "clip": _stack([self.null_clip if drop else next(clip) for drop in dropped]),
        }

    def _places(self, targets: Sequence[int], latents: Rows) -> Tensor | None:
        if not self.boxes:
            return None
        height, width = latents["latents"].shape[-2:]
        boxes = [self.boxes[self.photos.id(target)] for target in targets]
        return _stack(
            [
                face_places(sizes, box, (height, width), self.options.face_weight)
                for sizes, box in zip(latents["sizes"], boxes, strict=True)
            ]
        )

    def _read(self, kind: str, places: Sequence[int], name: str) -> Sequence[Tensor]:
        return list(self.parts[kind].read(self.photos.rows[kind][list(places)], (name,))[name]) if places else ()

    def _texts(self, places: Sequence[int], dropped: Sequence[bool]) -> Rows:
        shown = [place for place, drop in zip(places, dropped, strict=True) if not drop]
        rows = self.parts["texts"].read(self.photos.rows["caption"][shown]) if shown else self.empty
        found = {name: iter(rows[name]) for name in self.empty}
        return {
            name: _stack([empty if drop else next(found[name]) for drop in dropped])
            for name, empty in self.empty.items()
        }


@dataclass(frozen=True, eq=False)
class ReconfigureData:
    """Batches of the reconfiguration stage. In an epoch, each photo with landmarks of a person with several is the source once."""

    pools: tuple[Photos, ...]  # all but KDEF, and KDEF; one alone where the other would be empty
    parts: Mapping[str, Part]
    prompt: Rows  # of the portrait prompt
    options: ReconfigureSettings
    seed: int = 0

    @classmethod
    def of(cls, cache: Cache, manifest: Manifest, options: ReconfigureSettings, seed: int = 0) -> ReconfigureData:
        """Raises DynamicIDError if nobody has two photos to train with, and if the cache lacks something."""
        people = manifest.people("train")
        pools = tuple(pool for kdef in (False, True) if (pool := _pairable(people, kdef)))
        if not pools:
            raise DynamicIDError(
                "Nobody in the dataset's split train has two photos with landmarks, so no expression can be learnt; build "
                "it from several photos of each person."
            )
        columns = ("measures", "tokens", "latents", "source", "target")
        photos = tuple(cache.photos(pool, columns) for pool in pools)
        return cls(photos, cache.parts, cache.text(options.prompt), options, seed)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> ReconfigureBatch:
        """Rows of process ``rank`` of ``world`` in the global batch of a step (from 0)."""
        size, pool = self.options.batch, self.pools[self._pool(step)]
        rows = [self._row(pool, step, rank * size + i, step * size * world + rank * size + i) for i in range(size)]
        sources, targets = [row[0] for row in rows], [place for row in rows for place in row[1:]]

        def read(kind: str, places: Sequence[int], column: str = "") -> dict[str, Tensor]:
            return self.parts[kind].read(pool.rows[column or kind][places])

        def of_targets(values: Tensor) -> Tensor:
            return values.unflatten(0, (size, -1))  # [B, k, ...]

        latents = read("latents", targets)
        return ReconfigureBatch(
            source_tokens=read("tokens", sources)["tokens"],
            target_tokens=of_targets(read("tokens", targets)["tokens"]),
            source_landmarks=read("measures", sources)["landmarks"],
            target_landmarks=self._landmarks(step, rank, read, sources, targets),
            source_text=read("features", sources, "source")["feature"],
            target_text=of_targets(read("features", targets, "target")["feature"]),
            latents=of_targets(latents["latents"]),
            prompt=self.prompt["states"],
            **_with_text(self.prompt, of_targets(latents["sizes"])),
            photos=tuple(tuple(pool.id(place) for place in row) for row in rows),
        )

    def _landmarks(
        self, step: int, rank: int, read: Callable[..., dict[str, Tensor]], sources: list[int], targets: list[int]
    ) -> Tensor:
        """The targets' [B, k, 106, 2], now and then the source's: whoever edits by words has no others."""
        theirs = read("measures", targets)["landmarks"].unflatten(0, (len(sources), -1))
        if not self.options.keep_landmarks:
            return theirs
        kept = torch.stack([
            torch.rand(theirs.shape[1], generator=row_generator(self.seed, step, rank * len(sources) + row, "landmarks"))
            for row in range(len(sources))
        ])  # fmt: skip
        own = read("measures", sources)["landmarks"][:, None]
        return torch.where((kept < self.options.keep_landmarks)[..., None, None], own, theirs)

    def _pool(self, step: int) -> int:
        if len(self.pools) == 1:
            return 0
        drawn = torch.rand(1, generator=row_generator(self.seed, step, 0, "collection"), dtype=torch.float64)
        return int(float(drawn) < self.options.kdef_share)

    def _row(self, pool: Photos, step: int, row: int, number: int) -> list[int]:
        """Places of the source and its targets: all different if the person has photos enough."""
        epoch, place = divmod(number, len(pool))
        source = shuffled(place, len(pool), self.seed, epoch)
        others = pool.others(source)
        order = others[torch.randperm(len(others), generator=row_generator(self.seed, step, row, "data")).numpy()]
        return [source, *itertools.islice(itertools.cycle(order.tolist()), self.options.targets)]


def _pairable(people: Mapping[str, Sequence[Photo]], kdef: bool) -> dict[str, list[Photo]]:
    """Those of KDEF or all others: people with several photos that have landmarks."""
    found = {
        name: [p for p in photos if (p.collection == "kdef") == kdef and p.landmarks is not None]
        for name, photos in people.items()
    }
    return {name: photos for name, photos in found.items() if len(photos) > 1}


# --- Ahead of the device ------------------------------------------------------------------------------------------


class Data(Protocol):
    """:class:`AnchorData` or :class:`ReconfigureData`."""

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Any: ...


@dataclass(frozen=True)
class _Steps(Dataset[Any]):
    data: Data
    rank: int
    world: int

    def __getitem__(self, step: int) -> Any:
        return self.data.batch(step, self.rank, self.world)


def loader(
    data: Data,
    start: int = 0,
    stop: int | None = None,
    *,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    pin: bool = False,
) -> Iterator[Any]:
    """The batches of steps ``start`` to ``stop`` (excluded; None: without end), in order, read ahead by worker processes.

    ``pin``: into memory that an accelerator copies from while it computes.
    """
    steps = itertools.count(start) if stop is None else range(start, stop)
    return iter(
        DataLoader(
            _Steps(data, rank, world),
            sampler=steps,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=AHEAD if workers else None,
            pin_memory=pin,
        )
    )
