"""Refine Faces in a real ComfyUI: its own sampling, one person at a time, progress, interrupt; pixels elsewhere stay."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from comfy_host import Host
from studio import Studio

SIZE = (96, 160)  # of the picture
BOXES = ((14.0, 20.0, 44.0, 52.0), (62.0, 24.0, 90.0, 54.0), (116.0, 20.0, 146.0, 50.0))  # of its faces, from the left
INPUTS = {
    "which": "all", "below": 0.35, "small": 128, "tries": 1, "mend": False, "seed": 3, "steps": 1, "cfg": 4.0,
    "sampler_name": "euler", "scheduler": "normal", "denoise": 0.5, "size": 64, "crop_factor": 2.0, "padding": 0.3,
    "mend_denoise": 0.8, "weight": 1.0, "gate_threshold": 0.0, "lora_strength": 1.0,
}  # fmt: skip


def identity(*values: float) -> np.ndarray:
    found = np.zeros(512, np.float32)
    found[: len(values)] = values
    return found / np.linalg.norm(found)


class Detector:
    """Sees three faces: the first person's, nobody's, and one that is more like the second person once it has changed."""

    recogniser = "buffalo_l"

    def __init__(self, host: Host, picture: torch.Tensor) -> None:
        self.kind, self.original = host.module("dynamicid_core.faces").DetectedFace, self.middle(picture * 255).round()

    @staticmethod
    def middle(picture) -> torch.Tensor:
        """Of the third face."""
        return torch.as_tensor(picture)[30:40, 125:135].float()

    def detect(self, image: np.ndarray) -> list:
        as_it_was = torch.equal(self.middle(image), self.original)
        seen = identity(1), identity(0, 0, 1), identity(0, 0.3 if as_it_was else 0.9, 0, 0.9)
        return [self.kind(box, 0.9, np.zeros((5, 2)), who) for box, who in zip(BOXES, seen, strict=True)]


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    """[1, *SIZE, 3], with more levels than 8 bits have."""
    return torch.rand(1, *SIZE, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def detector(host: Host, picture: torch.Tensor) -> Detector:
    return Detector(host, picture[0])


@pytest.fixture(scope="module")
def cast(studio: Studio):
    """Two people: the first on the left, the second on the right."""
    people = []
    for number, box in enumerate(((0.0, 0.0, 1.0, 0.35), (0.0, 0.65, 1.0, 1.0))):
        known = torch.from_numpy(identity(*[0.0] * number, 1))
        face = dataclasses.replace(studio.face(number), identity=known)
        people.append(studio.types.Person(face, studio.types.Region(box=box)))
    return studio.types.Cast(tuple(people))


def refine(studio: Studio, image: torch.Tensor, cast, detector: Detector, **changed) -> tuple:
    given = {"model": studio.model, "positive": studio.positive, "negative": studio.negative, "vae": studio.vae}
    given |= {"dynamicid": studio.weights, "cast": cast, "face_analysis": detector, "image": image}
    return studio.host.node("DynamicIDRefineFaces")(**(given | INPUTS | changed))


@pytest.fixture(scope="module")
def refined(studio: Studio, picture: torch.Tensor, cast, detector: Detector):
    """What the node gives, and each patch that was sampled with what came of it."""
    module = studio.host.module("dynamicid_core.hosts.comfy.refining")
    original, seen = module.Redrawer.__call__, []

    def watched(self, patch):
        seen.append((patch, original(self, patch)))
        return seen[-1][1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module.Redrawer, "__call__", watched)
        return refine(studio, picture, cast, detector), seen


def changed_columns(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    """Columns of a picture [h, w, 3] in which a bit is another one."""
    return torch.nonzero((before != after).any(-1).any(0)).flatten().tolist()


def test_faces_of_the_cast_change_and_every_other_bit_stays(picture, refined) -> None:
    image, report, worst = refined[0]
    assert image.shape == picture.shape and image.dtype == picture.dtype and torch.isfinite(image).all()
    columns = changed_columns(picture[0], image[0])
    faces = [range(int(x0) + 1, int(x1) - 1) for x0, _, x1, _ in (BOXES[0], BOXES[2])]
    assert all(set(face) <= set(columns) for face in faces)
    assert max(columns) <= BOXES[2][2] + 10 and min(columns) >= BOXES[0][0] - 10
    assert not {*range(int(BOXES[1][0]), int(BOXES[1][2]) + 1)} & {*columns}, "the bystander"
    assert report.splitlines() == [
        "1 person 0: 1.00 before, 1.00 after, sampled again (seed 3)",
        "2 person 1: 0.32 before, 0.71 after, sampled again (seed 3)",
        "face 1: nobody of the cast",
    ]
    assert worst == pytest.approx(0.5**0.5, abs=1e-3)


def test_each_face_is_sampled_with_its_person_alone_in_the_whole_crop(studio, cast, refined) -> None:
    """The same as if somebody cut it out, applied the person without a region and used the host's own KSampler."""
    assert [patch.person.region for patch, _ in refined[1]] == [None, None]
    assert all(patch.person.face is person.face for (patch, _), person in zip(refined[1], cast.people, strict=True))
    patch, drawn = refined[1][1]
    assert patch.pixels.shape == (64, 64, 3)
    with torch.inference_mode():
        latent = {"samples": studio.vae.encode(patch.pixels[None]), "noise_mask": patch.mask[None]}
        alone = studio.types.Cast((studio.types.Person(cast.people[1].face),))
        (by_hand,) = studio.host.node("KSampler")(
            model=studio.apply(cast=alone, gate_threshold=0.0), positive=studio.positive, negative=studio.negative,
            latent_image=latent, denoise=0.5, seed=3, steps=1, cfg=4.0, sampler_name="euler", scheduler="normal",
        )  # fmt: skip
        assert torch.allclose(studio.vae.decode(by_hand["samples"])[0], drawn, atol=1e-5)


