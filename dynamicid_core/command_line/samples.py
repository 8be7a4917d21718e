"""Prompts x people x seeds: the pictures that ``evaluate`` makes before it judges them, as ``generate`` makes one."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bases import base_named
from ..evaluation.cases import Reference, check_keys, checksum, entries, gallery_of, named_file, parse_box
from ..evaluation.lists import Row, read_rows
from ..files import read_metadata
from ..origins import Origin
from ..plain import one_line
from ..prompts import target_prompt
from ..types import Cast, DynamicIDError, Face, Person
from . import generate, models, people, world
from .settings import PersonSettings, Settings, write_png

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..evaluation.store import Store
    from ..hosts.diffusers import DynamicID

PROMPT_KEYS = ("prompt", "people", "expressions", "poses", "boxes", "ground_truth", "id")
MADE_OF = "made of"  # what the store calls a picture's settings
PEOPLE = "{people}"  # in a prompt: "one person", "two people"
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


@dataclass(frozen=True)
class Sample:
    """A picture to be made."""

    name: str
    settings: Settings
    ground_truth: Path | None = None

    def picture(self, folder: Path) -> Path:
        return folder / "pictures" / f"{self.name}.png"

    def baseline(self, folder: Path) -> Path:
        """The same without faces; pictures of one prompt, seed and size share it."""
        s = self.settings
        key = f"{s.prompt}\n{s.negative}\n{s.width}x{s.height}\n{s.steps} {s.cfg} {s.sampler} {s.seed}"
        return folder / "baselines" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.png"


def samples(options: argparse.Namespace) -> list[Sample]:
    """Every picture of prompts x groups of people x seeds.

    Groups: as many people as a prompt asks for (a number, or names), else each number of ``--together``. With a number
    everybody of the folder is the first of one group, followed by the next ones, so that all appear equally often.
    """
    everybody = gallery_of(options.people_folder)
    base = _sized(generate.settings_of(options), options)
    made = []
    rows = read_rows(options.prompts, "prompt")
    for number, row in enumerate(rows, 1):
        try:
            check_keys(row, PROMPT_KEYS)
            for group in _groups(row, everybody, options.together):
                settings = _settings(base, row, group)
                if options.stand_in and not options.size:
                    settings = dataclasses.replace(settings, width=world.width_for(len(group)))
                folder, real = options.prompts.parent, row.get("ground_truth")
                truth = named_file(folder, real, "ground truth") if real else None
                name = row.get("id", f"{number:0{len(str(len(rows)))}}")
                stem = "-".join([_file_name(name), *(p.name for p in group)])
                made += [
                    Sample(f"{stem}-{seed}", dataclasses.replace(settings, seed=seed), truth) for seed in options.seeds
                ]
        except DynamicIDError as error:
            raise DynamicIDError(f"Prompt {number} of {options.prompts}: {error}") from error
    return made


def _sized(settings: Settings, options: argparse.Namespace) -> Settings:
    """Where no size is given, the one that the weights' base model makes best."""
    path = models.find(options).saa
    if options.size or options.stand_in or path is None or not Path(path).is_file():
        return settings
    base = base_named(Origin.from_metadata(read_metadata(path), path).base)
    return settings if base is None else dataclasses.replace(settings, width=base.side, height=base.side)


def _groups(row: Row, everybody: Sequence[Reference], together: Sequence[int]) -> list[list[Reference]]:
    if not row.get("prompt") or not isinstance(row["prompt"], str):
        raise DynamicIDError("It has no text; give it as 'prompt'.")
    asked = row.get("people", "")
    asked = str(asked).strip() if not isinstance(asked, list) else asked
    if asked and not isinstance(asked, list) and not asked.isdecimal():
        asked = [name.strip() for name in asked.split(";")]
    if isinstance(asked, list):
        by_name = {person.name: person for person in everybody}
        if unknown := [str(name) for name in asked if str(name) not in by_name]:
            raise DynamicIDError(f"There is nobody called {one_line(', '.join(unknown))} in the folder of people.")
        return [[by_name[name] for name in asked]]
    groups = []
    for count in [int(asked[:9])] if asked else together:
        if not 1 <= count <= len(everybody):
            raise DynamicIDError(f"{count} people are asked for, and the folder holds {len(everybody)}.")
        starts = range(len(everybody) if count < len(everybody) else 1)
        groups += [[everybody[(start + i) % len(everybody)] for i in range(count)] for start in starts]
    return groups


