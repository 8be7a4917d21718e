"""What the networks that see drawn faces are taught: what each sees, and how wrong its answer is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity, cross_entropy, normalize

from ..datasets.expressions import MEAN, STD
from .face_batches import aligned_crop, box_crop, landmark_crop, letterbox, network_input
from .face_networks import (
    ANGLE,
    DETECTOR_POOL,
    STRIDES,
    Detector,
    FacePoints,
    FaceRecogniser,
    JudgeExpression,
    JudgeRecogniser,
)
from .face_pictures import Pictures
from .identity import identity_vector
from .people import draw_identity

DETECTOR_SIDE = 640 // DETECTOR_POOL
# Faces that each stride finds, by the side of a square as large as their box, in pixels of the file's input.
SIZES = ((0, 224), (150, 10_000))
NOBODY = 0.12  # share of pictures without people: what looks like a face there is rare
Loss = Callable[[Any, dict[str, Tensor]], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class Lesson:
    """How one network is trained: ``batch(pool, rng, size)`` makes tensors, "input" among them."""

    network: Callable[[], nn.Module]
    batch: Callable[[Pictures, np.random.Generator, int], dict[str, Tensor]]
    loss: Loss
    size: int
    steps: int
    rate: float = 3e-3
    ends: tuple[str, ...] = ()  # trained by Adam (optimizer.muon_for)


# --- Detector -----------------------------------------------------------------------------------------------------


def detector_targets(boxes: np.ndarray, points: np.ndarray, stride: int, sizes: tuple[int, int]) -> np.ndarray:
    """What one stride shall say of faces: float32 [16, n, n]: 1 face, 0 none, -1 either; box 4; key points 10; weight.

    ``boxes`` [n, 4] and ``points`` [n, 5, 2] in pixels of the file's input. Cells around the middle of a face speak for it.
    """
    cells = DETECTOR_SIDE * DETECTOR_POOL // stride
    y, x = np.mgrid[:cells, :cells].astype(np.float32) * stride
    target = np.zeros((16, cells, cells), np.float32)
    nearest = np.full((cells, cells), np.inf)
    for box, five in zip(boxes, points, strict=True):
        middle, size = (box[:2] + box[2:]) / 2, math.sqrt(np.prod(box[2:] - box[:2]))
        if not sizes[0] <= size < sizes[1]:
            continue
        apart = np.hypot(x - middle[0], y - middle[1])
        close = apart < np.minimum(nearest, np.maximum(0.30 * size, stride))
        target[0][close & (target[0] == 0)] = -1
        core = close & (apart <= max(0.14 * size, apart.min() + 1e-3))
        nearest[close] = apart[close]
        values = [x - box[0], y - box[1], box[2] - x, box[3] - y]
        values += [p for px, py in five for p in (px - x, py - y)]
        target[1:15, core] = np.stack(values)[:, core] / stride
        target[0, core], target[15, core] = 1, stride / size
    return target


def detector_batch(pool: Pictures, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
    pictures, targets = [], []
    nobody = [index for index, faces in enumerate(pool.in_picture) if not len(faces)]
    chosen = rng.integers(0, len(pool.pictures), size)
    chosen = np.where(rng.uniform(size=size) < NOBODY, rng.choice(nobody, size), chosen)
    for index in chosen:
        crop, boxes, points = letterbox(pool, rng, int(index), DETECTOR_SIDE)
        pictures.append(crop)
        at = boxes * DETECTOR_POOL, points * DETECTOR_POOL
        targets.append([detector_targets(*at, s, sizes) for s, sizes in zip(STRIDES, SIZES, strict=True)])
    levels = {f"level{i}": torch.from_numpy(np.stack(part)) for i, part in enumerate(zip(*targets, strict=True))}
    return {"input": torch.from_numpy(network_input(pictures, deviation=128))} | levels


def overlap_loss(box: Tensor, goal: Tensor) -> Tensor:
    """1 - generalised IoU of boxes given by their distances [n, 4] from one point."""
    area = (box[:, 0] + box[:, 2]) * (box[:, 1] + box[:, 3])
    wanted = (goal[:, 0] + goal[:, 2]) * (goal[:, 1] + goal[:, 3])
    least, most = torch.minimum(box, goal), torch.maximum(box, goal)
    common = (least[:, 0] + least[:, 2]).clamp(min=0) * (least[:, 1] + least[:, 3]).clamp(min=0)
    hull = (most[:, 0] + most[:, 2]) * (most[:, 1] + most[:, 3])
    union = area + wanted - common
    return 1 - common / union + (hull - union) / hull


def detector_loss(result: list[Tensor], batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    score = box = point = torch.zeros(())
    count = sum(float((batch[f"level{i}"][:, 0] == 1).sum()) for i in range(len(STRIDES)))
    for level, value in enumerate(result):
        goal = batch[f"level{level}"]
        known, face = goal[:, 0] >= 0, goal[:, 0] == 1
        odds = value[:, 0][known]
        wrong = binary_cross_entropy_with_logits(odds, goal[:, 0][known], reduction="none")
        sure = (odds.sigmoid() - goal[:, 0][known]).abs()  # focal: what is right already counts little
        score = score + (sure.square() * wrong).sum()
        found, wanted = value.movedim(1, -1)[face], goal.movedim(1, -1)[face]
        box = box + overlap_loss(found[:, 1:5], wanted[:, 1:5]).sum()
        point = point + ((found[:, 5:15] - wanted[:, 5:15]).abs() * wanted[:, 15:]).mean(1).sum()
    score, box, point = (part / max(count, 1.0) for part in (score, box, point))
    return 2 * score + 2 * box + 10 * point, {"score": score.item(), "box": box.item(), "point": point.item()}


# --- The recogniser ------------------------------------------------------------------------------------------------


def recogniser_batch(pool: Pictures, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
    faces = rng.integers(0, len(pool.faces.seed), size)
    crops = [aligned_crop(pool, rng, int(face)) for face in faces]
    vectors = np.stack([identity_vector(draw_identity(int(pool.faces.seed[face]))) for face in faces])
    return {"input": torch.from_numpy(network_input(crops, bgr=True)), "goal": torch.from_numpy(vectors)}


def recogniser_loss(result: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """1 - cosine, and the length towards 1."""
    alike = cosine_similarity(result, batch["goal"]).mean()
    return 1 - alike + 0.02 * (result.norm(dim=1) - 1).square().mean(), {"cosine": alike.item()}


# --- Landmarks and angles -------------------------------------------------------------------------------------------

# How much points count: brows, lips and lids tell expressions.
POINT_WEIGHT = torch.ones(106)
POINT_WEIGHT[33:106] = 2
POINT_WEIGHT[52:72] = 3


def points_batch(pool: Pictures, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
    faces = rng.integers(0, len(pool.faces.seed), size)
    crops, points = zip(*(landmark_crop(pool, rng, int(face), 96, 2) for face in faces), strict=True)
    return {
        "input": torch.from_numpy(network_input(crops, deviation=128)),
        "points": torch.from_numpy(np.stack(points)),
        "angles": torch.from_numpy(pool.faces.angles[faces]),
        "expression": torch.from_numpy(pool.faces.expression[faces]).long(),
    }


def points_loss(result: tuple[Tensor, Tensor, Tensor], batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    points, angles, expression = result
    apart = points.view(-1, 106, 2) - batch["points"]
    weight = POINT_WEIGHT[:, None] / POINT_WEIGHT.mean()
    # the mean of eyes, brows or lips may be right while their shape is not
    shape = (apart - apart.mean(1, keepdim=True)).abs() * weight
    turned = (angles - batch["angles"] / ANGLE).abs().mean()
    named = cross_entropy(expression, batch["expression"])
    loss = 20 * ((apart.abs() * weight).mean() + shape.mean()) + turned + 0.1 * named
    right = (expression.argmax(1) == batch["expression"]).float().mean()
    return loss, {"point": apart.abs().mean().item() * 48, "degrees": turned.item() * ANGLE, "right": right.item()}


# --- The judges -----------------------------------------------------------------------------------------------------


def pairs_batch(pool: Pictures, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
    """Two pictures of each of ``size / 2`` people; those of the second half are in the order of the first."""
    faces = pool.faces
    order = np.argsort(faces.seed, kind="stable")
    starts = np.searchsorted(faces.seed[order], np.arange(faces.seed.max() + 2))
    people = rng.permutation(len(starts) - 1)[: size // 2]
    chosen = np.stack([rng.permutation(order[starts[p] : starts[p + 1]])[:2] for p in people])
    crops = [aligned_crop(pool, rng, int(face)) for face in chosen.T.ravel()]
    return {"input": torch.from_numpy(network_input(crops))}


def pairs_loss(result: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Who belongs to whom, among all of the batch (van den Oord et al. 2018)."""
    one, other = normalize(result).chunk(2)
    alike = one @ other.T
    right = torch.arange(len(one))
    loss = (cross_entropy(alike / 0.07, right) + cross_entropy(alike.T / 0.07, right)) / 2
    return loss, {
        "right": (alike.argmax(1) == right).float().mean().item(),
        "same": alike.diagonal().mean().item(),
        "others": ((alike.sum() - alike.diagonal().sum()) / (alike.numel() - len(one))).item(),
    }


