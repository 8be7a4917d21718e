"""The networks that see drawn faces: a detector, a recogniser, one for landmarks and angles, and those of the judges.

All are small convolutional networks. They learn on pictures that InsightFace's preprocessing made, already shrunk as the
exported files do it first (``face_export``).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..landmarks import EXPRESSIONS
from .identity import WIDTH

STRIDES = (16, 32)  # of the cells that look for faces, in pixels of the file's input
DETECTOR_POOL, LANDMARK_POOL = 4, 2  # how much the exported files shrink their input first
ANGLE = 60.0  # degrees that count as 1


def layer(inputs: int, outputs: int, stride: int = 1, size: int = 3, groups: int = 1) -> nn.Sequential:
    """Convolution, norm, ReLU."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    """Two convolutions beside the input. [B, C, h, w] -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = layer(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


class Precise(nn.Module):
    """A last layer in float32, whatever the network runs in: coordinates want more than bfloat16 has."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            result: Tensor = self.last(x.float())
        return result


class Detector(nn.Module):
    """Pictures [B, 3, h, w], a quarter of what the file takes -> for each of ``STRIDES``, [B, 15, h', w'].

    15 values: a logit; the distances from the cell's corner to the box's left, top, right and bottom; the vectors to five
    key points; all in strides.
    """

    WIDTHS, HEAD = (24, 48, 64), 24

    def __init__(self) -> None:
        super().__init__()
        w, head = self.WIDTHS, self.HEAD
        self.stem = nn.Sequential(layer(3, w[0], 4, size=7), Residual(w[0]))
        self.down = nn.ModuleList(nn.Sequential(layer(a, b, 2), Residual(b)) for a, b in pairwise(w))
        self.across = nn.ModuleList(nn.Conv2d(width, head, 1) for width in w)
        self.heads = nn.ModuleList(nn.Sequential(layer(head, head), Precise(nn.Conv2d(head, 15, 1))) for _ in STRIDES)
        head_layers: Any = self.heads
        for last in head_layers:
            bias = torch.zeros(15)
            bias[0], bias[1:5] = -4.0, 1.2
            last[1].last.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [self.stem(x)]
        for down in self.down:
            levels.append(down(levels[-1]))
        above = self.across[-1](levels[-1])
        results = []
        for level in reversed(range(len(STRIDES))):
            above = torch.relu(self.across[level](levels[level]) + interpolate(above, scale_factor=2.0))
            raw = self.heads[level](above)
            results.append(torch.cat((raw[:, :1], raw[:, 1:5].clamp(max=4).exp(), raw[:, 5:]), 1))
        return results[::-1]


def flat_end(width: int, side: int, narrow: int, hidden: int) -> nn.Sequential:
    """A map [B, width, side, side] -> [B, hidden], aware of places."""
    return nn.Sequential(
        layer(width, narrow, size=1),
        nn.Flatten(),
        nn.Linear(narrow * side * side, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
    )


class FaceRecogniser(nn.Module):
    """Aligned faces [B, 3, 112, 112], BGR -> [B, 512], towards ``identity.identity_vector``."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            layer(3, 24, 2), layer(24, 32, 2), Residual(32), layer(32, 64, 2), Residual(64), Residual(64),
            layer(64, 96, 2), flat_end(96, 7, 24, 160),
        )  # fmt: skip
        self.end = Precise(nn.Linear(160, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.end(self.body(x))
        return result


class FacePoints(nn.Module):
    """Crops [B, 3, 96, 96], half of what the file takes -> the 106 points [B, 212] from -1 to 1 of the crop,
    angles [B, 3] in ``ANGLE``, and logits of expressions [B, 7], which only help it learn."""

    def __init__(self, widths: tuple[int, int, int, int] = (24, 32, 48, 64)) -> None:
        super().__init__()
        a, b, c, d = widths
        self.body = nn.Sequential(
            layer(3, a, 2), layer(a, b, 2), Residual(b), layer(b, c, 2), Residual(c), Residual(c),
            layer(c, d, 2), Residual(d), flat_end(d, 6, 24, 128),
        )  # fmt: skip
        self.points = Precise(nn.Linear(128, 212))
        self.angles = Precise(nn.Linear(128, 3))
        self.expression = Precise(nn.Linear(128, len(EXPRESSIONS)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.body(x)
        return self.points(hidden), self.angles(hidden), self.expression(hidden)


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A filter for each channel, then a mix of channels."""
    return nn.Sequential(layer(inputs, inputs, stride, groups=inputs), layer(inputs, outputs, size=1))


class JudgeRecogniser(nn.Module):
    """Aligned faces [B, 3, 112, 112], RGB -> [B, 128]: another form than the recogniser's, taught by telling apart."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            layer(3, 32, 4, size=5), separable(32, 64), separable(64, 96, 2), separable(96, 96), separable(96, 128, 2),
            separable(128, 128), nn.Conv2d(128, 128, 7, groups=128), nn.Flatten(),
        )  # fmt: skip
        self.end = Precise(nn.Linear(128, 128))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.end(self.body(x))
        return result


class JudgeExpression(nn.Module):
    """Boxes of faces [B, 3, 64, 64], by ImageNet's mean and deviation -> logits of ``EXPRESSIONS`` [B, 7]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            layer(3, 24, 2), separable(24, 48, 2), separable(48, 48), separable(48, 96, 2), separable(96, 96),
            nn.Dropout(0.1), nn.Conv2d(96, 96, 8, groups=96), nn.Flatten(),
        )  # fmt: skip
        self.end = Precise(nn.Linear(96, len(EXPRESSIONS)))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.end(self.body(x))
        return result
