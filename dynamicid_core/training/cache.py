"""The cache of a training run: what each stage needs of it, filled where it lacks something, and opened.

Every kind of row lies in a part of its own (``store``), keyed by what made it. So another training size makes latents
anew and nothing else, and a photo that is new costs its own rows alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..datasets.manifest import Manifest, Photo
from ..types import DynamicIDError
from ..writing import write
from .features import (
    NULL,
    Maker,
    Rows,
    clip_maker,
    measure_maker,
    token_maker,
)
from .frozen import Networks
from .latents import latent_maker
from .making import Planned, Share, Task, check_room, gigabytes, make, plan
from .settings import Settings
from .store import Part, as_keys, parts_in, size_of
from .texts import feature_maker, source_text, state_maker, target_text, text_key

INDEX = "index.json"
Bar = Callable[[str, int], AbstractContextManager[Callable[[int], Any]]]  # title, total -> what counts rows


# --- What the stages need -----------------------------------------------------------------------------------------


def anchor_makers(settings: Settings, manifest: Manifest, networks: Networks) -> list[Maker]:
    """CLIP's states, identities, latents, and the states of all captions, of the empty prompt and of validation's."""
    dtype, crop = getattr(torch, settings.cache_dtype), settings.base.crop_factor
    captions = (photo.caption for photo in manifest.taken)
    return [
        measure_maker(manifest, crop),
        clip_maker(manifest, networks, crop, dtype),
        latent_maker(manifest, networks, settings.anchor.size, dtype),
        state_maker(["", *settings.anchor.validation.prompts, *captions], networks, dtype),
    ]


def reconfigure_makers(settings: Settings, manifest: Manifest, networks: Networks) -> list[Maker]:
    """Face tokens, landmarks, latents, the states of the portrait prompt, and features of what photos show."""
    tokens = token_maker(manifest, networks, settings.base.crop_factor)
    return [tokens, *_makers_without_tokens(settings, manifest, networks)]


def _makers_without_tokens(settings: Settings, manifest: Manifest, networks: Networks) -> list[Maker]:
    dtype, stage = getattr(torch, settings.cache_dtype), settings.reconfigure
    shown = (say(photo) for photo in manifest.taken for say in (source_text, target_text))
    return [
        measure_maker(manifest, settings.base.crop_factor),
        latent_maker(manifest, networks, stage.size, dtype),
        state_maker(["", stage.prompt, *stage.validation.prompts], networks, dtype),
        feature_maker([*stage.validation.expressions, *shown], networks, settings.base.text_feature),
    ]


def all_makers(settings: Settings, manifest: Manifest, networks: Networks) -> list[Maker]:
    """Those of both stages; without face tokens while there is no SAA checkpoint."""
    second = reconfigure_makers if networks.saa else _makers_without_tokens
    return [*anchor_makers(settings, manifest, networks), *second(settings, manifest, networks)]


def merged(makers: Iterable[Maker]) -> list[Maker]:
    """One maker for each part, where two stages need rows of the same."""
    found: dict[str, Maker] = {}
    for maker in makers:
        name = json.dumps([maker.kind, maker.made_by], sort_keys=True)
        found[name] = replace(maker, items={**found[name].items, **maker.items}) if name in found else maker
    return list(found.values())


# --- Filling ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Filled:
    """What filling a cache found and did."""

    planned: tuple[Planned, ...]
    seconds: tuple[float, ...]  # for each part, on this process

    @property
    def made(self) -> int:
        return sum(one.missing for one in self.planned)

    def lines(self) -> Iterator[str]:
        """A table for people."""
        for one in self.planned:
            there = gigabytes((one.total - one.missing) * one.row_bytes)
            new = f"{one.missing} to make, {gigabytes(one.new_bytes)}" if one.missing else "complete"
            yield f"{one.kind:<9} {one.total:>9} rows, {there} there; {new}"


def fill(
    root: Path,
    makers: Iterable[Maker],
    device: torch.device,
    *,
    share: Share = Share(),
    workers: int = 0,
    say: Callable[[str], None] = lambda line: None,
    bar: Bar | None = None,
    dry: bool = False,
) -> Filled:
    """Make what is missing. ``share``: this process's part of the work; all call this together.

    ``say`` hears how large it will be before anything is made; ``bar`` shows progress; ``dry``: nothing is made.
    Raises DynamicIDError if the disk has no room, and for photos that cannot be read: what was made until then stays.
    """
    tasks = [Task(root, maker) for maker in merged(makers)]
    share.wait()  # everybody has seen the same before anybody adds to it
    planned = plan(tasks, device)
    check_room(root, planned)
    result = Filled(tuple(planned), ())
    for line in result.lines():
        say(line)
    if dry:
        return result
    seconds = []
    for task, one in zip(tasks, planned, strict=True):
        mine = sum(map(len, task.chunks(one.row_bytes)[share.rank :: share.world]))
        if bar is None or not mine:
            seconds.append(make(task, one, device, share, workers, lambda count: None))
            continue
        with bar(one.kind, mine) as tick:
            seconds.append(make(task, one, device, share, workers, tick))
    share.wait()
    if share.rank == 0:
        write_index(root)
    return replace(result, seconds=tuple(seconds))


def write_index(root: Path) -> Path:
    """``index.json``: every part with what made it, its rows and its size, for people. Nothing reads it."""
    parts = {}
    for folder, about in parts_in(root):
        part = Part(root, about["kind"], about["made_by"])
        row = part.read([0]) if len(part) else {}
        shapes = {name: [str(tensor.dtype)[6:], *tensor.shape[1:]] for name, tensor in row.items()}
        size = size_of(folder)
        parts[folder.name] = {**about, "rows": len(part), "shards": len(part.shards), "bytes": size, "tensors": shapes}
    return write(Path(root) / INDEX, json.dumps(parts, indent=2) + "\n")


def stale_parts(root: Path, current: Iterable[Maker]) -> list[Path]:
    """Parts that other weights or settings made: those of a kind that ``current`` has, but not its parts."""
    makers = list(current)
    kinds = {maker.kind for maker in makers}
    folders = {Part(root, maker.kind, maker.made_by).folder for maker in makers}
    return [folder for folder, about in parts_in(root) if about["kind"] in kinds and folder not in folders]


# --- Opened -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Photos:
    """Photos as columns, those of a person one after another: n photos of p people."""

    ids: np.ndarray  # [n] bytes, each photo's id
    people: np.ndarray  # [p] names
    first: np.ndarray  # [p + 1] where each person's photos begin, and n
    person: np.ndarray  # [n] places among people
    rows: Mapping[str, np.ndarray]  # column -> [n] rows of the part that it is from

    def __len__(self) -> int:
        return len(self.ids)

    def id(self, place: int) -> str:
        return bytes(self.ids[place]).decode()

    def others(self, place: int) -> np.ndarray:
        """Places of the person's other photos."""
        person = self.person[place]
        places = np.arange(self.first[person], self.first[person + 1])
        return places[places != place]


