"""Models of the published sizes with seeded weights, and casts to put into them.

Costs depend on sizes, not on values, so no file is needed. The LoRA is left out (strength 0, rank 1): it is merged
into the weights before sampling and costs nothing in a step, and without it the plain and the patched model share one
set of weights, so that their calls can alternate.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import sys

import torch
from measure import REPOSITORY
from torch import Tensor, nn

# comfy_host: ComfyUI in this process; comfyui: how it is found; standins: its models
sys.path += [str(REPOSITORY / folder) for folder in ("tests/host", "scripts", "devtools")]

TOKENS, TOKEN_WIDTH, TEXT_TOKENS = 4, 768, 77

UNET = {
    "in_channels": 4, "out_channels": 4, "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
    "transformer_depth_output": [1] * 9 + [0] * 3, "num_heads": 8, "image_size": 32, "use_spatial_transformer": True,
    "legacy": False,
}  # fmt: skip


def seeded(shape: torch.Size, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Weights that keep the scale of what goes through: by fan-in, vectors near 1."""
    values = torch.randn(shape, generator=generator, dtype=torch.float32)
    values = values / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 1 + 0.1 * values
    return values.to(dtype)


def fill(module: nn.Module, seed: int = 0) -> nn.Module:
    """Seeded weights in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(seeded(parameter.shape, generator))
    return module.eval().requires_grad_(False)


# --- ComfyUI ------------------------------------------------------------------------------------------------------


def start_comfyui(device: torch.device, pack: bool = True):
    """ComfyUI in this process, with the pack loaded or ready to be: a ``comfy_host.Host``.

    Exits with a sentence where there is no ComfyUI.
    """
    import comfy_host
    from comfyui.finding import find_comfyui
    from comfyui.folders import temporary_base
    from standins.models import cached_models

    found = find_comfyui()
    if found is None:
        sys.exit("No ComfyUI found. Set COMFYUI_PATH to its folder, or leave ComfyUI out with --hosts diffusers.")
    if device.type == "cuda":
        comfy_host.OPTIONS.remove("--cpu")
    folders = contextlib.ExitStack()
    atexit.register(folders.close)
    host = comfy_host.Host(found, folders.enter_context(temporary_base(cached_models())))
    if pack:
        host.load_pack()
    return host


def comfy_unet(dtype: torch.dtype):
    """The SD1.5 UNet as a MODEL, through the host's own loader."""
    import comfy.sd
    import comfy.supported_models
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    with torch.device("meta"):
        shapes = {
            n: t.shape for n, t in UNetModel(**comfy.supported_models.SD15.unet_config | UNET).state_dict().items()
        }
    generator = torch.Generator().manual_seed(0)
    state = {name: seeded(shape, generator, dtype) for name, shape in shapes.items()}
    return comfy.sd.load_diffusion_model_state_dict(state, model_options={"dtype": dtype})


# --- diffusers ----------------------------------------------------------------------------------------------------


def diffusers_unet(device: torch.device, dtype: torch.dtype):
    """The SD1.5 UNet as diffusers has it."""
    from diffusers import UNet2DConditionModel

    return fill(UNet2DConditionModel(cross_attention_dim=TOKEN_WIDTH)).to(device, dtype)


# --- DynamicID ----------------------------------------------------------------------------------------------------


def saa_module(core):
    """The attention weights for the published UNet; ``core(name)`` gives a module of dynamicid_core."""
    saa, widths = core("networks.saa"), core("bases").SD15_WIDTHS
    sites = tuple(saa.SiteSizes(width, 1, context) for width in widths for context in (None, TOKEN_WIDTH))
    return fill(saa.SAAModule(sites))


PLACES = ("boxes", "soft masks", "looked for")


def cast(core, people: int, places: str, size: int = 512, frames: int = 1):
    """People in vertical strips: boxes, or masks of ``size`` px with soft edges that overlap, or none; faces of so many frames."""
    types = core("types")
    generator = torch.Generator().manual_seed(people)
    placed = []
    for i in range(people):
        tokens, nulls = torch.randn(1 + frames, TOKENS, TOKEN_WIDTH, generator=generator).split([frames, 1])
        region = None
        if places == "boxes":
            region = types.Region(box=strip(i, people))
        elif places == "soft masks":
            region = types.Region(mask=soft_strip(i, people, size))
        placed.append(types.Person(types.Face(tokens, nulls, "benchmark"), region))
    return types.Cast(tuple(placed))


def strip(i: int, people: int) -> tuple[float, float, float, float]:
    return (0.05, (i + 0.05) / people, 0.95, (i + 0.95) / people)


def soft_strip(i: int, people: int, size: int) -> Tensor:
    """[1, size, size]: 1 in the middle of a strip, falling to 0 beyond its edges."""
    x = (torch.arange(size) + 0.5) / size
    return (1.5 - people * (x - (i + 0.5) / people).abs()).clamp(0, 1).expand(1, size, size).clone()
