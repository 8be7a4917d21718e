"""The world's UNet: SD1.5's kind at a fifth of its width, and the way to the width that hosts know.

Widening repeats each channel five times everywhere and divides the weights of the next layer by five. Groups and norms
then see the same means and variances, so the wide network computes the same. Attention has eight heads in both, five
times as wide: its products grow by five while its scale shrinks by the root of five, which queries make up for. Of the
timestep's 160 frequencies the narrow network knows every fifth.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

FACTOR = 5
WIDTHS = (64, 128, 128, 128)
TEXT_WIDTH, HEADS, GROUPS, LATENT_CHANNELS = 768, 8, 32, 4


def make_unet(factor: int = 1, widths: tuple[int, ...] = WIDTHS) -> nn.Module:
    """The narrow network with random weights, or the form of the widened one."""
    from diffusers import UNet2DConditionModel

    unet: nn.Module = UNet2DConditionModel(  # type: ignore[no-untyped-call, assignment]
        sample_size=16,
        block_out_channels=tuple(width * factor for width in widths),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=HEADS,  # diffusers' name for the number of heads
        norm_num_groups=GROUPS,
    )
    return unet


def widened(state: Mapping[str, Tensor], factor: int = FACTOR) -> dict[str, Tensor]:
    """The weights of the wide network from those of the narrow one, both under diffusers' names, in the same dtype."""
    return {name: _widened(name, tensor, factor) for name, tensor in state.items()}


def _widened(name: str, tensor: Tensor, factor: int) -> Tensor:
    wide, inputs, divisor = tensor, 1, 1.0
    if tensor.ndim > 1 and name == "time_embedding.linear_1.weight":
        wide = _spread_frequencies(wide, factor)
    elif tensor.ndim > 1 and name != "conv_in.weight" and not re.search(r"attn2\.to_[kv]\.weight$", name):
        inputs, divisor = factor, factor
    if re.search(r"\.to_q\.weight$", name):
        divisor *= math.sqrt(factor)
    return _repeated(wide, 1 if name.startswith("conv_out.") else factor, inputs, divisor)


def _repeated(weight: Tensor, outputs: int, inputs: int, divisor: float) -> Tensor:
    """[o, i, ...] -> [o * outputs, i * inputs, ...]: divided once, in float32, then each channel several times."""
    if divisor != 1:
        weight = (weight.float() / divisor).to(weight.dtype)
    shape = weight.shape
    wide = weight[:, None].expand(shape[0], outputs, *shape[1:])
    if weight.ndim == 1:
        return wide.reshape(-1)
    wide = wide[:, :, :, None].expand(shape[0], outputs, shape[1], inputs, *shape[2:])
    return wide.reshape(shape[0] * outputs, shape[1] * inputs, *shape[2:])


def _spread_frequencies(weight: Tensor, factor: int) -> Tensor:
    """Columns for cosines and sines [.., 2f] -> [.., 2f * factor]: each at its frequency, zeros between them."""
    wide = weight.new_zeros(weight.shape[0], weight.shape[1] * factor)
    wide[:, ::factor] = weight
    return wide


def widened_saa(state: Mapping[str, Tensor], factor: int = FACTOR) -> dict[str, Tensor]:
    """SAA weights (names as in ``SAA_module``) of the narrow network, for the wide one, by the same rules.

    Channels of the UNet are repeated, and divided by the factor where they come in; text and face tokens have no more
    channels than before. Queries have the part of the scale that theirs in the base have.
    """
    return {name: _widened_site(name, tensor, factor) for name, tensor in state.items()}


def _widened_site(name: str, tensor: Tensor, factor: int) -> Tensor:
    site, _, layer = name.partition(".")
    if layer.endswith("down.weight"):
        reads_text = int(site) % 2 == 1 and layer.startswith(("to_k", "to_v"))
        return tensor if reads_text else _repeated(tensor, 1, factor, factor)
    # up, and keys and values of faces
    return _repeated(tensor, factor, 1, math.sqrt(factor) if layer.startswith("to_q") else 1)


def ldm_names(names: Mapping[str, Tensor] | list[str], levels: int = len(WIDTHS)) -> dict[str, str]:
    """diffusers' names of a UNet with one layer a level -> those of checkpoint files, without their prefix."""
    return {name: _ldm_name(name, levels) for name in names}


_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_ENDS = {
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
}  # fmt: skip
_BLOCK = re.compile(r"(?:(down|up)_blocks\.(\d+)|mid_block)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)")


def _ldm_name(name: str, levels: int) -> str:
    stem, _, kind = name.rpartition(".")
    if stem in _ENDS:
        return f"{_ENDS[stem]}.{kind}"
    match = _BLOCK.fullmatch(name)
    if not match:
        raise ValueError(f"{name} is no tensor of this UNet")
    stage, block, part, index, rest = match[1], int(match[2] or 0), match[3], int(match[4]), match[5]
    if part == "resnets":
        layer, _, kind = rest.rpartition(".")
        rest = f"{_RESNET[layer]}.{kind}"
    if stage is None:
        return f"middle_block.{2 * index if part == 'resnets' else 1}.{rest}"
    if stage == "down":  # a layer and, but on the last level, a halving
        if part == "downsamplers":
            return f"input_blocks.{2 * block + 2}.0.{rest.replace('conv.', 'op.')}"
        return f"input_blocks.{2 * block + 1}.{int(part == 'attentions')}.{rest}"
    place = 2 * block + index  # two layers on each level
    if part == "upsamplers":
        return f"output_blocks.{2 * block + 1}.{1 if block == 0 else 2}.{rest}"
    return f"output_blocks.{place}.{int(part == 'attentions')}.{rest}"


def schedule() -> Tensor:
    """SD1.5's noise schedule: alpha-bar [1000] at each timestep."""
    return torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0).float()