def test_a_batch_goes_picture_by_picture_with_progress(studio, picture, cast, detector, refined, monkeypatch) -> None:
    import comfy.utils

    seen = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, **_: seen.append((value, total))
    )
    image, report, _ = refine(studio, picture.repeat(2, 1, 1, 1), cast, detector)
    assert torch.equal(image, refined[0][0].repeat(2, 1, 1, 1)) and report == "\n\n".join([refined[0][1]] * 2)
    assert [step for step in seen if step[1] == 4] == [(number, 4) for number in (1, 2, 3, 4)]


def test_it_stops_when_the_user_interrupts(studio, picture, cast, detector) -> None:
    import comfy.model_management as management

    def redraw(patch):
        management.interrupt_current_processing()
        return patch.pixels

    refining, tell = studio.host.module("dynamicid_core.refining"), studio.host.module("nodes.progress").tell
    planned = refining.plan(picture[0], cast, detector)
    with pytest.raises(management.InterruptProcessingException):
        refining.refine(planned, redraw, tell)


def test_only_faces_that_are_unlike_or_small(studio, picture, cast, detector, refined) -> None:
    image, report, _ = refine(studio, picture, cast, detector, which="unlike", seed=4)
    assert min(changed_columns(picture[0], image[0])) > 100
    assert report.splitlines()[:2] == [
        "1 person 0: 1.00, left as it was",
        "2 person 1: 0.32 before, 0.71 after, sampled again (seed 4)",
    ]
    assert not torch.equal(image[..., 100:, :], refined[0][0][..., 100:, :]), "another seed"
    assert torch.equal(refine(studio, picture, cast, detector, which="small", small=20)[0], picture)


def test_half_precision_and_a_channel_more_stay_what_they_are(studio, picture, cast) -> None:
    image = torch.cat((picture, torch.ones(1, *SIZE, 1)), -1).half()
    detector = Detector(studio.host, image[0, ..., :3].float())
    made = refine(studio, image, cast, detector, which="unlike")[0]
    assert made.dtype == torch.float16 and torch.equal(made[..., 3], image[..., 3])
    columns = changed_columns(image[0], made[0])
    assert columns and not {*range(int(BOXES[1][0]), int(BOXES[1][2]) + 1)} & {*columns}


