"""The pack of drawn faces that the project carries: it finds people, tells them apart and reads what their faces do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from dynamicid_core.datasets.expressions import ExpressionClassifier
from dynamicid_core.datasets.labels import pose_of
from dynamicid_core.detection import PACK_MODELS, InsightFaceDetector, find_pack, load_detector
from dynamicid_core.drawn.canvas import draw_picture
from dynamicid_core.drawn.carried import FACES, WEIGHTS
from dynamicid_core.drawn.face_batches import (
    ALIGNED,
    keypoints_of,
    landmark_crop,
    landmark_matrix,
    letterbox,
    similarity,
)
from dynamicid_core.drawn.face_lessons import LESSONS, SIZES, detector_targets
from dynamicid_core.drawn.face_networks import STRIDES
from dynamicid_core.drawn.face_packs import DRAWN, DRAWN_JUDGE, EXPRESSION_JUDGE, fill_packs
from dynamicid_core.drawn.face_pictures import Pictures, again_in, make_pictures, pool_in, write_pictures
from dynamicid_core.drawn.identity import identity_vector
from dynamicid_core.drawn.make import portrait, posed
from dynamicid_core.drawn.people import HELD_OUT, Motion, draw_identity
from dynamicid_core.drawn.scene import Background, Scene, draw_scene
from dynamicid_core.drawn.train_faces import carry_packs, train_network
from dynamicid_core.landmarks import EXPRESSIONS, read_expression
from dynamicid_core.types import DynamicIDError

PEOPLE = range(HELD_OUT, HELD_OUT + 6)


@pytest.fixture(scope="module")
def detector() -> InsightFaceDetector:
    return load_detector(str(WEIGHTS / FACES), provider="CPU")


@pytest.fixture(scope="module")
def pool() -> Pictures:
    return make_pictures(people=4, groups=2, empty=1)


def test_everybody_in_a_picture_is_found(detector: InsightFaceDetector) -> None:
    for people in (1, 2, 3, 4):
        drawn = draw_picture(draw_scene(77 + people, people, seeds=(HELD_OUT, HELD_OUT + 100)))
        found = detector.detect(drawn.picture)
        assert len(found) == people
        for box, points in zip(drawn.boxes, drawn.landmarks, strict=True):
            face = min(found, key=lambda face: float(np.abs(np.array(face.box) - box).max()))
            size = np.ptp(points, axis=0).max()
            assert np.abs(np.array(face.box) - box).max() < 0.2 * size
            assert np.abs(face.keypoints - keypoints_of(points)).mean() < 0.06 * size
            assert np.linalg.norm(face.landmarks - points, axis=1).mean() < 0.05 * size


def test_nobody_is_found_where_nobody_is(detector: InsightFaceDetector) -> None:
    for thing in ("balloon", "lamp"):
        assert not detector.detect(draw_picture(Scene((), Background("stripes", "orange", thing))).picture)


def test_large_pictures_show_the_same_face(detector: InsightFaceDetector) -> None:
    small, large = (detector.detect(portrait(HELD_OUT, Motion(), size)) for size in (128, 512))
    np.testing.assert_allclose(np.array(large[0].box) / 4, small[0].box, atol=4)
    assert small[0].identity @ large[0].identity > 0.8


def test_people_are_told_apart(detector: InsightFaceDetector) -> None:
    def identity(seed: int, expression: str, pose: str) -> np.ndarray:
        (face,) = detector.detect(portrait(seed, posed(expression, pose), 128))
        return face.identity

    known = np.stack([identity(seed, "neutral", "front view") for seed in PEOPLE])
    for seed in PEOPLE:
        alike = known @ identity(seed, "happy", "slightly turned to the left")
        assert alike.argmax() == seed - HELD_OUT and alike.max() > 0.6
        assert known[seed - HELD_OUT] @ identity_vector(draw_identity(seed)) > 0.6
    assert detector.recogniser == "drawn"


def test_pose_and_expression_are_read(detector: InsightFaceDetector) -> None:
    motions = [Motion(name, yaw=yaw) for name, yaw in zip(EXPRESSIONS, (-68, -30, 0, 30, 68, 4, -4), strict=True)]
    right = 0
    for number, motion in enumerate(motions):
        (face,) = detector.detect(portrait(HELD_OUT + 20 + number, motion, 128))
        assert face.pose is not None and pose_of(face.pose[1]) == motion.pose
        right += read_expression(face.landmarks) == motion.expression
    assert right >= 6


def test_the_judge_sees_the_same_people_apart(tmp_path: Path) -> None:
    fill_packs(tmp_path)
    roots = [tmp_path / "insightface"]
    assert find_pack(DRAWN, roots).keys() == find_pack(DRAWN_JUDGE, roots).keys() == PACK_MODELS.keys()
    judge = load_detector(DRAWN_JUDGE, roots, "CPU", identity_channels="bgr")
    assert judge.recogniser == "drawn_judge (bgr)"
    known = np.stack([judge.detect(portrait(seed, Motion(), 128))[0].identity for seed in PEOPLE])
    classifier = ExpressionClassifier(roots[0] / "models" / DRAWN_JUDGE / EXPRESSION_JUDGE)
    right = 0
    for seed, expression in zip(PEOPLE, EXPRESSIONS, strict=False):
        picture = portrait(seed, Motion(expression), 128)
        (face,) = judge.detect(picture)
        assert (known @ face.identity).argmax() == seed - HELD_OUT
        assert face.pose is not None and abs(face.pose[1]) < 15
        right += classifier.classify(picture, face)[0] == expression
    assert right >= 5


# --- What networks are taught ---------------------------------------------------------------------------------------


def test_alignment_is_the_nearest_similarity() -> None:
    turn = np.deg2rad(20)
    matrix = 1.7 * np.array(((np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))))
    points = (ALIGNED - (3, 4)) @ np.linalg.inv(matrix).T
    found = similarity(points, ALIGNED)
    np.testing.assert_allclose(found, np.concatenate((matrix, [[3], [4]]), 1), atol=1e-3)


def test_a_landmark_crop_shows_one_and_a_half_boxes() -> None:
    matrix = landmark_matrix(np.array((10.0, 20, 50, 80)), 96)
    np.testing.assert_allclose(matrix @ (30, 50, 1), (48, 48))
    np.testing.assert_allclose(matrix @ (30, 80, 1), (48, 80))


def test_targets_say_where_a_face_is() -> None:
    box, points = np.array([[200.0, 120, 340, 300]]), np.arange(10.0).reshape(1, 5, 2) + 200
    for stride, sizes in zip(STRIDES, SIZES, strict=True):
        target = detector_targets(box, points, stride, sizes)
        rows, columns = np.nonzero(target[0] == 1)
        assert len(rows)
        for y, x in zip(rows, columns, strict=True):
            at = np.array((x, y)) * stride
            sides = np.tile(at, 2) + target[1:5, y, x] * stride * (-1, -1, 1, 1)
            np.testing.assert_allclose(sides, box[0], rtol=1e-5)
            np.testing.assert_allclose(target[5:15, y, x].reshape(5, 2) * stride + at, points[0], rtol=1e-5)
    assert not detector_targets(box, points, 16, (0, 50)).any()


def test_pictures_are_kept(pool: Pictures, tmp_path: Path) -> None:
    write_pictures(pool, tmp_path)
    read = pool_in(tmp_path)
    for one, other in zip(pool.pictures, read.pictures, strict=True):
        np.testing.assert_array_equal(one, other)
    for field in dataclasses.fields(pool.faces):
        np.testing.assert_array_equal(getattr(pool.faces, field.name), getattr(read.faces, field.name))

    class Dark:
        def to(self, **_: object) -> Dark:
            return self

        def encode(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels

        def decode(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels * 0

    again_in(tmp_path, read, Dark())
    worn = [picture for picture in read.again if picture is not None]
    assert worn and not any(picture.any() for picture in worn)


def test_crops_and_labels_belong_together(pool: Pictures) -> None:
    """A face cut out twice has its points on the same features, whatever the jitter."""
    rng = np.random.default_rng(0)
    for index in range(len(pool.pictures)):
        crop, boxes, points = letterbox(pool, rng, index, 160)
        assert crop.shape == (160, 160, 3) and len(boxes) == len(pool.in_picture[index])
        assert (boxes[:, :2] > -1).all() and (boxes[:, 2:] < 161).all()
        assert ((points >= boxes[:, None, :2]) & (points <= boxes[:, None, 2:])).all()
    crop, points = landmark_crop(pool, rng, 0, 96, 2)
    assert crop.shape == (96, 96, 3) and abs(points).max() < 0.95


def test_every_network_learns_goes_on_and_becomes_a_file(pool: Pictures, tmp_path: Path) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    for number, (name, lesson) in enumerate(LESSONS.items()):
        for steps in (1, 2):
            short = dataclasses.replace(lesson, steps=steps, size=4)
            train_network(tmp_path / name, short, number, pool, accelerator)
    files = {path.name: path for path in carry_packs(tmp_path, tmp_path / "packs")}
    assert len(files) == 8
    assert not load_detector(str(tmp_path / "packs" / FACES), provider="CPU").detect(pool.pictures[0])
    with pytest.raises(DynamicIDError, match="no training of faces"):
        carry_packs(tmp_path / "nowhere", tmp_path)
