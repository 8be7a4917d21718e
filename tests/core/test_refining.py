"""A second pass over faces: what is cut out and laid back, who is chosen, the best of several seeds, the report."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_matching import ANNA, BEN, LEFT, NOBODY, RIGHT, direction, found, person

from dynamicid_core.refining import Patch, RefineOptions, plan, refine
from dynamicid_core.refining.crops import (
    as_image,
    as_picture,
    cut,
    enlarged,
    grown_crop,
    paste,
    soft_box,
    soft_edges,
    square_crop,
    working_size,
)
from dynamicid_core.types import Cast, DynamicIDError, Region
from dynamicid_core.views import View

SIZE = (100, 300)


def picture(*size: int) -> torch.Tensor:
    """Values of more levels than 8 bits have."""
    return torch.rand(*(size or SIZE), 3, generator=torch.Generator().manual_seed(0))


# --- crops --------------------------------------------------------------------------------------------------------


def test_a_square_with_room_moved_into_the_picture():
    assert square_crop(SIZE, (100, 40, 120, 60), 3) == View(20, 80, 60, 60, SIZE)
    assert square_crop(SIZE, (0, 0, 20, 20), 3) == View(0, 0, 60, 60, SIZE)
    assert square_crop(SIZE, (250, 10, 310, 90), 3) == View(0, 200, 100, 100, SIZE), "no larger than the picture"
    assert grown_crop(SIZE, (150, 0, 250, 100), 0.2) == View(0, 130, 100, 140, SIZE)


@pytest.mark.parametrize(
    "crop, side, size",
    [
        ((60, 60), 512, (512, 512)),
        ((60, 60), 500, (512, 512)),  # squares in whole cells of the coarsest level
        ((700, 700), 512, (704, 704)),  # what is larger is not made smaller
        ((2000, 2000), 512, (1024, 1024)),  # but for what is much larger
        ((100, 150), 512, (416, 624)),  # others keep their proportions
    ],
)
def test_working_sizes(crop, side, size):
    assert working_size(View(0, 0, *crop, (4000, 4000)), side) == size


def test_a_size_below_the_coarsest_cell_is_refused():
    with pytest.raises(DynamicIDError, match="cannot be sampled at 32 px"):
        working_size(View(0, 0, 60, 60, SIZE), 32)


def test_what_is_laid_back_has_no_seam_and_leaves_every_other_bit():
    """White is laid into the middle of a dark picture: full inside the box, falling in small steps, nothing at the edge."""
    dark, crop, box = torch.full((*SIZE, 3), 0.1), square_crop(SIZE, (140, 40, 160, 60), 3), (140, 40, 160, 60)
    mask = soft_box(crop, box, 10) * soft_edges(crop)
    made = paste(dark, crop, torch.ones(128, 128, 3), mask)
    row = made[50, :, 0]
    assert row[140:160].min() > 1 - 1e-6 and torch.equal(row[:130], dark[50, :130, 0])
    assert row.diff().abs().max() < 0.15 * 0.9 * 1.1, "one step of ten, and no jump"
    assert torch.equal(made[:20], dark[:20]) and torch.equal(dark, torch.full((*SIZE, 3), 0.1))
    assert (row[130:140].diff() > 0).all() and torch.allclose(row[130:140], row[160:170].flip(0))


def test_a_crop_without_room_fades_inside_but_not_at_the_pictures_edge():
    inside, corner = square_crop(SIZE, (140, 40, 160, 60), 1), square_crop(SIZE, (0, 0, 20, 20), 1)
    mask = soft_box(inside, (140, 40, 160, 60), 10) * soft_edges(inside)
    assert mask[0].max() < 0.2 and mask[:, -1].max() < 0.2 and mask[10, 10] == 1
    mask = soft_box(corner, (0, 0, 20, 20), 10) * soft_edges(corner)
    assert mask[0, 0] == 1 and mask[-1].max() < 0.2


def test_cutting_and_laying_back_unchanged_changes_nothing_that_is_seen():
    smooth = torch.nn.functional.interpolate(picture(12, 36).movedim(-1, 0)[None], SIZE, mode="bicubic")[0].movedim(
        0, -1
    )
    smooth = smooth.clamp(0, 1)
    crop = square_crop(SIZE, (140, 40, 170, 70), 2)
    same = paste(smooth, crop, enlarged(smooth, crop, (256, 256)), torch.ones(crop.height, crop.width))
    assert (same - smooth).abs().max() < 0.01
    assert torch.equal(cut(same, crop).shape == torch.Size((60, 60, 3)) and same[:20], smooth[:20])


def test_bytes_survive():
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert np.array_equal(as_image(as_picture(image)), image)


# --- who ----------------------------------------------------------------------------------------------------------


class Detector:
    """Shows ``faces``, each like its person as far as ``likeness`` of the grey in its middle says; None: not seen."""

    recogniser = "buffalo_l"

    def __init__(self, *faces, likeness=None) -> None:
        self.faces, self.likeness, self.looked = faces, likeness or {}, 0

    def detect(self, image: np.ndarray) -> list:
        self.looked += 1
        seen = []
        for face in self.faces:
            x, y = (int(n) for n in face.center)
            identity = self.likeness.get(int(image[y, x, 0]), face.identity)
            if identity is not None:
                seen.append(type(face)(face.box, 0.9, np.zeros((5, 2)), identity))
        return seen


PAIR = Cast((person(ANNA, LEFT, "Anna"), person(BEN, RIGHT, "Ben")))
ANNA_LEFT, BEN_RIGHT = found(ANNA, 60), found(direction(0, 0.3, 1), 240)


def planned(detector: Detector, cast: Cast = PAIR, **options):
    return plan(picture(), cast, detector, RefineOptions(**{"size": 64, "crop_factor": 2.0, **options}))


def jobs(detector: Detector, cast: Cast = PAIR, **options) -> list[tuple]:
    return [(job.person, job.face, job.mends) for job in planned(detector, cast, **options).jobs]


def test_all_small_ones_or_those_that_are_unlike():
    small = found(ANNA, 60, size=12)
    both = Detector(small, BEN_RIGHT)
    assert jobs(both) == [(0, 0, False), (1, 1, False)]
    assert jobs(both, which="small", small=20) == [(0, 0, False)]
    assert jobs(both, which="unlike") == [(1, 1, False)]
    assert jobs(both, which="unlike", below=0.2) == []


def test_bystanders_are_left_out_and_protected_inside_anothers_crop():
    beside = found(NOBODY, 84, size=24)
    whole = planned(Detector(ANNA_LEFT, beside, found(NOBODY, 160)), Cast((person(ANNA, LEFT, "Anna"),)))
    (job,) = whole.jobs
    assert job.face == 0 and job.crop == View(20, 30, 60, 60, SIZE)
    x0, x1 = int(beside.box[0]) - job.crop.left, int(beside.box[2]) - job.crop.left
    y0, y1 = int(beside.box[1]) - job.crop.top, int(beside.box[3]) - job.crop.top
    assert job.mask[y0:y1, x0:x1].max() == 0 and job.mask[30, 30] == 1
    assert job.mask.shape == (60, 60) and job.mask[:, -1].max() < 0.05


def test_missing_and_doubled_people_are_sampled_again_only_where_asked_for():
    twice = Detector(ANNA_LEFT, found(direction(0.9, 0, 0.1), 110), found(direction(0.9, 0.1), 240))
    assert jobs(twice) == [(0, 0, False), (1, 2, False)]
    assert jobs(twice, mend=True) == [(0, 0, False), (1, 2, True), (None, 1, True)]
    gone = Detector(ANNA_LEFT)
    assert jobs(gone, which="unlike") == []
    (job,) = planned(gone, which="unlike", mend=True).jobs
    assert (job.person, job.face, job.mends) == (1, None, True)
    assert job.box == (150, 0, 300, 100) and job.crop.left < 150 and job.crop.whole == SIZE
    anna = cut(torch.arange(300).expand(100, 300), job.crop)
    assert job.mask[anna < 75].sum() == 0


@pytest.mark.parametrize("wrong", [{"which": "some"}, {"tries": 0}, {"denoise": 0.0}, {"size": 32}, {"padding": 3.0}])
def test_what_cannot_be_asked_for(wrong):
    with pytest.raises(DynamicIDError, match=f"^{next(iter(wrong))} is .*; it must"):
        RefineOptions(**wrong)


# --- the work -----------------------------------------------------------------------------------------------------


def painting(*values: int):
    """A redraw that fills the first patch with the first grey, and so on; and the patches."""
    patches: list[Patch] = []

    def redraw(patch: Patch) -> torch.Tensor:
        patches.append(patch)
        return torch.full_like(patch.pixels, values[len(patches) - 1] / 255)

    return redraw, patches


ALIKE = {200: direction(0, 0.9, 0.2), 150: direction(0, 0.5, 0.9), 100: direction(0, 0.1, 1), 50: None}


def test_the_best_of_several_seeds_is_kept_and_hosts_get_the_person_alone():
    detector, said = Detector(BEN_RIGHT, likeness=ALIKE), []
    redraw, patches = painting(100, 200, 50, 150)
    made = refine(planned(detector, tries=4, seed=7, denoise=0.3), redraw, said.append)
    assert [(p.seed, p.denoise, p.crop) for p in patches] == [(seed, 0.3, patches[0].crop) for seed in (7, 8, 9, 10)]
    assert patches[0].person.face is PAIR.people[1].face and patches[0].person.region is None
    assert patches[0].pixels.shape == (64, 64, 3) and {*patches[0].mask.unique().tolist()} == {0, 1}
    ben = made.people[1]
    assert (ben.tries, ben.seed, ben.name) == (4, 8, "2 Ben")
    assert ben.before == pytest.approx(0.287, abs=1e-3) and ben.after == pytest.approx(0.976, abs=1e-3)
    assert made.image[50, 240].tolist() == [200, 200, 200] and said[-1] == "2 Ben, 1 of 1, seed 10"
    changed = (made.picture != made.plan.picture).any(-1)
    crop = patches[0].crop
    cut(changed, crop).fill_(False)
    assert not changed.any()
    assert made.report() == "1 Anna: missing\n2 Ben: 0.29 before, 0.98 after, sampled again (seed 8)"
    assert made.worst == 0.0


def test_all_faces_get_the_best_try_even_where_they_were_more_alike_before():
    detector = Detector(found(BEN, 240), likeness=ALIKE)
    made = refine(planned(detector), painting(150)[0])
    assert (made.people[1].before, made.people[1].seed) == (pytest.approx(1), 0)
    assert made.people[1].after == pytest.approx(0.486, abs=1e-3)


def test_those_who_were_unlike_never_get_worse_and_one_who_is_alike_is_enough():
    redraw, patches = painting(100, 150, 200)
    made = refine(planned(Detector(BEN_RIGHT, likeness=ALIKE), which="unlike", tries=3), redraw)
    assert len(patches) == 2 and made.people[1].seed == 1
    redraw, patches = painting(100, 50)
    made = refine(planned(Detector(BEN_RIGHT, likeness=ALIKE), which="unlike", tries=2), redraw)
    assert torch.equal(made.picture, made.plan.picture)
    assert made.report().splitlines()[1] == "2 Ben: 0.29 before, 0.29 after, nothing better was found with 2 seeds"


def test_a_try_without_a_face_is_none():
    made = refine(planned(Detector(BEN_RIGHT, likeness=ALIKE)), painting(50)[0])
    assert torch.equal(made.picture, made.plan.picture) and made.people[1].seed is None
    assert "2 Ben: 0.29 before, 0.29 after, nothing better was found with 1 seed" in made.report()


def test_somebody_missing_appears_in_place():
    """A face is seen where the right half's middle is bright."""
    stage = found(None, 225, size=40)
    detector = Detector(ANNA_LEFT, stage, likeness={200: direction(0, 0.9, 0.2)})
    redraw, patches = painting(50, 200, 200)
    made = refine(planned(detector, which="unlike", mend=True, tries=3, mend_denoise=0.9), redraw)
    assert [p.denoise for p in patches] == [0.9, 0.9] and patches[0].person.face is PAIR.people[1].face
    assert made.plan.before.missing == (1,) and made.after.missing == ()
    assert made.report().splitlines() == [
        "1 Anna: 1.00, left as it was",
        "2 Ben: missing before, 0.98 after, sampled again (seed 1)",
    ]
    assert torch.equal(made.picture[:, :75], made.plan.picture[:, :75])


