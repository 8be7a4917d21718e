"""Every number of an evaluation against a computation by hand, and what must hold for any numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dynamicid_core.evaluation import metrics
from dynamicid_core.evaluation.definitions import KEYS, METRICS
from dynamicid_core.evaluation.results import PictureResult, RecogniserResult, Run, read_run
from dynamicid_core.evaluation.statistics import as_json, bootstrap, summarise
from dynamicid_core.evaluation.tables import comma_separated, latex, markdown
from dynamicid_core.types import DynamicIDError

COSINE = st.floats(-1, 1, width=32)
FEW = st.integers(1, 4)


def matrices(people=FEW, faces=st.integers(0, 4)):
    return st.tuples(people, faces).flatmap(lambda shape: arrays(np.float64, shape, elements=COSINE))


def naive_best(similarity: np.ndarray) -> float:
    """The largest sum over all ways to give each face to one person at most."""
    people, faces = similarity.shape
    places = [*range(faces), *[None] * people]
    ways = set(itertools.permutations(places, people))
    return max(sum(0 if face is None else similarity[p, face] for p, face in enumerate(way)) for way in ways)


# --- By hand ------------------------------------------------------------------------------------------------------


def test_matching_is_that_of_the_largest_sum_not_of_the_largest_values():
    similarity = np.array([[0.9, 0.8], [0.85, 0.1]])
    assert metrics.match(similarity) == [1, 0]
    assert metrics.matched_similarity(similarity) == pytest.approx((0.8 + 0.85) / 2)


def test_missing_people_count_zero():
    similarity = np.array([[0.2], [0.8], [0.4]])
    assert metrics.match(similarity) == [None, 0, None]
    assert metrics.matched_similarity(similarity) == pytest.approx(0.8 / 3)
    assert metrics.matched_similarity(np.zeros((2, 0))) == 0
    with pytest.raises(DynamicIDError, match="Nobody was asked for"):
        metrics.matched_similarity(np.zeros((0, 2)))


def test_count_is_exact():
    assert [metrics.count_accuracy(2, found) for found in (1, 2, 3)] == [0, 1, 0]


def test_blending_is_the_mean_off_the_diagonal():
    similarity = np.array([[0.9, 0.2, 0.7], [0.1, 0.8, 0.5], [0.3, 0.0, 0.6]])
    assert metrics.blending(similarity, [0, 1, 2]) == pytest.approx((0.2 + 0.7 + 0.1 + 0.5 + 0.3 + 0.0) / 6)
    # who is missing lends no face, but others may have taken theirs
    assert metrics.blending(similarity[:2], [0, None]) == pytest.approx(0.1)
    assert math.isnan(metrics.blending(similarity[:1], [0]))


def test_id_confidence_as_in_umo():
    similarity = np.array([[0.8, 0.2, 0.4], [0.1, 0.6, -0.2], [-0.1, -0.3, -0.2]])
    assert metrics.id_confidence(similarity) == pytest.approx(((0.8 - 0.4) / 0.8 + (0.6 - 0.1) / 0.6 + 0) / 3)
    assert metrics.id_confidence(np.array([[0.5, -0.5]])) == 1  # never more
    assert metrics.id_confidence(np.array([[0.5], [0.4]])) == 0
    assert math.isnan(metrics.id_confidence(np.array([[0.5]])))


def test_copy_paste_between_reference_and_truth():
    # in a plane: reference at 0 degrees, ground truth at 60
    ways = np.radians([0, 60, 30, -30, 45])
    made = metrics.copy_paste(np.cos(ways - np.radians(60)), np.cos(ways), np.full(5, np.cos(np.radians(60))))
    np.testing.assert_allclose(made, [1, -1, 0, 1, (15 - 45) / 60], atol=1e-6)
    assert metrics.copy_paste(np.zeros(1), np.zeros(1), np.full(1, 0.5)) == 0  # missing
    assert np.isnan(metrics.copy_paste(np.ones(1), np.ones(1), np.ones(1)))  # one photo twice


def test_place_needs_the_right_box():
    centers = np.array([[0.2, 0.5], [0.8, 0.5]])
    left, right = (0, 0, 0.5, 1), (0.5, 0, 1, 1)
    assert metrics.place_accuracy([0, 1], centers, [left, right]) == 1
    assert metrics.place_accuracy([1, 0], centers, [left, right]) == 0
    assert metrics.place_accuracy([0, None], centers, [left, right]) == 0.5
    assert metrics.place_accuracy([0, 1], centers, [left, None]) == 1
    assert math.isnan(metrics.place_accuracy([0], centers, [None]))


def test_nearest_and_agreement():
    similarity = np.array([[0.1, 0.9], [0.5, 0.2], [0.4, 0.3]])
    assert metrics.nearest(similarity, ["a", "b", "c"]) == ["b", "a"]
    assert metrics.nearest(np.zeros((3, 0)), ["a", "b", "c"]) == []
    assert metrics.agreement(["happy", "sad", None, "fear"], ["happy", None, "sad", "anger"]) == pytest.approx(1 / 3)
    assert math.isnan(metrics.agreement([None], ["happy"]))


def test_change_outside_counts_only_pixels_without_people():
    picture, baseline = np.full((4, 6, 3), 100, np.uint8), np.full((4, 6, 3), 100, np.uint8)
    picture[:, :2] = 255  # inside
    picture[0, 5] = 151  # outside, by 51 = 0.2
    people = metrics.inside_boxes(4, 6, [(-3, -1, 1.5, 9), (2, 3, 2, 3)])
    assert people.sum() == 8
    assert metrics.outside_change(picture, baseline, people) == pytest.approx(0.2 / 16)
    assert math.isnan(metrics.outside_change(picture, baseline, np.ones((4, 6), bool)))
    with pytest.raises(DynamicIDError, match="6x4 px and its baseline 5x4"):
        metrics.outside_change(picture, baseline[:, :5], people)
    assert metrics.grown((10, 10, 20, 30), 2) == (5, 0, 25, 40)


# --- For any numbers ----------------------------------------------------------------------------------------------


@given(matrices())
def test_matching_is_optimal_and_gives_a_face_once(similarity):
    matching = metrics.match(similarity)
    faces = [face for face in matching if face is not None]
    assert len(set(faces)) == len(faces) == min(similarity.shape)
    found = metrics.matched_similarity(similarity) * len(similarity)
    if similarity.min(initial=1) >= 0:  # else a worse sum is taken rather than nobody
        assert found == pytest.approx(naive_best(similarity))
    assert -1 <= metrics.matched_similarity(similarity) <= 1


@given(matrices(), st.randoms(use_true_random=False))
def test_numbers_do_not_depend_on_the_order_of_people_and_faces(similarity, random):
    people, faces = (random.sample(range(n), n) for n in similarity.shape)
    turned = similarity[people][:, faces]
    assert metrics.matched_similarity(turned) == pytest.approx(metrics.matched_similarity(similarity))
    for one, other in ((metrics.id_confidence(turned), metrics.id_confidence(similarity)),):
        assert one == pytest.approx(other, nan_ok=True) and (math.isnan(one) or 0 <= one <= 1)


@given(arrays(np.float64, (3, 3), elements=COSINE))
def test_copy_paste_is_bounded_and_turns_its_sign(values):
    made = metrics.copy_paste(*values)
    other = metrics.copy_paste(values[1], values[0], values[2])
    known = ~np.isnan(made)
    assert (np.abs(made[known]) <= 1).all()
    np.testing.assert_allclose(made[known], -other[known])


@settings(deadline=None)
@given(arrays(np.float64, st.integers(2, 30), elements=st.floats(-1, 1)))
def test_intervals_hold_the_mean_and_repeat(values):
    made = bootstrap(values, resamples=200)
    assert made == bootstrap(list(values), resamples=200)
    assert values.min() - 1e-9 <= made.low <= made.high <= values.max() + 1e-9
    assert made.mean == pytest.approx(values.mean()) and made.pictures == len(values)


def test_bootstrap_agrees_with_scipy(monkeypatch):
    from scipy.stats import bootstrap as reference

    values = np.random.default_rng(3).normal(0.6, 0.2, 80)
    wanted = reference((values,), np.mean, method="percentile", n_resamples=4000, rng=1).confidence_interval
    made = bootstrap(values, resamples=4000)
    assert (made.low, made.high) == pytest.approx((wanted.low, wanted.high), abs=0.004)
    monkeypatch.setattr("dynamicid_core.evaluation.statistics.AT_ONCE", 1000)  # in many portions
    assert bootstrap(values, resamples=4000) == made
    assert math.isnan(bootstrap([0.5]).low)
    with pytest.raises(DynamicIDError):
        bootstrap([])


# --- Tables -------------------------------------------------------------------------------------------------------


def picture(name: str, asked: int, matched: float | None, **values) -> PictureResult:
    return PictureResult(name, f"{name}.png", asked, "", values, {"r_1": RecogniserResult({"matched": matched}, ())})


def run_of(name: str, *pictures: PictureResult) -> Run:
    return Run(name, ("r_1",), 0, pictures)


def test_groups_by_number_of_people_and_nothing_unmeasured():
    table = summarise(run_of("a", picture("x", 1, 0.4), picture("y", 2, 0.8), picture("z", 2, None, clip_t=0.3)))
    assert table.groups == ["all", "1 person", "2 people"]
    means = {(line.group, line.metric.key): line.estimates[0].mean for line in table.lines}
    assert means == {
        ("all", "matched"): pytest.approx(0.6),
        ("1 person", "matched"): 0.4,
        ("2 people", "matched"): 0.8,
        ("all", "clip_t"): 0.3,
        ("2 people", "clip_t"): 0.3,
    }
    assert summarise(run_of("a", picture("x", 2, 0.4), picture("y", 2, 0.8))).groups == ["all"]


def test_differences_are_paired_by_name():
    first = run_of("a", *(picture(f"p{i}", 1, 0.1 * i) for i in range(6)))
    second = run_of("b", *(picture(f"p{i}", 1, 0.1 * i + 0.2) for i in range(2, 9)))
    (line,) = summarise(first, second).lines
    (difference,) = line.differences
    assert (difference.mean, difference.low, difference.high) == pytest.approx((0.2, 0.2, 0.2))
    assert difference.pictures == 4 and [e.pictures for e in line.estimates] == [6, 7]
    # what varies much from picture to picture hides nothing of a difference that is always the same
    assert line.estimates[0].high - line.estimates[0].low > 0.2


def test_tables_in_three_formats():
    table = summarise(run_of("my run", picture("x", 1, 0.25, expression=1.0), picture("y", 1, 0.75, expression=0.0)))
    text = markdown(table)
    assert "| Matched similarity \u2191   | r_1        | 0.50 [0.25, 0.75] |" in text
    assert "| 50% [0, 100]      |" in text and "\u2191" not in markdown(table, arrows=False)
    rows = comma_separated(table).splitlines()
    assert rows[0] == "run,group,metric,label,recogniser,mean,low,high,pictures"
    assert rows[1] == "my run,all,matched,Matched similarity,r_1,0.5,0.25,0.75,2"
    tex = latex(table)
    assert r"Matched similarity $\uparrow$ & r\_1 & 0.50 {\scriptsize[0.25, 0.75]} \\" in tex
    assert r"50\% {\scriptsize[0, 100]}" in tex and tex.count("{tabular}") == 2
    assert as_json(table)[0]["low"] == 0.25


def test_comparison_in_tables():
    runs = [
        run_of(name, *(picture(f"p{i}", 1 + i % 2, 0.1 * i + 0.1 * k) for i in range(4))) for k, name in enumerate("ab")
    ]
    text = markdown(summarise(*runs))
    assert [line for line in text.splitlines() if line.startswith("#")] == ["### all", "### 1 person", "### 2 people"]
    assert "b - a" in text and "+0.10 [+0.10, +0.10]" in text
    assert ",b - a," not in comma_separated(summarise(*runs)) and "b - a,all" in comma_separated(summarise(*runs))
    same = summarise(runs[0], runs[0])
    assert same.runs == ("a (1)", "a (2)") and "-0.00" not in markdown(same)


def test_results_come_back_as_they_were(tmp_path):
    run = run_of("a", picture("x", 1, 0.25, clip_t=0.3), picture("y", 1, None))
    run.write(tmp_path)
    assert read_run(tmp_path) == run
    (tmp_path / "results.json").write_text('{"version": 1}')
    with pytest.raises(DynamicIDError, match="holds no results"):
        read_run(tmp_path)
    with pytest.raises(DynamicIDError, match="evaluate these pictures first"):
        read_run(tmp_path / "nothing")


def test_definitions_name_each_number_once():
    assert len(set(KEYS)) == len(KEYS) == len({metric.label for metric in METRICS})
