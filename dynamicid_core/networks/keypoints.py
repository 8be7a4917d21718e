"""Landmarks drawn on a 96x96 picture -> one feature vector (docs/method.md, section 2; ``key_point_encoder.bin``)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import batch_norm

from .operations import Operations


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that follows its input's device and dtype, as the layers of a host's ``operations`` do."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        statistics = (self.running_mean, self.running_var, self.weight, self.bias)
        mean, var, weight, bias = (None if t is None else t.to(x) for t in statistics)
        return batch_norm(x, mean, var, weight, bias, eps=self.eps)


class ConvBlock(nn.Module):
    """Convolution, batch normalisation, (+ input), ReLU."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int, padding: int, residual: bool, operations: Operations = nn
    ):
        super().__init__()
        self.residual = residual
        self.conv_block = nn.Sequential(
            operations.Conv2d(c_in, c_out, kernel, stride=stride, padding=padding), BatchNorm2d(c_out)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_block(x)
        return (y + x if self.residual else y).relu()


@dataclass(frozen=True)
class KeypointEncoderSizes:
    """Channels of each stage and how many convolutions it has; the last stage is the head."""

    channels: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    convs: tuple[int, ...] = (1, 3, 4, 3, 3, 2)
    head: int = 512
    out: int = 768


class KeypointEncoder(nn.Module):
    """``blocks.{stage}.{conv}``: a 7x7 stage, stages that halve the picture, and a head that closes it to one pixel."""

    def __init__(self, sizes: KeypointEncoderSizes = KeypointEncoderSizes(), operations: Operations = nn):
        super().__init__()
        self.sizes = sizes
        stages = [nn.Sequential(ConvBlock(1, sizes.channels[0], 7, 1, 3, False, operations))]
        for c_in, c_out, count in zip(sizes.channels, sizes.channels[1:], sizes.convs[1:], strict=False):
            halve = ConvBlock(c_in, c_out, 3, 2, 1, False, operations)
            rest = (ConvBlock(c_out, c_out, 3, 1, 1, True, operations) for _ in range(count - 1))
            stages.append(nn.Sequential(halve, *rest))
        stages.append(
            nn.Sequential(
                ConvBlock(sizes.channels[-1], sizes.head, 3, 1, 0, False, operations),
                ConvBlock(sizes.head, sizes.out, 1, 1, 0, False, operations),
            )
        )
        self.blocks = nn.ModuleList(stages)

    def forward(self, raster: Tensor) -> Tensor:
        """``raster`` [B, 1, 96, 96] in -1..1, white points on black -> [B, 768]"""
        for stage in self.blocks:
            raster = stage(raster)
        return raster.flatten(1)
