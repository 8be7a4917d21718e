"""Stand-ins for the weights that other packs bring to a base model: LoRA, ControlNet, IP-Adapter, motion module.

They have the tensor names and shapes of the published kinds for the base that they are made for, and seeded values, strong
enough that a picture changes. What they say of a picture means nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .weights import Weight, Weights, constant, exact, fan_in, layer, norm, normal, with_prefix, zeros

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "model.diffusion_model."  # of a UNet in a checkpoint
RANK = 4  # of the LoRA
LORA_SHARE = 0.5  # standard deviation of what it adds, over that of the weights
ZERO_CONVOLUTION = 0.05  # gain of what begins as zero when a ControlNet is trained
HINT = ((3, 16), (16, 16), (16, 32), (32, 32), (32, 96), (96, 96), (96, 256))  # channels of its first layers
HALVING = (4, 8, 12)  # layers of those that halve the hint: 8 px become one latent cell
TOKENS, TEXT_WIDTH = 16, 768  # of an IP-Adapter for SD1.5
# Blocks of SD1.5's UNet with cross attention, in the order in which an IP-Adapter numbers them.
ADAPTER_BLOCKS = (
    *(f"input_blocks.{n}" for n in (1, 2, 4, 5, 7, 8)),
    *(f"output_blocks.{n}" for n in range(3, 12)),
    "middle_block",
)
MOTION_WIDTHS = (320, 640, 1280, 1280)  # of SD1.5's levels, which motion modules are made for
SMALL_WIDTHS = (320, 640)  # the first is what hosts know SD1.5 by; FreeU acts where it is twice that
FRAMES = 16  # that a motion module knows


def lora(checkpoint: Mapping[str, Tensor]) -> Weights:
    """A LoRA on the attention layers of a checkpoint's UNet, under the names of its layers."""
    found: Weights = {}
    for name, tensor in checkpoint.items():
        if name.startswith(PREFIX) and re.search(r"attn[12]\.to_(q|k|v|out\.0)\.weight$", name):
            prefix = "diffusion_model." + name.removeprefix(PREFIX).removesuffix(".weight")
            out, width = tensor.shape
            share = LORA_SHARE * float(tensor.float().std()) / RANK**0.5
            found[f"{prefix}.lora_down.weight"] = normal(RANK, width, std=1.0)
            found[f"{prefix}.lora_up.weight"] = normal(out, RANK, std=share)
    return found


def controlnet(checkpoint: Mapping[str, Tensor]) -> Weights:
    """A ControlNet for a checkpoint's UNet: a copy of its first half, as training begins, with what is zero then not zero."""
    found: Weights = {}
    for name, tensor in checkpoint.items():
        short = name.removeprefix(PREFIX)
        if name.startswith(PREFIX) and short.startswith(("input_blocks.", "middle_block.", "time_embed.")):
            found[f"control_model.{short}"] = exact(tensor.half().numpy())
    for number, width in enumerate(_block_widths(found)):
        found |= layer(f"control_model.zero_convs.{number}.0", width, width, 1, 1, gain=ZERO_CONVOLUTION)
    middle = found["control_model.middle_block.2.out_layers.3.weight"].shape[0]
    found |= layer("control_model.middle_block_out.0", middle, middle, 1, 1, gain=ZERO_CONVOLUTION)
    for number, (width, out) in enumerate(HINT):
        found |= layer(f"control_model.input_hint_block.{2 * number}", out, width, 3, 3, gain=1.0)
    first = found["control_model.input_blocks.0.0.weight"].shape[0]
    return found | layer(f"control_model.input_hint_block.{2 * len(HINT)}", first, HINT[-1][1], 3, 3, gain=0.5)


def _block_widths(weights: Weights) -> list[int]:
    """How many channels leave each block of the first half."""
    widths: dict[int, int] = {}
    for name, weight in weights.items():
        match = re.match(r"control_model\.input_blocks\.(\d+)\.0\.(?:weight|op\.weight|out_layers\.3\.weight)$", name)
        if match:
            widths[int(match[1])] = weight.shape[0]
    return [widths[number] for number in sorted(widths)]


