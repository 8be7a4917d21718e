"""Attention sites in checkpoint order, for each naming scheme (method, section 3)."""

from __future__ import annotations

import random

import pytest
from published import SD15_WIDTHS

from dynamicid_core.layers import attention_blocks
from dynamicid_core.types import DynamicIDError

INPUT, OUTPUT = (1, 2, 4, 5, 7, 8), tuple(range(3, 12))  # blocks of SD1.5 that hold transformers


def _parameters(block: str, prefix: str = "", depth: int = 1) -> list[str]:
    """Names of all parameters of one spatial transformer."""
    parts = ("attn1.to_q.weight", "attn1.to_out.0.bias", "attn2.to_q.weight", "attn2.to_k.weight", "attn2.to_v.weight")
    parts += ("attn2.to_out.0.weight", "attn2.to_out.0.bias", "ff.net.0.proj.weight", "norm2.weight")
    names = [f"{prefix}{block}.transformer_blocks.{i}.{part}" for i in range(depth) for part in parts]
    return [*names, f"{prefix}{block}.proj_in.weight", f"{prefix}{block}.norm.bias"]


def _ldm(prefix: str = "") -> list[str]:
    places = [f"input_blocks.{n}.1" for n in INPUT] + ["middle_block.1"] + [f"output_blocks.{n}.1" for n in OUTPUT]
    names = [name for place in places for name in _parameters(place, prefix)]
    return [
        *names,
        f"{prefix}input_blocks.0.0.weight",
        f"{prefix}middle_block.0.in_layers.2.weight",
        f"{prefix}out.0.bias",
    ]


def _shuffled(names: list[str]) -> list[str]:
    return random.Random(0).sample(names, len(names))


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", "model.diffusion_model.", "unet._orig_mod."])
def test_ldm_names_of_sd15(prefix):
    blocks = attention_blocks(_shuffled(_ldm(prefix)))
    keys = [("input", n) for n in INPUT] + [("output", n) for n in OUTPUT] + [("middle", 0)]
    assert [(block.stage, block.number) for block in blocks] == keys
    assert [block.site for block in blocks] == list(range(0, 32, 2))
    assert {block.index for block in blocks} == {0}
    assert [block.name for block in blocks[5:7]] == [
        "input_blocks.8.1.transformer_blocks.0",
        "output_blocks.3.1.transformer_blocks.0",
    ]
    assert blocks[-1].name == "middle_block.1.transformer_blocks.0"


def test_diffusers_unet_gives_the_same_order():
    import torch
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
    parameters = unet.state_dict()
    blocks = attention_blocks(_shuffled(list(parameters)))
    widths = [parameters[f"{block.name}.attn2.to_k.weight"].shape for block in blocks]
    assert widths == [(width, 768) for width in SD15_WIDTHS]
    assert [block.site for block in blocks] == [block.site for block in attention_blocks(_ldm())]
    assert [block.stage for block in blocks] == [block.stage for block in attention_blocks(_ldm())]
    assert [block.name for block in blocks[:7:6]] == [
        "down_blocks.0.attentions.0.transformer_blocks.0",
        "up_blocks.1.attentions.0.transformer_blocks.0",
    ]
    assert blocks[-1].name == "mid_block.attentions.0.transformer_blocks.0"
    assert attention_blocks(name for name, _ in unet.named_modules()) == blocks


def test_deep_blocks_are_ordered_by_number():
    """As in SDXL: up to ten transformer blocks in one place, the tenth after the second."""
    depths = {"input_blocks.4.1": 2, "input_blocks.5.1": 2, "input_blocks.7.1": 10, "input_blocks.11.1": 10}
    depths |= {"output_blocks.0.1": 10, "output_blocks.2.1": 10, "output_blocks.10.1": 2, "middle_block.1": 10}
    names = [name for place, depth in depths.items() for name in _parameters(place, depth=depth)]
    blocks = attention_blocks(_shuffled(names))
    assert [block.name for block in blocks] == [
        f"{p}.transformer_blocks.{i}" for p, n in depths.items() for i in range(n)
    ]
    assert [block.site for block in blocks] == list(range(0, 2 * len(blocks), 2))
    assert [(b.stage, b.number, b.index) for b in blocks[3:6]] == [("input", 5, 1), ("input", 7, 0), ("input", 7, 1)]
    assert [b.index for b in blocks[4:14]] == list(range(10))


def test_temporal_layers_do_not_count():
    """Motion modules beside the picture's own attention have the same layers inside."""
    names = _ldm() + _parameters("down_blocks.0.motion_modules.0") + _parameters("input_blocks.1.1.time_stack")
    assert attention_blocks(names) == attention_blocks(_ldm())


@pytest.mark.parametrize(
    "names", [[], ["double_blocks.0.img_attn.qkv.weight"], ["input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"]]
)
def test_a_model_without_cross_attention_is_refused(names):
    with pytest.raises(DynamicIDError, match=r"Stable Diffusion 1\.5"):
        attention_blocks(names)