def _file_name(name: Any) -> str:
    """What a row's pictures are called. Raises DynamicIDError for a name that would lead into another folder."""
    if not str(name).strip(" .") or re.search(r"[\\/:\0]", str(name)):
        raise DynamicIDError(f"Its id is {one_line(str(name), 60)!r}; give a name for files, without folders.")
    return str(name)


def _settings(base: Settings, row: Row, group: Sequence[Reference]) -> Settings:
    def each(name: str) -> Sequence[Any]:
        values = entries(row.get(name) or [None] * len(group), name)
        if len(values) == 1 < len(group) and name != "boxes":  # one word for all
            values = list(values) * len(group)
        if len(values) != len(group):
            raise DynamicIDError(f"There are {len(group)} people but {len(values)} {name}; give one for each.")
        return values

    cast = tuple(
        PersonSettings(
            tuple(str(photo) for photo in person.photos), parse_box(box), name=person.name,
            expression=target_prompt(str(expression or ""), str(pose or "")) if expression or pose else "",
        )
        for person, box, expression, pose in zip(group, each("boxes"), each("expressions"), each("poses"), strict=True)
    )  # fmt: skip
    count = len(group)
    word = NUMBERS[count] if count < len(NUMBERS) else str(count)
    text = str(row["prompt"]).replace(PEOPLE, "one person" if count == 1 else f"{word} people")
    return dataclasses.replace(base, prompt=text, people=cast)


# --- Making them --------------------------------------------------------------------------------------------------


class Maker:
    """Makes pictures that are not there yet; models are loaded when the first is needed, faces encoded once."""

    def __init__(self, options: argparse.Namespace, every: Sequence[Sample], store: Store) -> None:
        """``every``: all that will be made, which says what must be loaded; ``store``: knows what each was made of."""
        everybody = [person for sample in every for person in sample.settings.people]
        self._photos = any(not people.is_face_file(path) for person in everybody for path in person.files)
        self._edits = any(person.expression for person in everybody)
        self._options, self._store = options, store
        self._models = models.named(options, self._photos, self._photos, self._edits)
        self._did: DynamicID | None = None
        self._faces: dict[PersonSettings, Face] = {}
        self._sums: dict[str, str] = {}

    def make(self, sample: Sample, folder: Path, baseline: bool) -> None:
        """The picture and, if asked for, the one without faces, unless they are there, made with these settings."""
        settings = dataclasses.replace(sample.settings, models=self._models)
        if not self._is_made(sample.picture(folder), settings):
            did = self._dynamicid()
            with did.apply(self._cast(did, settings), settings.options):
                picture = generate.sample(did.pipe, settings, progress=False)
            self._keep(sample.picture(folder), picture, settings)
        alone = dataclasses.replace(settings, people=(), photos={})
        if baseline and not self._is_made(sample.baseline(folder), alone):
            picture = generate.sample(self._dynamicid().pipe, alone, progress=False)
            self._keep(sample.baseline(folder), picture, alone)

    def _keep(self, path: Path, picture: Image, settings: Settings) -> None:
        write_png(path, picture, settings, [path for person in settings.people for path in person.paths])
        self._store.put(MADE_OF, checksum(path), {MADE_OF: np.array(self._made_of(settings))})

    def _is_made(self, path: Path, settings: Settings) -> bool:
        """Whether that very picture is known to be made with these settings, of files as they are now."""
        known = self._store.get(MADE_OF, checksum(path)) if path.is_file() else None
        return known is not None and str(known[MADE_OF]) == self._made_of(settings)

    def _made_of(self, settings: Settings) -> str:
        """Changes with the settings and with what is in the people's files, neither of which a picture tells."""
        paths = [path for person in settings.people for path in person.paths]
        self._sums |= {path: checksum(Path(path)) for path in paths if path not in self._sums}
        said = json.dumps([dataclasses.asdict(settings), [self._sums[path] for path in paths]])
        return hashlib.sha256(said.encode()).hexdigest()

    def _cast(self, did: DynamicID, settings: Settings) -> Cast:
        cast = Cast()
        for person in settings.people:
            anywhere = dataclasses.replace(person, box=None)
            if anywhere not in self._faces:
                self._faces[anywhere] = people.make_face(did, person, settings.photos)
            cast = cast.add(Person(self._faces[anywhere], people.make_region(person), person.weight))
        return cast

    def _dynamicid(self) -> DynamicID:
        if self._did is None:
            self._did = models.load_dynamicid(self._options, self._photos, self._photos, self._edits)
        return self._did