@dataclass(frozen=True, eq=False)
class Cache:
    """A stage's cache, opened for reading: by memory mapping, in any process."""

    parts: Mapping[str, Part]  # by kind
    keys: Mapping[str, tuple[str, Callable[[Photo], bytes]]]  # column -> kind of part, and the key of a photo there

    @classmethod
    def open(cls, root: Path, makers: Sequence[Maker]) -> Cache:
        """The parts of ``makers`` as they are now."""
        keys: dict[str, tuple[str, Callable[[Photo], bytes]]] = {}
        for maker in makers:
            if maker.kind == "features":
                keys |= {
                    "source": ("features", lambda photo: text_key(source_text(photo))),
                    "target": ("features", lambda photo: text_key(target_text(photo))),
                }
            elif maker.kind == "texts":
                keys["caption"] = ("texts", lambda photo: text_key(photo.caption))
            else:
                keys[maker.kind] = (maker.kind, maker.key)
        return cls({maker.kind: Part(root, maker.kind, maker.made_by) for maker in makers}, keys)

    def photos(self, people: Mapping[str, Sequence[Photo]], columns: Sequence[str]) -> Photos:
        """Columns of these people's photos. Raises DynamicIDError if a row of one is missing."""
        all_photos = [photo for photos in people.values() for photo in photos]
        counts = [len(photos) for photos in people.values()]
        rows = {}
        for column in columns:
            kind, key = self.keys[column]
            rows[column] = self.parts[kind].find(as_keys([key(photo) for photo in all_photos]))
            if (rows[column] < 0).any():
                raise _incomplete(self.parts[kind])
        return Photos(
            np.array([photo.id.encode() for photo in all_photos], dtype=bytes),
            np.array(list(people), dtype=str),
            np.cumsum([0, *counts]),
            np.repeat(np.arange(len(counts)), counts),
            rows,
        )

    def row(self, kind: str, key: bytes) -> Rows:
        """One row's tensors."""
        found = self.parts[kind].find(as_keys([key]))
        if found[0] < 0:
            raise _incomplete(self.parts[kind])
        return {name: tensor[0] for name, tensor in self.parts[kind].read(found).items()}

    def null(self, kind: str) -> Rows:
        """The row of the null photo: ``clip`` of zero pixels, null ``tokens``, an identity of zeros (``measures``)."""
        return self.row(kind, NULL)

    def text(self, prompt: str) -> Rows:
        """``states`` [S, W] of a prompt, and SDXL's ``pooled`` [W2]."""
        return self.row("texts", text_key(prompt))

    def feature(self, text: str) -> Tensor:
        """The IMR's text feature [Wt]."""
        return self.row("features", text_key(text))["feature"]


def _incomplete(part: Part) -> DynamicIDError:
    return DynamicIDError(f"The cache {part.folder} lacks rows of this dataset; run `train cache` again.")