def test_a_face_that_shows_somebody_once_more_becomes_nobodys():
    again = found(direction(0.9, 0.1), 240)
    detector = Detector(ANNA_LEFT, again, likeness={200: NOBODY, 100: direction(0.8, 0.3)})
    alone = Cast((person(ANNA, LEFT, "Anna"),))
    redraw, patches = painting(100, 200, 200)
    made = refine(planned(detector, alone, which="unlike", mend=True, tries=3), redraw)
    assert [patch.person for patch in patches] == [None, None]
    assert made.report().splitlines() == [
        "1 Anna: 1.00, left as it was",
        "1 Anna: was there once more, sampled again (seed 1)",
        "face 1: nobody of the cast",
    ]
    named = refine(planned(detector, alone, which="unlike"), redraw)
    assert named.report().splitlines()[1] == "1 Anna: is there once more, as face 1" and not named.outcomes


def test_nothing_to_do_leaves_the_picture_and_looks_once():
    detector = Detector(ANNA_LEFT, found(BEN, 240))
    made = refine(planned(detector, which="unlike"), lambda patch: pytest.fail("nothing is sampled"))
    assert made.picture is made.plan.picture and detector.looked == 1
    assert made.report() == "1 Anna: 1.00, left as it was\n2 Ben: 1.00, left as it was" and made.worst == pytest.approx(
        1
    )


def test_a_mask_as_region_is_mended_where_it_is():
    mask = torch.zeros(1, 50, 150)
    mask[:, 10:40, 100:140] = 1
    cast = Cast((person(ANNA, Region(mask=mask), "Anna"),))
    (job,) = planned(Detector(), cast, mend=True).jobs
    assert np.allclose(job.box, (200, 20, 280, 80), atol=5)
    nowhere = torch.cat((mask, torch.zeros_like(mask)))  # in the second picture of a batch
    cast, detector = Cast((person(ANNA, Region(mask=nowhere), "Anna"),)), Detector()
    assert plan(picture(), cast, detector, RefineOptions(mend=True), frame=1).jobs == ()
