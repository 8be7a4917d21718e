"""The method on people that nothing was trained on, with the weights that the project carries: who, where, how, how many.

Judged by networks that took no part in conditioning (``drawn/weights/judge``). People are the first held-out ones, noise is
that of the first seeds; each bound leaves room for a picture that goes wrong, as some do (docs/evidence.md).
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("onnxruntime")

from dynamicid_core.blending import blend_faces
from dynamicid_core.detection import load_detector
from dynamicid_core.drawn.face_packs import DRAWN_JUDGE, EXPRESSION_JUDGE, fill_packs
from dynamicid_core.drawn.make import portrait, posed
from dynamicid_core.drawn.people import HELD_OUT
from dynamicid_core.drawn.pipeline import drawn_dynamicid
from dynamicid_core.drawn.world import ACTING, CROP_FACTOR, GUIDANCE, ONE, REFINE_STEPS, REFINING, STEPS
from dynamicid_core.evaluation.readings import load_reader
from dynamicid_core.prompts import preset_prompt
from dynamicid_core.refining import RefinedPicture
from dynamicid_core.types import Cast, Person, Region, SAAOptions

WIDTHS = {1: 128, 2: 192, 3: 256}
COUNTS = {1: "one person", 2: "two people", 3: "three people"}


@pytest.fixture(scope="module")
def did():
    made = drawn_dynamicid()
    made.pipe.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """The folder of InsightFace's packs, with those of drawn faces."""
    models = tmp_path_factory.mktemp("models")
    fill_packs(models)
    return models / "insightface"


@pytest.fixture(scope="module")
def judge(packs):
    return load_detector(DRAWN_JUDGE, [packs], identity_channels="bgr")


@pytest.fixture(scope="module")
def expressions(packs):
    return load_reader(packs / "models" / DRAWN_JUDGE / EXPRESSION_JUDGE)


@pytest.fixture(scope="module")
def face(did):
    return lru_cache(lambda n: did.encode(photo(n), name=f"person {n}", crop_factor=CROP_FACTOR))


@lru_cache
def photo(number: int) -> np.ndarray:
    return portrait(HELD_OUT + number, posed("neutral", "front view"), 256)


