"""A finished picture's faces by a pipeline: each with its person alone, and the pipeline as it was before and after."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from standins import pipeline as standins

from dynamicid_core.checkpoints import load_saa
from dynamicid_core.faces import DetectedFace
from dynamicid_core.refining import RefineOptions
from dynamicid_core.types import Cast, DynamicIDError, Face, Missing, Person, Region, SAAOptions

diffusers = pytest.importorskip("diffusers")
host = pytest.importorskip("dynamicid_core.hosts.diffusers")

BOXES = ((14.0, 20.0, 44.0, 52.0), (116.0, 20.0, 146.0, 50.0))
HOW = RefineOptions(size=64, crop_factor=2.0, denoise=0.5, seed=3)


def face(number: int) -> Face:
    tokens = torch.randn(2, 1, 4, 768, generator=torch.Generator().manual_seed(number))
    known = torch.zeros(512)
    known[number] = 1
    return Face(tokens[0], tokens[1], "test", identity=known, name=f"person {number}")


CAST = Cast(tuple(Person(face(i), Region(box=(0.0, i / 2, 1.0, (i + 1) / 2))) for i in (0, 1)))


class Detector:
    """Sees two faces in any picture, the first person's and one a little like the second's."""

    recogniser = "buffalo_l"

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        first, second, nobody = np.eye(3, 512, dtype=np.float32)
        seen = zip(BOXES, (first, 0.3 * second + 0.95 * nobody), strict=True)
        return [DetectedFace(box, 0.9, np.zeros((5, 2)), who) for box, who in seen]


@pytest.fixture(scope="module")
def did():
    return host.DynamicID(standins.make_pipeline(), load_saa(standins.saa_tensors()), detector=Detector())


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (96, 160, 3), dtype=np.uint8)


def refine(did, image, how=HOW, **more):
    return did.refine(image, CAST, "a person", how, steps=2, options=SAAOptions(gate_threshold=0.0), **more)


@pytest.mark.filterwarnings("ignore:.*was made by the face encoder")
def test_faces_change_and_every_other_byte_stays(did, image):
    said = []
    made = refine(did, image, watch=said.append)
    changed = (made.image != image).any(-1)
    columns = np.flatnonzero(changed.any(0))
    assert columns.min() >= 0 and not {*range(70, 100)} & {*columns.tolist()}
    assert all(changed[25:45, int(x0) + 2 : int(x1) - 2].mean() > 0.9 for x0, _, x1, _ in BOXES)
    assert said == ["1 person 0, 1 of 2", "2 person 1, 2 of 2"]
    assert [(p.name, p.seed) for p in made.people] == [("1 person 0", 3), ("2 person 1", 3)]
    assert made.people[1].before == made.people[1].after == pytest.approx(0.3)
    assert np.array_equal(refine(did, image).image, made.image)
    other = refine(did, image, dataclasses.replace(HOW, seed=4))
    assert not np.array_equal(other.image, made.image)


@pytest.mark.filterwarnings("ignore:.*was made by the face encoder")
def test_each_face_is_what_image_to_image_with_its_person_alone_makes(did, image, monkeypatch):
    redrawer, seen = host.refining.Redrawer, []
    original = redrawer.__call__

    def watched(self, patch):
        seen.append((patch, original(self, patch)))
        return seen[-1][1]

    monkeypatch.setattr(redrawer, "__call__", watched)
    refine(did, image)
    patch, drawn = seen[1]
    assert patch.person.face is CAST.people[1].face and patch.person.region is None
    assert patch.pixels.shape == drawn.shape == (64, 64, 3)
    pipe = diffusers.StableDiffusionInpaintPipeline.from_pipe(did.pipe)
    other, stepped = host.DynamicID(pipe, did.saa), []
    with other.apply([patch.person.face], SAAOptions(gate_threshold=0.0)):
        (by_hand,) = pipe(
            "a person", image=patch.pixels.movedim(-1, 0)[None], mask_image=patch.mask[None, None], strength=0.5,
            num_inference_steps=4, guidance_scale=5.0, generator=torch.Generator().manual_seed(3), output_type="pt",
            negative_prompt="", height=64, width=64,
            callback_on_step_end=lambda pipe, step, time, given: stepped.append(step) or given,
        ).images  # fmt: skip
    assert torch.allclose(by_hand.movedim(0, -1), drawn, atol=1e-5) and len(stepped) == 2


def state(did) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in did.pipe.unet.state_dict().items()}


def latents(did) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    made = did.pipe("two people", height=64, width=64, num_inference_steps=2, output_type="latent", generator=generator)
    return made.images


@pytest.mark.filterwarnings("ignore:.*was made by the face encoder")
def test_the_pipeline_has_afterwards_what_it_had_before(did, image):
    before, plain, kind = state(did), latents(did), type(did.pipe)
    refine(did, image)
    assert all(torch.equal(before[name], tensor) for name, tensor in state(did).items()) and type(did.pipe) is kind
    assert torch.equal(latents(did), plain)
    with did.apply(CAST):
        acting = latents(did)
        refine(did, image)
        assert torch.equal(latents(did), acting) and not torch.equal(acting, plain)
    assert torch.equal(latents(did), plain)


@pytest.mark.filterwarnings("ignore:.*was made by the face encoder")
def test_any_scheduler_and_no_guidance_and_a_lora_beside_the_weights(did, image, monkeypatch):
    euler = diffusers.EulerAncestralDiscreteScheduler.from_config(did.pipe.scheduler.config)
    monkeypatch.setattr(did.pipe, "scheduler", euler)
    made = refine(did, image, guidance_scale=1.0, lora="apart")
    assert (made.image != image).any() and did.pipe.scheduler is euler


def test_what_cannot_be_done_is_said(did, image, monkeypatch):
    with pytest.raises(DynamicIDError, match="The cast is empty"):
        did.refine(image, [], "a person")
    monkeypatch.setattr(did.photos, "detector", None)
    with pytest.raises(Missing, match="Refining faces needs a face detector. Give detector"):
        refine(did, image)


def test_a_pipeline_of_which_there_is_none_for_parts_of_pictures(did, image, monkeypatch):
    class Own(diffusers.StableDiffusionPipeline):
        pass

    strange = Own(**did.pipe.components, requires_safety_checker=False)
    strange.__class__.__name__ = "Strange"
    monkeypatch.setattr(did, "pipe", strange)
    with pytest.raises(DynamicIDError, match="cannot be refined with a Strange"):
        refine(did, image)


@pytest.mark.parametrize("steps, denoise", [(1, 0.4), (20, 0.4), (29, 0.29), (7, 0.7), (12, 1.0)])
def test_as_many_steps_are_taken_as_were_asked_for(did, steps, denoise):
    asked = host.refining.Sampling("", "", steps, 5.0)
    schedule = host.refining.Redrawer(did, asked, SAAOptions(), "fused")._schedule(denoise)
    assert int(schedule * denoise) == steps
    assert host.refining.Redrawer(did, asked, SAAOptions(), "fused")._schedule(0.001) == 1000, "no more than there are"
