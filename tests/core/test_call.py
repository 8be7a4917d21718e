"""One call of the model: what rows see, what acts when, regions on each grid; and that all of it is remembered rightly."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from dynamicid_core.attention import acting_terms, add_faces, gate_terms, score_bias, site_faces
from dynamicid_core.bases import TransformerBlock, UNetLayout
from dynamicid_core.call import FACE_ROLE, NULL_ROLE, AppliedCast, Memory, Row, faces_of_rows, prepare_call
from dynamicid_core.gate_maps import GateRecorder
from dynamicid_core.networks.saa import SAAModule, SiteSizes
from dynamicid_core.regions import region_weights
from dynamicid_core.types import Cast, DynamicIDError, Face, Person, Region, SAAOptions
from dynamicid_core.views import View

WIDTHS, TEXT, HEADS = (8, 16), 12, 2
LATENT = (5, 6)  # halved twice: 3 x 3, then 2 x 2
GUIDED = (Row(NULL_ROLE, 0), Row(FACE_ROLE, 0))


@dataclass(frozen=True)
class Falling:
    """Noise levels that are the fraction of the schedule that lies ahead."""

    def level(self, fraction: float) -> float:
        return 1 - fraction

    def passed(self, levels: Tensor) -> Tensor:
        return 1 - levels


def make_layout(levels: int = 3) -> UNetLayout:
    blocks = tuple(TransformerBlock(f"block{i}", "input", i, 0, 2 * i) for i in range(len(WIDTHS)))
    return UNetLayout(blocks, WIDTHS, (TEXT,) * 2, (HEADS,) * 2, levels)


@pytest.fixture(scope="module")
def saa() -> SAAModule:
    torch.manual_seed(0)
    return SAAModule(tuple(SiteSizes(width, 2, context) for width in WIDTHS for context in (None, TEXT)))


def make_face(seed: int, width: int = TEXT) -> Face:
    tokens = torch.randn(2, 1, 4, width, generator=torch.Generator().manual_seed(seed))
    return Face(tokens[0], tokens[1], "test")


def pair(**regions) -> Cast:
    left, right = Region(box=(0, 0, 1, 0.5)), Region(box=(0, 0.5, 1, 1))
    return Cast((Person(make_face(1), regions.get("one", left)), Person(make_face(2), regions.get("two", right), 0.5)))


def apply(saa, cast=None, recorder=None, **options) -> AppliedCast:
    return AppliedCast.of(cast or pair(), SAAOptions(**options), make_layout(), saa, recorder)


def prepare(applied, rows=GUIDED, level=1.0, memory=None, dtype=torch.float32, recorded=None):
    levels = torch.as_tensor(level).expand(len(rows))
    like = torch.empty(0, dtype=dtype)
    return prepare_call(applied, rows, LATENT, levels, Falling(), like, memory or Memory(), recorded)


def seen_by(applied, rows=GUIDED, memory=None):
    return faces_of_rows(applied, rows, torch.empty(0), memory or Memory())


# --- places that are found ----------------------------------------------------------------------------------------


def finding(saa, cast=None, recorder=None, warn=lambda text: None, **options) -> AppliedCast:
    acting = SAAOptions(placement="automatic", **{"find_until": 0.5, "gate_threshold": 0.0, **options})
    return AppliedCast.of(cast or unplaced(), acting, make_layout(), saa, recorder, warn)


def unplaced(*regions) -> Cast:
    regions = regions or (None, None)
    return Cast(tuple(Person(make_face(i + 1), region) for i, region in enumerate(regions)))


def run(applied, levels, memory, rows=GUIDED, seed=0):
    """The calls of a run in whose first site queries at the left and the right edge look for faces, at a height that the seed
    decides."""
    calls = []
    for level in levels:
        calls.append(prepare(applied, rows, level, memory))
        look(calls[-1], applied, seed)
    return calls


def look(call, applied, seed=0):
    faces = seen_by(applied, call.rows)[0]
    some = torch.Generator().manual_seed(seed)
    spots = torch.zeros(*LATENT)
    spots[seed % 2 * 3, 0] = spots[1 + seed % 2 * 3, 5] = 20
    q = torch.randn(1, 30, WIDTHS[0], generator=some) * 0.1 + spots.reshape(1, -1, 1) * faces.probe.transpose(1, 2)
    call.add_faces(torch.zeros_like(q), q, faces, *LATENT)


def test_people_may_be_anywhere_until_their_places_are_found_which_hold_for_the_run(saa):
    applied, memory = finding(saa, layout_end=0.3, layout_strength=2.0), Memory()
    looking, held, later, again = run(applied, (1.0, 0.4, 0.1, 0.9), memory)
    assert (looking.grids[LATENT].bias[..., :8] == 0).all()  # both are visible everywhere
    assert looking.finder is not None and (looking.grids[LATENT].gate[:, 1] == 0).all()
    found = held.applied.cast.people
    assert held.finder is None and all(person.region is not None for person in found)
    assert later.applied is held.applied is again.applied  # also where the noise rises once more
    # Pushed as long as with regions, from then on: 0.5 of the run and 0.3 of the schedule behind.
    assert held.boost.tolist() == [1, 1] and later.boost.tolist() == [0, 0]
    own = region_weights(held.applied.cast, *LATENT)
    torch.testing.assert_close(held.grids[LATENT].bias, score_bias(own.visible, [4, 4]))


def test_two_runs_find_by_themselves_and_a_run_finds_the_same_again(saa):
    applied = finding(saa)
    places = [run(applied, (1.0, 0.3), Memory(), seed=seed)[1].applied.cast.people for seed in (0, 1, 0)]
    first, other, again = ([person.region.mask for person in people] for people in places)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_sides_of_guidance_apart_and_rows_repeated_find_the_same(saa):
    null, face = GUIDED
    together = run(finding(saa), (1.0, 0.3), Memory())[1].applied.cast.people
    applied, memory = finding(saa), Memory()
    for rows in ((null,), (face,), (face, face)):
        look(prepare(applied, rows, 1.0, memory), applied)
    apart = prepare(applied, (null,), 0.3, memory).applied.cast.people
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a.region.mask, b.region.mask)


def test_a_run_that_begins_late_looks_in_its_own_first_part(saa):
    applied, memory = finding(saa), Memory()
    first, still, then = run(applied, (0.4, 0.3, 0.15), memory)  # half of 0.4 is 0.2
    assert first.finder is still.finder is not None and then.finder is None


def test_given_regions_act_from_the_beginning_and_stay(saa):
    box = Region(box=(0, 0, 1, 0.5))
    first, then = run(finding(saa, unplaced(box, None)), (1.0, 0.3), Memory())
    assert first.finder is not None and (first.grids[LATENT].gate[0, 1].unflatten(0, LATENT)[:, :3] > 0).all()
    assert then.applied.cast.people[0].region is box and then.applied.cast.people[1].region is not None
    placed = finding(saa, unplaced(box, Region(box=(0, 0.5, 1, 1))))
    assert run(placed, (1.0,), Memory())[0].finder is None


def test_who_has_no_place_is_named_and_strips_serve_where_there_is_none(saa):
    said, full = [], Region(box=(0, 0, 1, 1))
    run(finding(saa, unplaced(full, None), warn=said.append), (1.0, 0.3, 0.2), Memory())
    assert len(said) == 1 and "person 2" in said[0]
    applied, memory = finding(saa, warn=said.append), Memory()
    call, q = prepare(applied, GUIDED, 1.0, memory), torch.ones(2, 30, WIDTHS[0])  # nothing stands out: one hill
    call.add_faces(torch.zeros_like(q), q, seen_by(applied)[0], *LATENT)
    held = prepare(applied, GUIDED, 0.3, memory).applied.cast.people
    assert sum(person.region is None for person in held) == 1 and len(said) == 2


def test_found_places_are_shown(saa):
    recorder = GateRecorder()
    _, then = run(finding(saa, recorder=recorder), (1.0, 0.3), Memory())
    assert recorder.places is then.applied.cast
    recorder.clear()
    assert recorder.places is None


# --- rows ---------------------------------------------------------------------------------------------------------


def test_rows_see_null_tokens_or_faces_each_by_its_role(saa):
    applied = apply(saa)
    rows = (Row(FACE_ROLE, 0), Row(NULL_ROLE, 0), Row(FACE_ROLE, 1))
    call, faces = prepare(applied, rows), faces_of_rows(applied, rows, torch.empty(0), Memory())
    for site, packed in enumerate(applied.packed):
        for i, row in enumerate(rows):
            own = site_faces(packed[row.role][None], HEADS)
            assert all(torch.equal(a[i : i + 1], b) for a, b in zip(faces[site], own, strict=True))
    assert call.recorded == (0, 2)


def moving(seed: int, frames: int) -> Face:
    tokens = torch.randn(frames, 4, TEXT, generator=torch.Generator().manual_seed(seed))
    return Face(tokens, make_face(seed).uncond_tokens, "test")


def test_each_row_sees_its_frames_faces(saa):
    """As a cast of that frame alone would show them; the last frame stays, for each face its own."""
    cast = Cast((Person(moving(1, 3)), Person(make_face(2)), Person(moving(3, 2))))
    applied, memory = apply(saa, cast), Memory()
    rows = (Row(NULL_ROLE, 2), *(Row(FACE_ROLE, frame) for frame in (2, 0, 1, 5)))
    assert applied.looks(rows) == (0, 3, 1, 2, 3)
    faces = seen_by(applied, rows, memory)
    for i, row in enumerate(rows):
        alone = seen_by(apply(saa, cast.at(row.frame)), (Row(row.role, 0),))
        for film, still in zip(faces, alone, strict=True):
            assert all(torch.allclose(a[i : i + 1], b, atol=1e-6) for a, b in zip(film, still, strict=True))
    window = seen_by(applied, rows[2:4], memory)
    assert torch.equal(window[0].keys, faces[0].keys[2:4])


def test_of_faces_that_move_a_run_remembers_each_frame_once(saa):
    """However many windows of a long film there are."""
    applied, memory, converted = apply(saa, Cast((Person(moving(1, 30)),))), Memory(), []
    for first in range(0, 24, 2):
        rows = tuple(Row(FACE_ROLE, frame) for frame in range(first, first + 6))
        seen_by(applied, rows, memory)
        kept = [tensor for value in memory._values.values() if isinstance(value, tuple) for tensor in value]
        converted.append(sum(tensor.numel() for tensor in kept))
    assert set(converted) == {sum(packed.numel() for packed in applied.packed)}


@pytest.mark.parametrize(
    "level, boost, strength",
    [(1.0, 1, 0.0), (0.9, 1, 0.7), (0.6, 0, 0.7), (0.3, 0, 0.7), (0.29, 0, 0.0), (0.0, 0, 0.0)],
)
def test_what_acts_follows_from_the_noise_level(saa, level, boost, strength):
    call = prepare(apply(saa, start_at=0.1, end_at=0.7, layout_end=0.4, weight=0.7), level=level)
    assert call.boost.tolist() == [boost] * 2
    assert call.strength.tolist() == pytest.approx([strength] * 2)


def test_rows_of_one_call_may_be_at_different_noise_levels(saa):
    call = prepare(apply(saa, layout_end=0.5), level=torch.tensor([0.2, 0.8]))
    assert call.boost.tolist() == [0, 1]
    terms = call.grid(*LATENT, torch.empty(0)).gate
    alone = prepare(apply(saa, layout_end=0.5), level=0.8).grid(*LATENT, torch.empty(0)).gate
    assert torch.equal(terms[1], alone[1]) and not torch.equal(terms[0], alone[0])


def test_all_grids_of_the_unet_are_there_and_any_other_is_made(saa):
    call = prepare(apply(saa, layout_strength=1.5))
    assert list(call.grids) == [(5, 6), (3, 3), (2, 2)] and call.sizes == {30: (5, 6), 9: (3, 3), 4: (2, 2)}
    for height, width in [*call.grids, (4, 7)]:
        weights = region_weights(pair(), height, width)
        bias, terms = call.grid(height, width, torch.empty(0))
        assert torch.equal(bias, score_bias(weights.visible, [4, 4]))  # one row for all: they are alike
        expected = acting_terms(gate_terms(weights, 1.5), torch.ones(2), torch.ones(2))
        assert torch.equal(terms, expected)


def test_frames_and_views_give_each_row_its_own_regions(saa):
    moving = torch.zeros(2, 5, 6)
    moving[0, :, :3], moving[1, :, 3:] = 1, 1
    applied = apply(saa, pair(one=Region(mask=moving), two=Region(mask=moving.flip(0))))
    view = View(1, 3, 4, 3, LATENT)
    rows = (Row(FACE_ROLE, 0), Row(FACE_ROLE, 1), Row(FACE_ROLE, 2), Row(FACE_ROLE, 1, view))
    bias = prepare(applied, rows).grid(4, 3, torch.empty(0)).bias
    assert torch.equal(bias[0], bias[2]) and not torch.equal(bias[0], bias[1])
    part = region_weights(applied.cast, 4, 3, view=view, pictures=(0, 1))
    assert torch.equal(bias[3], score_bias(part.visible, [4, 4])[1])


def test_faces_are_added_as_the_functions_of_tensors_say(saa):
    applied = apply(saa, gate_threshold=0.2)
    call = prepare(applied)
    text, q = torch.randn(2, 2, 9, 16).unbind()
    weights, faces = region_weights(applied.cast, 3, 3), site_faces(applied.packed[1], HEADS)
    terms = acting_terms(gate_terms(weights, 2.0), torch.ones(2), torch.ones(2))
    expected, _ = add_faces(text, q, faces, score_bias(weights.visible, [4, 4]), terms, 0.2)
    torch.testing.assert_close(call.add_faces(text, q, faces, 3, 3), expected, atol=0, rtol=0)


def test_queries_of_another_dtype_than_expected_are_served_in_theirs(saa):
    """Autocast gives the attention half precision where the latent is in full."""
    applied = apply(saa)
    call, faces = prepare(applied), seen_by(applied)[1]
    text, q = torch.randn(2, 2, 9, 16, generator=torch.Generator().manual_seed(2)).unbind()
    half = call.add_faces(text.bfloat16(), q.bfloat16(), faces, 3, 3)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), call.add_faces(text, q, faces, 3, 3), atol=0.15, rtol=0.1)


def test_a_run_computes_what_does_not_change_once(saa):
    """The second call of a run gets the very same tensors; another size, dtype, order of rows or cast gets others."""
    applied, memory = apply(saa), Memory()
    first, second = (prepare(applied, memory=memory, level=level) for level in (1.0, 0.5))
    assert seen_by(applied, memory=memory) is seen_by(applied, memory=memory)
    assert all(first.grids[size].bias is second.grids[size].bias for size in first.grids)
    other = seen_by(applied, GUIDED[::-1], memory=memory)
    assert torch.equal(other[0].keys.flip(0), seen_by(applied, memory=memory)[0].keys)
    half = faces_of_rows(applied, GUIDED, torch.empty(0, dtype=torch.float16), memory)
    assert half[0].keys.dtype == torch.float16
    assert prepare(apply(saa, pair(one=None)), memory=memory).grids[LATENT].bias is not first.grids[LATENT].bias


def test_memory_makes_values_in_the_hosts_context():
    entered = []

    @contextmanager
    def making():
        entered.append(True)
        yield

    memory = Memory(making)
    assert [memory.get("a", lambda: 3), memory.get("a", lambda: 4), memory.get("b", lambda: 5)] == [3, 3, 5]
    assert len(entered) == 2


def test_a_recorder_sees_the_rows_that_show_people_at_their_moment(saa):
    recorder = GateRecorder()
    call = prepare(apply(saa, recorder=recorder), level=0.75)
    text, q = torch.randn(2, 2, 30, 8).unbind()
    with torch.no_grad():
        call.add_faces(text, q, seen_by(call.applied)[0], *LATENT)
    maps = recorder.maps(*LATENT)
    assert maps.shape == (1, 3, *LATENT)  # the null row is left out
    assert (maps[0, 0, :, 3:] == 0).all() and (maps[0, 1, :, :3] == 0).all()
    with pytest.raises(DynamicIDError, match="No step"):
        recorder.maps(*LATENT, end_at=0.2)
    recorder.clear()
    nobody = prepare(apply(saa, recorder=recorder), (Row(NULL_ROLE, 0),))
    nobody.add_faces(text[:1], q[:1], seen_by(nobody.applied, nobody.rows)[0], *LATENT)
    with pytest.raises(DynamicIDError, match="recorded"):
        recorder.maps(*LATENT)


def test_gradients_reach_the_weights_through_a_whole_call(saa):
    """Training calls the same functions: from the attention's output back to face keys, values and tokens."""
    face = make_face(1)
    tokens = face.tokens.clone().requires_grad_()
    cast = Cast((Person(Face(tokens, face.uncond_tokens, "test")),))
    applied, rows = apply(saa, cast), (Row(FACE_ROLE, 0),)
    text, q = torch.randn(2, 1, 9, 16).unbind()
    prepare(applied, rows).add_faces(text, q, seen_by(applied, rows)[1], 3, 3).square().sum().backward()
    site = saa.cross_sites[1]
    try:
        assert tokens.grad.abs().sum() > 0
        assert site.to_k_ip.weight.grad.abs().sum() > 0 and site.to_v_ip.weight.grad.abs().sum() > 0
    finally:
        saa.zero_grad()


def test_faces_that_do_not_fit_the_weights_are_refused(saa):
    with pytest.raises(DynamicIDError, match="width 10, but this DynamicID file needs 12"):
        apply(saa, Cast((Person(make_face(1, 10)),)))
    with pytest.raises(DynamicIDError, match="cast is empty"):
        apply(saa, Cast())
