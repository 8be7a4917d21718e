"""Places found by themselves, in the host: what a run remembers ends with it, however the host splits its calls."""

from __future__ import annotations

import pytest
import torch
from studio import SMOOTH, Studio, compiled, difference

FINDING = {"placement": "automatic", "find_until": 0.3, **SMOOTH}
STEPS = 4


@pytest.fixture
def unplaced(studio: Studio):
    return studio.types.Cast(tuple(studio.types.Person(studio.face(number)) for number in range(2)))


def everywhere(entry) -> bool:
    """Whether both people are visible at all cells."""
    return bool((entry["bias"][..., :8] == 0).all())


def test_a_run_looks_for_places_and_keeps_them(studio: Studio, unplaced) -> None:
    model = studio.apply(cast=unplaced, **FINDING)
    with studio.watch(model) as seen:
        found = studio.sample(model, size=(8, 12), steps=STEPS, batch=2)
    assert [everywhere(entry) for entry in seen.first_layers()] == [True, False, False, False]
    last = seen.first_layers()[-1]["bias"]
    assert len(last) == 4 and not torch.equal(last[0], last[1])  # each picture of the batch has places of its own
    assert torch.equal(last[:2], last[2:])  # and both sides of the guidance the same
    assert (
        difference(studio.sample(studio.apply(cast=unplaced, **SMOOTH), size=(8, 12), steps=STEPS, batch=2), found)
        > 0.01
    )


def test_runs_do_not_mix_and_give_the_same_bits_again(studio: Studio, unplaced) -> None:
    model = studio.apply(cast=unplaced, **FINDING)
    first = studio.sample(model, size=(8, 8), steps=STEPS)
    other = studio.encode("somebody at the left")
    studio.sample(model, size=(8, 8), steps=STEPS, positive=other)
    studio.sample(model.clone(), size=(6, 10), steps=2)
    assert torch.equal(studio.sample(model, size=(8, 8), steps=STEPS), first)


def test_the_places_do_not_depend_on_how_the_host_calls_the_model(studio: Studio, unplaced) -> None:
    model = studio.apply(cast=unplaced, **FINDING)
    together = studio.sample(model, size=(8, 8), steps=STEPS)
    with studio.one_conditioning_at_a_time():
        assert difference(studio.sample(model, size=(8, 8), steps=STEPS), together) < 1e-3
    assert difference(studio.sample(compiled(model), size=(8, 8), steps=STEPS), together) < 1e-3


def test_a_run_that_begins_late_and_a_sampler_that_calls_twice(studio: Studio, unplaced) -> None:
    model = studio.apply(cast=unplaced, **FINDING)
    for how in ({"denoise": 0.5}, {"sampler": "heun"}):
        with studio.watch(model) as seen:
            studio.sample(model, size=(8, 8), steps=STEPS, **how)
        looked = [everywhere(entry) for entry in seen.first_layers()]
        assert looked == sorted(looked, reverse=True) and {*looked} == {True, False}, how


def test_people_without_a_place_are_named_in_the_log(studio: Studio, unplaced, caplog) -> None:
    taken = studio.types.Region(box=(0.0, 0.0, 1.0, 1.0))
    cast = studio.types.Cast((studio.types.Person(studio.face(0), taken), unplaced.people[1]))
    studio.sample(studio.apply(cast=cast, **FINDING), size=(8, 8), steps=STEPS)
    assert caplog.text.count("No place was found for person 1:") == 1


def test_the_maps_come_with_the_places(studio: Studio, unplaced) -> None:
    recorder = studio.host.module("dynamicid_core.gate_maps").GateRecorder()
    options = studio.types.SAAOptions(**FINDING)
    model = studio.adapter.apply_faces(studio.model, studio.weights, unplaced, options, recorder)
    studio.sample(model, size=(8, 8), steps=STEPS)
    ((cast, maps),) = studio.adapter.gate_maps(model, 128, 128)
    assert any(person.region is not None for person in cast.people) and maps.shape == (1, 3, 128, 128)