def ip_adapter(checkpoint: Mapping[str, Tensor], vision: int) -> Weights:
    """An IP-Adapter "plus" for SD1.5 with the widths of a checkpoint's UNet; ``vision``: channels of CLIP's tokens, which it
    reads in place of the image embedding."""
    found: Weights = {"image_proj.latents": normal(1, TOKENS, TEXT_WIDTH, std=1.0)}
    found |= layer("image_proj.proj_in", TEXT_WIDTH, vision, gain=1.0)
    found |= layer("image_proj.proj_out", TEXT_WIDTH, TEXT_WIDTH, gain=1.0) | norm("image_proj.norm_out", TEXT_WIDTH)
    for number in range(4):
        found |= with_prefix(f"image_proj.layers.{number}.", _resampling())
    for number, block in enumerate(ADAPTER_BLOCKS):
        key = f"{PREFIX}{block}.1.transformer_blocks.0.attn2.to_k.weight"
        width = checkpoint[key].shape[0] if key in checkpoint else MOTION_WIDTHS[0]
        for name in ("to_k_ip", "to_v_ip"):
            found |= layer(f"ip_adapter.{2 * number + 1}.{name}", width, TEXT_WIDTH, gain=1.0, bias=False)
    return found


def _resampling() -> Weights:
    """A layer that gathers CLIP's tokens."""
    width = TEXT_WIDTH
    found = norm("0.norm1", width) | norm("0.norm2", width) | norm("1.0", width)
    for name, out, inner in (("0.to_q", width, width), ("0.to_kv", 2 * width, width), ("0.to_out", width, width)):
        found |= layer(name, out, inner, gain=1.0, bias=False)
    found |= layer("1.1", 4 * width, width, gain=1.0, bias=False)
    return found | layer("1.3", width, 4 * width, gain=1.0, bias=False)


def motion_module() -> Weights:
    """A motion module for SD1.5 in its full width: two in each level on the way down, three on the way up."""
    found: Weights = {}
    for way, widths, count in (("down", MOTION_WIDTHS, 2), ("up", MOTION_WIDTHS[::-1], 3)):
        for block, width in enumerate(widths):
            for number in range(count):
                found |= _motion(f"{way}_blocks.{block}.motion_modules.{number}.temporal_transformer", width)
    return found


def _motion(prefix: str, width: int) -> Weights:
    found = norm(f"{prefix}.norm", width)
    found |= layer(f"{prefix}.proj_in", width, width, gain=1.0) | layer(f"{prefix}.proj_out", width, width, gain=0.5)
    inside = f"{prefix}.transformer_blocks.0"
    for number in range(2):
        attention = f"{inside}.attention_blocks.{number}"
        for name in ("to_q", "to_k", "to_v"):
            found |= layer(f"{attention}.{name}", width, width, gain=1.0, bias=False)
        found |= layer(f"{attention}.to_out.0", width, width, gain=0.5)
        found[f"{attention}.pos_encoder.pe"] = normal(1, FRAMES, width, std=0.5)
        found |= norm(f"{inside}.norms.{number}", width)
    found |= norm(f"{inside}.ff_norm", width)
    found |= layer(f"{inside}.ff.net.0.proj", 8 * width, width, gain=1.0)
    return found | layer(f"{inside}.ff.net.2", width, 4 * width, gain=0.5)


def full_unet() -> Weights:
    """A UNet with SD1.5's real shapes, under diffusers' names."""
    return {name: _of_unet(name, shape) for name, shape in _shapes().items()}


def small_unet() -> Weights:
    """A UNet of two levels with one layer each, the least that hosts take for SD1.5's kind, under checkpoints' names."""
    from dynamicid_core.drawn.unet import ldm_names

    shapes = _shapes(
        block_out_channels=SMALL_WIDTHS,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
    )
    names = ldm_names(list(shapes), len(SMALL_WIDTHS))
    return {names[name]: _of_unet(name, shape) for name, shape in shapes.items()}


def _shapes(**how: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a UNet that reads SD1.5's text."""
    import torch
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=TEXT_WIDTH, attention_head_dim=8, **how)
    return {name: tuple(tensor.shape) for name, tensor in unet.state_dict().items()}


def _of_unet(name: str, shape: tuple[int, ...]) -> Weight:
    if len(shape) == 1:
        return constant(1.0, *shape) if name.endswith("weight") else zeros(*shape)
    ends = re.search(r"(conv2|proj_out|to_out\.0|ff\.net\.2)\.weight$", name)  # what is added to what came before
    return fan_in(*shape, gain=0.5 if ends else 1.0)