def sampled(did, caption: str, width: int, seed: int) -> np.ndarray:
    noise = torch.randn(1, 4, 16, width // 8, generator=torch.Generator().manual_seed(seed))
    made = did.pipe(
        caption, negative_prompt="", latents=noise, height=128, width=width, num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
    )  # fmt: skip
    return np.asarray(made.images[0])


def picture(did, people: list[Person], seed: int, options: SAAOptions = ACTING) -> np.ndarray:
    caption = f"a drawing of {COUNTS[len(people)]}, blue background"
    with did.apply(Cast(tuple(people)), options):
        return sampled(did, caption, WIDTHS[len(people)], seed)


def side_by_side(faces: list) -> list[Person]:
    share = 1 / len(faces)
    return [Person(f, Region(box=(0.0, i * share, 1.0, (i + 1) * share))) for i, f in enumerate(faces)]


def seen(judge, image: np.ndarray) -> list:
    """Faces from the left to the right."""
    return sorted(judge.detect(image), key=lambda found: found.box[0])


def likeness(judge, found, number: int) -> float:
    (reference,) = judge.detect(photo(number))
    return float(found.identity @ reference.identity)


def apart(judge, image: np.ndarray, numbers: tuple[int, ...]) -> float:
    """How much more faces, from the left to the right, are like these people than like each other's: 0 for strangers, and
    where there are more faces or fewer."""
    faces = seen(judge, image)
    if len(faces) != len(numbers):
        return 0.0
    alike = np.array([[likeness(judge, found, n) for n in numbers] for found in faces])
    others = ~np.eye(len(numbers), dtype=bool)
    return float(alike.diagonal().mean() - alike[others].mean())


def test_everybody_is_in_their_box(did, judge, face) -> None:
    asked = [((a, a + 1), seed) for a in (0, 2, 4) for seed in (0, 1)]
    right = [apart(judge, picture(did, side_by_side([face(n) for n in who]), seed), who) for who, seed in asked]
    assert np.mean(right) > 0.15, right


def test_swapped_boxes_swap_people(did, judge, face) -> None:
    right = []
    for first, seed in ((a, seed) for a in (0, 2, 4) for seed in (0, 1)):
        who = (first + 1, first)
        people = side_by_side([face(n) for n in who])[::-1]  # the order of the cast stays, boxes change
        right.append(apart(judge, picture(did, people, seed), who))
    assert np.mean(right) > 0.1, right


@pytest.mark.parametrize("count", [1, 2, 3])
def test_there_are_as_many_people_as_were_asked_for(did, judge, face, count) -> None:
    found = [len(seen(judge, picture(did, side_by_side([face(n) for n in range(count)]), seed))) for seed in (0, 1, 2)]
    assert np.abs(np.subtract(found, count)).mean() < 0.7, found


def test_an_edit_changes_the_expression_and_not_the_person(did, judge, face, expressions) -> None:
    kept, shown = [], []
    for number in (0, 1, 2):
        plain = seen(judge, picture(did, [Person(face(number))], 0))[0]
        for word, expression in (("happy", "happy"), ("surprised", "surprise"), ("angry", "anger")):
            edited = did.edit(face(number), preset_prompt(word))
            made = picture(did, [Person(edited)], 0)
            found = seen(judge, made)[0]
            kept.append(likeness(judge, found, number) / likeness(judge, plain, number))
            shown.append(expressions.read(made, found) == expression)
    assert np.mean(kept) > 0.7, kept
    assert np.mean(shown) > 0.5, shown  # chance: a seventh


def test_a_blend_is_between_its_people(did, judge, face) -> None:
    alike = {}
    for share in (0.0, 0.5, 1.0):
        found = seen(judge, picture(did, [Person(blend_faces([face(0), face(1)], [1 - share, share]))], 0))[0]
        alike[share] = likeness(judge, found, 0) - likeness(judge, found, 1)
    assert alike[0.0] > alike[0.5] > alike[1.0], alike


def test_without_strength_the_plain_model_draws(did, face) -> None:
    plain = sampled(did, "a drawing of two people, blue background", 192, 0)
    silent = picture(did, side_by_side([face(0), face(1)]), 0, SAAOptions(weight=0.0, lora_strength=0.0))
    acting = picture(did, side_by_side([face(0), face(1)]), 0)
    assert np.abs(plain.astype(int) - silent).max() <= 1
    assert np.abs(plain.astype(int) - acting).mean() > 5


def refined(did, image: np.ndarray, people: list[Person], **how) -> RefinedPicture:
    return did.refine(
        image, Cast(tuple(people)), ONE, dataclasses.replace(REFINING, **how), steps=REFINE_STEPS, guidance_scale=GUIDANCE,
        options=ACTING,
    )  # fmt: skip


def test_refining_changes_faces_alone_and_makes_people_more_alike(did, judge, face) -> None:
    """Of two seeds the better, which the judge agrees with. People came out unlike, as faces had little weight."""
    people = side_by_side([face(0), face(1)])
    image = picture(did, [dataclasses.replace(person, weight=0.3) for person in people], 1)
    made = refined(did, image, people, tries=2)
    assert len(made.outcomes) == 2
    kept = np.ones(image.shape[:2], bool)
    for job in (outcome.job for outcome in made.outcomes):
        crop, (x0, y0, x1, y1) = job.crop, (int(v) for v in job.box)
        kept[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width] &= job.mask.numpy() == 0
        assert (made.image[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2] != image[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2]).mean() > 0.5
    assert kept.mean() > 0.05 and np.array_equal(made.image[kept], image[kept])
    for line, name in zip(made.report().splitlines(), ("1 person 0", "2 person 1"), strict=False):
        assert line.startswith(f"{name}: ") and " before, " in line and " after, sampled again (seed " in line
    assert apart(judge, made.image, (0, 1)) > apart(judge, image, (0, 1))


def test_somebody_missing_is_drawn_in_place(did, face) -> None:
    """One person on the left of a wall; the other is asked for on the right."""
    people = side_by_side([face(0), face(1)])
    alone = picture(did, [Person(face(0))], 0)
    wall = np.full((128, 192, 3), alone[4, 4], np.uint8)
    wall[:, :96] = alone[:, 20:116]
    made = refined(did, wall, people, which="unlike", below=-1.0, mend=True, tries=4)
    assert made.plan.before.missing == (1,) and made.after.missing == ()
    assert made.report().splitlines()[1].startswith("2 person 1: missing before, 0.")
    assert np.array_equal(made.image[:, :60], wall[:, :60]), "who is there stays"