def test_a_model_with_faces_of_its_own_is_refused(studio, picture, cast, detector) -> None:
    with pytest.raises(ValueError, match="This model has the faces of a whole picture already"):
        refine(studio, picture, cast, detector, model=studio.apply())


def test_the_lora_is_merged_once_for_all_people(studio, cast) -> None:
    adapter = studio.adapter
    sampling = adapter.Sampling(studio.positive, studio.negative, 2, 4.0, "euler", "normal")
    redraw = adapter.Redrawer(studio.model, studio.vae, studio.weights, sampling, studio.types.SAAOptions())
    models = [redraw._model_of(person) for person in cast.people]
    assert len({model.patches_uuid for model in models}) == 1 and models[0].patches
    assert models[0] is redraw._model_of(cast.people[0]) and models[0] is not models[1]


# --- what prompts say of places --------------------------------------------------------------------------------------


@pytest.fixture
def cropping(host: Host):
    return host.module("dynamicid_core.hosts.comfy.cropping")


def test_areas_and_masks_of_prompts_are_cut_as_the_picture_is(host: Host, cropping) -> None:
    view = host.module("dynamicid_core.views").View(32, 64, 64, 64, (128, 192))
    right = torch.zeros(1, 64, 96)
    right[..., 48:] = 1  # of half the resolution
    words = torch.zeros(1, 77, 768)
    made = cropping.cropped(
        [
            [words, {"area": (8, 12, 4, 4), "strength": 1.0}],  # in cells: rows 4 to 12, columns 4 to 16
            [words, {"area": ("percentage", 0.25, 1.0, 0.75, 0.0)}],  # the lowest quarter
            [words, {"mask": right}],
            [words, {"area": (2, 2, 0, 0)}],  # outside
            [words, {}],
        ],
        view,
        (128, 128),
    )
    assert [set(values) for _, values in made] == [{"area", "strength"}, {"mask"}, set()]
    assert made[0][1]["area"] == (16, 16, 0, 0)
    assert made[1][1]["mask"].shape == (1, 32, 32) and made[1][1]["mask"][..., 16:].all()
    assert not made[1][1]["mask"][..., :16].any()


def test_the_lowest_quarter_is_cut_where_a_crop_shows_it(host: Host, cropping) -> None:
    view = host.module("dynamicid_core.views").View(64, 0, 64, 64, (128, 192))
    (entry,) = cropping.cropped([[None, {"area": ("percentage", 0.25, 1.0, 0.75, 0.0)}]], view, (64, 64))
    assert entry[1]["area"] == (4, 8, 4, 0)


def test_prompts_that_all_lie_elsewhere_are_taken_without_their_places(host: Host, cropping) -> None:
    view = host.module("dynamicid_core.views").View(0, 0, 64, 64, (128, 192))
    elsewhere = [[None, {"area": (4, 4, 12, 20), "strength": 0.5}], [None, {"mask": torch.zeros(1, 8, 8)}]]
    assert [values for _, values in cropping.cropped(elsewhere, view, (64, 64))] == [{"strength": 0.5}, {}]


def test_hints_of_a_controlnet_are_cut_and_its_original_stays(host: Host, cropping) -> None:
    class Control:
        def __init__(self, hint: torch.Tensor, before=None) -> None:
            self.cond_hint_original, self.previous_controlnet = hint, before

        def copy(self) -> Control:
            return Control(self.cond_hint_original)

        def set_previous_controlnet(self, before) -> Control:
            self.previous_controlnet = before
            return self

    view = host.module("dynamicid_core.views").View(0, 96, 64, 64, (128, 192))
    hint = torch.arange(192.0).expand(1, 3, 128, 192)
    control = Control(hint, Control(hint[..., ::2, ::2]))
    ((_, values),) = cropping.cropped([[None, {"control": control}]], view, (64, 64))
    cut = values["control"]
    assert torch.equal(cut.cond_hint_original, hint[..., :64, 96:160]) and control.cond_hint_original is hint
    assert cut.previous_controlnet.cond_hint_original.shape == (1, 3, 32, 32)