def expression_batch(pool: Pictures, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
    faces = rng.integers(0, len(pool.faces.seed), size)
    pixels = np.stack([box_crop(pool, rng, int(face), 64) for face in faces]) / 255
    pixels = ((pixels - np.array(MEAN)) / np.array(STD)).astype(np.float32).transpose(0, 3, 1, 2)
    goal = torch.from_numpy(pool.faces.expression[faces]).long()
    return {"input": torch.from_numpy(np.ascontiguousarray(pixels)), "goal": goal}


def expression_loss(result: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    right = (result.argmax(1) == batch["goal"]).float().mean().item()
    return cross_entropy(result, batch["goal"], label_smoothing=0.05), {"right": right}


# --- All of them ----------------------------------------------------------------------------------------------------

LESSONS = {
    "detector": Lesson(Detector, detector_batch, detector_loss, 16, 3500, 3e-3, ("stem.0.", "heads")),
    "recogniser": Lesson(FaceRecogniser, recogniser_batch, recogniser_loss, 32, 3500, 4e-3, ("body.0.",)),
    "points": Lesson(FacePoints, points_batch, points_loss, 32, 3000, 4e-3, ("body.0.", "points", "angles", "expr")),
    "judge_recogniser": Lesson(JudgeRecogniser, pairs_batch, pairs_loss, 192, 800, 5e-3, ("body.0.",)),
    "judge_expression": Lesson(JudgeExpression, expression_batch, expression_loss, 32, 500, 5e-3, ("body.0.", "end")),
    "judge_points": Lesson(
        partial(FacePoints, (16, 24, 32, 48)),
        points_batch,
        points_loss,
        32,
        1100,
        4e-3,
        ("body.0.", "points", "angles"),
    ),
}
