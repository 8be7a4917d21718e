"""The world's autoencoder: TAESD's architecture, narrower where it may be, 8x, 4 channels.

Hosts know TAESD with 64 channels, three blocks at each size and no norms. A narrow network is padded with zeros to that
form without a change of what it computes: a block whose convolutions are zero is its ReLU, and does nothing to what
went through a ReLU before. Pixels are 0 to 1, latents have mean 0 and deviation 1 in each channel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

LATENT_CHANNELS = 4
WIDE = 64
BLOCKS = (1, 3, 3, 3)  # TAESD's, from full size to an eighth
ENCODER_WIDTHS, ENCODER_BLOCKS = (16, 32, 64, 64), (0, 1, 2, 3)
DECODER_WIDTHS, DECODER_BLOCKS = (12, 32, 64, 64), (1, 2, 2, 3)


def conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)


class Block(nn.Module):
    """TAESD's: three convolutions beside the input, then ReLU. [B, C, h, w] -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv(width, width), nn.ReLU(), conv(width, width), nn.ReLU(), conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def blocks(width: int, live: int, total: int) -> list[nn.Module]:
    """Live blocks, then what stands for those that do nothing, so that numbers are TAESD's."""
    return [Block(width) for _ in range(live)] + [nn.ReLU() for _ in range(total - live)]


class Autoencoder(nn.Module):
    """Pixels [B, 3, 8h, 8w], 0 to 1, to latents [B, 4, h, w] and back. ``encoder`` and ``decoder`` count as TAESD's."""

    def __init__(
        self,
        encoder_widths: Sequence[int] = ENCODER_WIDTHS,
        encoder_blocks: Sequence[int] = ENCODER_BLOCKS,
        decoder_widths: Sequence[int] = DECODER_WIDTHS,
        decoder_blocks: Sequence[int] = DECODER_BLOCKS,
    ) -> None:
        super().__init__()
        w, live = encoder_widths, encoder_blocks
        down: list[nn.Module] = [conv(3, w[0]), *blocks(w[0], live[0], BLOCKS[0])]
        for level in (1, 2, 3):
            down += [conv(w[level - 1], w[level], 2, bias=False), *blocks(w[level], live[level], BLOCKS[level])]
        self.encoder = nn.Sequential(*down, conv(w[3], LATENT_CHANNELS))
        # Folded into the encoder's last layer when a file is written.
        self.standardise = nn.BatchNorm2d(LATENT_CHANNELS, eps=1e-6, momentum=0.01, affine=False)
        w, live = decoder_widths, decoder_blocks
        up: list[nn.Module] = [Clamp(), conv(LATENT_CHANNELS, w[3]), nn.ReLU(), *blocks(w[3], live[3], BLOCKS[3])]
        for level in (2, 1, 0):
            up += [nn.Upsample(scale_factor=2), conv(w[level + 1], w[level], bias=False)]
            up += blocks(w[level], live[level], BLOCKS[level])
        self.decoder = nn.Sequential(*up, conv(w[0], 3))
        self.initialise()

    def initialise(self) -> None:
        """He's initialisation; blocks begin as their input, and the decoder as grey."""
        for name, weight in self.named_parameters():
            if name.endswith("bias") or "conv.4." in name:
                nn.init.zeros_(weight)
            else:
                nn.init.kaiming_normal_(weight, nonlinearity="relu")
        nn.init.constant_(dict(self.named_parameters())[f"decoder.{len(self.decoder) - 1}.bias"], 0.5)

    def forward(self, pixels: Tensor, noise: float, seed: int) -> Tensor:
        """What training sees: through latents with noise, which makes neighbours of a latent look alike."""
        latents = self.encode(pixels)
        draw = torch.Generator(latents.device).manual_seed(seed)
        return self.decode(latents + noise * torch.randn(latents.shape, generator=draw, device=latents.device))

    def encode(self, pixels: Tensor) -> Tensor:
        latents: Tensor = self.standardise(self.encoder(pixels))
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        pixels: Tensor = self.decoder(latents)
        return pixels


def _wide_conv(name: str, state: Mapping[str, Tensor], inputs: int, outputs: int) -> dict[str, Tensor]:
    """A convolution's tensors, padded with zeros."""
    narrow = state[f"{name}.weight"]
    weight = torch.zeros(outputs, inputs, 3, 3)
    weight[: narrow.shape[0], : narrow.shape[1]] = narrow
    if f"{name}.bias" not in state:
        return {f"{name}.weight": weight}
    bias = torch.zeros(outputs)
    bias[: narrow.shape[0]] = state[f"{name}.bias"]
    return {f"{name}.weight": weight, f"{name}.bias": bias}


def idle_blocks(model: Autoencoder) -> list[str]:
    """Names of the layers that stand for blocks of TAESD which do nothing here."""
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.ReLU) and re.fullmatch(r"(en|de)coder\.\d+", name) and name != "decoder.2"
    ]


def taesd_weights(model: Autoencoder) -> dict[str, Tensor]:
    """What hosts load as TAESD: ``encoder.*`` and ``decoder.*`` of 64 channels, the standardisation folded in."""
    state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    last = f"encoder.{len(model.encoder) - 1}"
    mean, deviation = (
        state["standardise.running_mean"],
        (state["standardise.running_var"] + model.standardise.eps).sqrt(),
    )
    state[f"{last}.weight"] /= deviation[:, None, None, None]
    state[f"{last}.bias"] = (state[f"{last}.bias"] - mean) / deviation
    ends = {"encoder.0": (3, WIDE), last: (WIDE, LATENT_CHANNELS), "decoder.1": (LATENT_CHANNELS, WIDE)}
    ends[f"decoder.{len(model.decoder) - 1}"] = (WIDE, 3)
    wide: dict[str, Tensor] = {}
    idle = idle_blocks(model)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            wide |= _wide_conv(name, state, *ends.get(name, (WIDE, WIDE)))
        elif name in idle:
            for k in (0, 2, 4):
                wide[f"{name}.conv.{k}.weight"] = torch.zeros(WIDE, WIDE, 3, 3)
                wide[f"{name}.conv.{k}.bias"] = torch.zeros(WIDE)
    return wide
