"""People for Detailer: faces of a finished picture as SEGS, and the real Impact Pack's detailer with them."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from comfy_host import REPOSITORY, Host
from PIL import Image
from studio import Studio

IMPACT = os.environ.get("IMPACT_PACK_PATH")
SIZE = (64, 160)  # of the picture
BOXES = ((14.0, 12.0, 44.0, 44.0), (62.0, 14.0, 90.0, 44.0), (118.0, 12.0, 146.0, 42.0))  # of its faces
INPUTS = {
    "which": "all", "below": 0.35, "small": 128, "crop_factor": 1.5, "padding": 0.3, "weight": 1.0,
    "gate_threshold": 0.0, "lora_strength": 1.0,
}  # fmt: skip


def identity(number: int) -> np.ndarray:
    return np.eye(1, 512, number, dtype=np.float32)[0]


class Detector:
    """Sees three faces: the second person's, nobody's, and the first person's."""

    recogniser = "buffalo_l"

    def __init__(self, host: Host) -> None:
        self.kind = host.module("dynamicid_core.faces").DetectedFace

    def detect(self, image: np.ndarray) -> list:
        found = zip(BOXES, (identity(1), identity(2), identity(0)), strict=True)
        return [self.kind(box, 0.9, np.zeros((5, 2)), who) for box, who in found]


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    return torch.rand(1, *SIZE, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def cast(studio: Studio):
    """Two people; the places are the wrong way round, but likeness is what counts."""
    people = []
    for number, box in enumerate(((0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 1.0))):
        face = dataclasses.replace(studio.face(number), identity=torch.from_numpy(identity(number)))
        people.append(studio.types.Person(face, studio.types.Region(box=box)))
    return studio.types.Cast(tuple(people))


@pytest.fixture(scope="module")
def make(host: Host, studio: Studio, picture, cast):
    def segs(image=picture, **changed):
        given = {"image": image, "dynamicid": studio.weights, "cast": cast, "face_analysis": Detector(host)}
        return host.node("DynamicIDSegs")(**(given | INPUTS | changed))[0]

    return segs


def test_each_face_of_the_cast_is_a_segment_with_its_person(make, cast) -> None:
    size, segments = make()
    assert size == SIZE and [segment.label for segment in segments] == ["person 1", "person 0"]
    assert [segment.control_net_wrapper.person.face for segment in segments] == [
        cast.people[1].face,
        cast.people[0].face,
    ]
    for segment, box in zip(segments, (BOXES[0], BOXES[2]), strict=True):
        left, top, right, bottom = segment.crop_region
        assert segment.bbox == [round(edge) for edge in box] and segment.confidence == 0.9
        assert right - left == bottom - top == round(1.5 * max(box[2] - box[0], box[3] - box[1]))
        assert segment.cropped_mask.shape == (bottom - top, right - left) and segment.cropped_mask.dtype == np.float32
        assert segment.cropped_mask[int(box[1]) + 12 - top, int(box[0]) + 12 - left] == 1
        assert segment.cropped_mask[0, 0] < 0.1
    assert [segment.label for segment in make(which="small", small=31)[1]] == ["person 0"]


def test_pictures_come_one_at_a_time(make, picture) -> None:
    with pytest.raises(ValueError, match="There are 2 pictures, but detailers take one at a time"):
        make(picture.repeat(2, 1, 1, 1))


def test_a_model_with_the_whole_cast_shows_who_is_in_the_crop(studio: Studio, make, cast) -> None:
    """For detailers that ask the wrapper for conditionings alone; places count here, and the left one is person 0's."""
    _, segments = make()
    model = studio.apply(cast=cast, gate_threshold=0.0)
    positive, negative, shown = segments[0].control_net_wrapper.apply(studio.positive, studio.negative, None, None)
    assert negative is studio.negative and shown == []
    with studio.watch(model) as watch:
        studio.sample(model, positive=positive, steps=1)
    visible = watch.first_layers()[0]["bias"][:, 0, :, ::4].exp()
    assert (visible[..., 0] == 1).all() and (visible[..., 1] == 0).all()


def test_the_lora_is_merged_once_and_who_was_in_the_model_is_not(studio: Studio, make, cast) -> None:
    _, segments = make()
    run = studio.adapter.run
    for model in (studio.model, studio.apply(cast=cast)):
        made = [segment.control_net_wrapper.doit_ipadapter(model)[0] for segment in segments]
        assert len({alone.patches_uuid for alone in made}) == 1
        people = [[p for applied in run.applied_casts(alone) for p in applied.cast.people] for alone in made]
        assert [[person.face for person in alone] for alone in people] == [
            [cast.people[1].face],
            [cast.people[0].face],
        ]
        assert all(person.region is None for alone in people for person in alone)
    assert len(run.applied_casts(model)) == 1 and len(run.applied_casts(model)[0].cast.people) == 2


@pytest.fixture(scope="module")
def detail(host: Host, studio: Studio, picture):
    if not IMPACT:
        pytest.skip("IMPACT_PACK_PATH names no checkout of ComfyUI-Impact-Pack")
    link = host.base / "custom_nodes" / "ImpactPack"
    link.symlink_to(Path(IMPACT).resolve(), target_is_directory=True)
    detectors = ModuleType("impact.subpack_nodes")  # need packages of their own, and the pack asks for them first
    detectors.NODE_CLASS_MAPPINGS = detectors.NODE_DISPLAY_NAME_MAPPINGS = {}
    sys.modules[detectors.__name__] = detectors
    host.load_custom_node(link)

    def run(segs, model):
        return host.node("DetailerForEach")(
            image=picture, segs=segs, model=model, clip=studio.clip, vae=studio.vae, guide_size=64, guide_size_for=False,
            max_size=64, seed=3, steps=1, cfg=4.0, sampler_name="euler", scheduler="normal", positive=studio.positive,
            negative=studio.negative, denoise=0.5, feather=0, noise_mask=True, force_inpaint=True, wildcard="", cycle=1,
            noise_mask_feather=0,
        )[0]  # fmt: skip

    return run


def test_the_real_detailer_draws_each_face_with_its_person_alone(studio: Studio, make, cast, picture, detail) -> None:
    size, segments = make()
    for segment in segments:
        drawn = detail((size, [segment]), studio.model)
        alone = studio.types.Cast((dataclasses.replace(segment.control_net_wrapper.person, region=None),))
        by_hand = detail(
            (size, [segment._replace(control_net_wrapper=None)]), studio.apply(cast=alone, gate_threshold=0.0)
        )
        assert torch.equal(drawn, by_hand)
        assert not torch.equal(drawn, detail((size, [segment._replace(control_net_wrapper=None)]), studio.model))
        assert torch.equal(drawn, detail((size, [segment]), studio.apply(cast=cast))), "whoever was in the model before"
        changed = torch.nonzero((drawn != picture).any(-1).any(1)[0]).flatten()
        left, _, right, _ = segment.crop_region
        assert left <= changed.min() and changed.max() < right


def test_the_example_fits_the_pack(host: Host, detail) -> None:
    Image.new("RGB", (64, 64)).save(host.base / "input/example.png")  # comes with the host, but not with this base
    host.check_graph(json.loads((REPOSITORY / "docs/examples/impact_detailer.json").read_text(encoding="utf-8")))
