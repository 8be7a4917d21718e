"""Pictures of questions, by the library on the narrow network, which computes what the wide one in ComfyUI does."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from asked import GALLERY, SEEDS, Question, Series
from enlarging import enlarged
from PIL import Image
from torch import Tensor

from dynamicid_core.drawn.make import portrait, posed
from dynamicid_core.drawn.people import HELD_OUT
from dynamicid_core.drawn.scene import COUNTS
from dynamicid_core.drawn.world import ACTING, CROP_FACTOR, GUIDANCE, REFINE_STEPS, REFINING, STEPS
from dynamicid_core.hosts.diffusers import DynamicID
from dynamicid_core.types import Cast, Face, Person, Region

PHOTO = 256  # px


def write_people(folder: Path, count: int = GALLERY) -> None:
    """A photo of each held-out person: neutral, from the front."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = photo_of(folder, number)
        if not path.exists():
            Image.fromarray(portrait(HELD_OUT + number, posed("neutral", "front view"), PHOTO)).save(path)


def photo_of(folder: Path, number: int) -> Path:
    return folder / f"person_{number:03d}.png"


def _ungated(activation: Tensor, threshold: float) -> Tensor:
    return torch.ones_like(activation, dtype=torch.float32)


class Studio:
    """Makes pictures with ``did``, whose people are photos in ``people``; ``motions``: other IMR weights, by name."""

    def __init__(self, did: DynamicID, people: Path, motions: dict[str, Any] | None = None) -> None:
        self.did, self.people = did, people
        self.motions = {"imr": did.motion, **(motions or {})}
        did.pipe.set_progress_bar_config(disable=True)
        self.face = lru_cache(None)(self._face)
        self.edited = lru_cache(None)(self._edited)

    def _face(self, number: int) -> Face:
        return self.did.encode(photo_of(self.people, number), name=f"person {number}", crop_factor=CROP_FACTOR)

    def _edited(self, number: int, words: str, motion: str) -> Face:
        if not words:
            return self.face(number)
        self.did.motion = self.motions[motion]
        return self.did.edit(self.face(number), words)

    def cast(self, question: Question, motion: str = "imr") -> Cast:
        faces = [
            self.edited(number, words, motion)
            for number, words in zip(question.people, question.edits or ("",) * len(question.people), strict=True)
        ]
        boxes = question.boxes or (None,) * len(faces)
        regions = [None if box is None else Region(box=(box[1], box[0], box[3], box[2])) for box in boxes]
        return Cast(tuple(Person(face, region) for face, region in zip(faces, regions, strict=True)))

    def pictures(self, question: Question, series: Series, seeds: Sequence[int] = SEEDS) -> list[Image.Image]:
        """One for each noise."""
        with contextlib.ExitStack() as stack:
            if series.faces:
                acting = dataclasses.replace(ACTING, placement=series.placement)
                stack.enter_context(self.did.apply(self.cast(question, series.motion), acting))
            if not series.gated:
                stack.enter_context(mock.patch("dynamicid_core.attention.gate", _ungated))
            made = self.plain(question, seeds)
        if series.tiled:
            cast, caption = self.cast(question, series.motion), _of_one(question)
            return [enlarged(self.did, picture, cast, caption, series.tiled == "told") for picture in made]
        return [self._refined(question, series, picture) for picture in made] if series.refined else made

    def _refined(self, question: Question, series: Series, picture: Image.Image) -> Image.Image:
        made = self.did.refine(
            np.asarray(picture), self.cast(question, series.motion), _of_one(question), dataclasses.replace(REFINING, tries=3, mend=True),
            steps=REFINE_STEPS, guidance_scale=GUIDANCE, options=ACTING,
        )  # fmt: skip
        return Image.fromarray(made.image)

    def plain(self, question: Question, seeds: Sequence[int] = SEEDS) -> list[Image.Image]:
        """With whomever the pipeline has now."""
        return sampled(self.did.pipe, question.caption, question.width, seeds)


def _of_one(question: Question) -> str:
    """The caption of a part of the picture."""
    return question.caption.replace(COUNTS[len(question.people)], COUNTS[1])


def sampled(pipe: Any, caption: str, width: int, seeds: Sequence[int]) -> list[Image.Image]:
    """Pictures of a caption, each with its own noise, whatever else is in the batch."""
    noise = [torch.randn(1, 4, 16, width // 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    made = pipe(
        [caption] * len(seeds), negative_prompt=[""] * len(seeds), latents=torch.cat(noise), height=128, width=width,
        num_inference_steps=STEPS, guidance_scale=GUIDANCE,
    )  # fmt: skip
    return list(made.images)


def make(
    series: Series, studio: Studio, folder: Path, tick: Callable[[Iterable[Question]], Iterable[Question]] = iter
) -> Path:
    """The pictures of a series that are missing, and its list for ``evaluate``; returns the list."""
    (folder / series.name).mkdir(parents=True, exist_ok=True)
    for question in tick(series.questions):
        paths = [picture_of(folder, series, question, seed) for seed in SEEDS]
        if not all(path.exists() for path in paths):
            for path, picture in zip(paths, studio.pictures(question, series), strict=True):
                picture.save(path)
    rows = [row for question in series.questions for row in _rows(series, question, folder, studio.people)]
    path = folder / f"{series.name}.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def picture_of(folder: Path, series: Series, question: Question, seed: int) -> Path:
    return folder / series.name / f"{question.name}_{seed}.png"


def _rows(series: Series, question: Question, folder: Path, people: Path) -> Iterator[dict[str, Any]]:
    asked = [
        {
            "photos": [str(photo_of(people, number).resolve())],
            "name": f"person {number}",
            "box": list(question.places[i]),
            **({"expression": question.expressions[i]} if question.expressions else {}),
            **({"pose": question.poses[i]} if question.poses else {}),
        }
        for i, number in enumerate(question.people)
    ]
    for seed in SEEDS:
        path = picture_of(folder, series, question, seed)
        row = {"id": path.stem, "picture": f"{series.name}/{path.name}", "people": asked, "prompt": question.caption}
        if series.baseline:
            row["baseline"] = f"{series.baseline}/{path.name}"
        yield row
