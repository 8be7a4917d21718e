"""The 106 points: fractions, the raster that a network sees, expressions read off them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from coded_faces import SHAPES
from standins.face_shape import face_shape

from dynamicid_core import landmarks
from dynamicid_core.types import DynamicIDError


def placed(shape: np.ndarray, size: float = 100, roll: float = 0, at=(300, 200)) -> np.ndarray:
    angle = np.deg2rad(roll)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return shape @ turn.T * size + at


@pytest.mark.parametrize("expression", SHAPES)
@pytest.mark.parametrize("size, roll, at", [(100, 0, (300, 200)), (0.2, 30, (0.5, 0.5)), (700, -50, (-90, 4000))])
def test_expressions_are_read_at_any_size_place_and_roll(expression, size, roll, at):
    points = placed(face_shape(**SHAPES[expression]), size, roll, at)
    assert landmarks.read_expression(points) == expression
    assert landmarks.read_expression(torch.from_numpy(points)) == expression
    assert expression in landmarks.EXPRESSIONS


@pytest.mark.parametrize("amounts", [{"smile": 0.015}, {"gap": 0.1}, {"raise": 0.04}, {"slope": 0.02}, {"yaw": 0.15}])
def test_what_is_unclear_is_neutral(amounts):
    assert landmarks.read_expression(placed(face_shape(**amounts))) == "neutral"


def test_a_laugh_with_an_open_mouth_is_happy_and_half_of_most_expressions_is_not_another():
    assert landmarks.read_expression(placed(face_shape(smile=0.1, gap=0.15))) == "happy"
    for expression, amounts in SHAPES.items():
        half = {name: amount / 2 for name, amount in amounts.items()}
        assert landmarks.read_expression(placed(face_shape(**half))) in (expression, "neutral")


def test_measures_are_what_they_are_named():
    neutral = landmarks.expression_measures(placed(face_shape()))
    moves = {"corners": ("smile", 0.05), "width": ("smile", 0.05), "gap": ("gap", 0.2), "lip": ("lip", -0.05)}
    moves |= {"raise": ("raise", 0.05), "slope": ("slope", 0.05), "lids": ("lids", 0.02)}
    for measure, (mode, amount) in moves.items():
        moved = landmarks.expression_measures(placed(face_shape(**{mode: amount}), roll=20))
        assert moved[measure] > neutral[measure] + 0.03, measure
    opened = landmarks.expression_measures(placed(face_shape(gap=0.3)))
    assert opened["corners"] == pytest.approx(neutral["corners"])  # a dropping jaw is no smile


def test_unusable_landmarks_are_refused_and_profiles_are_not():
    with pytest.raises(DynamicIDError, match="not usable"):
        landmarks.read_expression(np.zeros((106, 2)))
    with pytest.raises(DynamicIDError, match="not usable"):
        landmarks.read_expression(np.full((106, 2), np.nan))
    profile = face_shape() * (0.05, 1)
    assert landmarks.read_expression(placed(profile)) in landmarks.EXPRESSIONS


def test_landmarks_are_fractions_of_what_is_encoded():
    points = np.array([[80.0, 60], [160, 140], [120, 80], [70, 60]])
    fractions = landmarks.landmark_fractions(points, (80, 60, 160, 140))
    assert fractions.dtype == np.float32
    assert fractions.tolist() == [[0, 0], [1, 1], [0.5, 0.25], [-0.125, 0]]


def test_the_raster_follows_the_published_rule():
    pixels = np.array(
        [[0.0, 5], [5, 0], [0.001, 5.99], [95.99, 95.99], [96, 5], [5, 96], [-1, 5], [40.7, 20.2]], np.float32
    )
    points = np.concatenate([pixels, np.full((98, 2), -1, np.float32)])
    raster = landmarks.landmark_raster(points / 96)
    assert raster.shape == (1, 1, 96, 96) and raster.dtype == torch.float32
    assert set(raster.unique().tolist()) == {-1.0, 1.0}
    assert (raster[0, 0] == 1).nonzero().tolist() == [[5, 0], [20, 40], [95, 95]]


def test_the_raster_of_many_faces_is_each_ones_own():
    shapes = np.stack([face_shape(gap=gap) for gap in (0, 0.1, 0.3)]) / 4 + 0.5
    raster = landmarks.landmark_raster(torch.from_numpy(shapes))
    assert raster.shape == (3, 1, 96, 96)
    for i in range(3):
        alone = np.full((96, 96), -1.0)
        for x, y in shapes[i].astype(np.float32) * np.float32(96):
            alone[int(y), int(x)] = 1
        assert np.array_equal(raster[i, 0].numpy(), alone)
