"""Base models: attention sites in checkpoint order for each naming scheme, and whether weights fit."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from published import SD15_WIDTHS
from torch import nn

from dynamicid_core import bases
from dynamicid_core.bases import UNetLayout, attention_blocks, fitting_layout, lora_layers
from dynamicid_core.networks.saa import SAAModule, SiteSizes
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
def test_a_model_without_cross_attention_has_no_blocks(names):
    assert attention_blocks(names) == []


# --- layouts ------------------------------------------------------------------------------------------------------


def diffusers_unet(**config):
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(**config)


SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
}


@pytest.mark.parametrize(
    "name, config",
    [
        ("Stable Diffusion 1.5", {"cross_attention_dim": 768, "attention_head_dim": 8}),
        ("Stable Diffusion 2", {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20)}),
        ("Stable Diffusion XL", SDXL),
    ],
)
def test_known_bases_are_what_diffusers_builds(name, config):
    layout = UNetLayout.of(diffusers_unet(**config))
    base = bases.known_base(layout.widths, layout.text_widths)
    assert base is not None and base.name == name
    assert (layout.levels, len(layout.heads)) == (base.levels, len(base.widths))
    width_of_a_head = {width // heads for width, heads in zip(layout.widths, layout.heads, strict=True)}
    assert width_of_a_head == ({64} if name != "Stable Diffusion 1.5" else {40, 80, 160})


class Halving(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = nn.Conv2d(4, 4, 3, stride=2)


def transformer(width: int = 4, text: int = 8, heads: int = 2) -> nn.Module:
    """A spatial transformer as far as names go."""
    outer, block, attention = nn.Module(), nn.Module(), nn.Module()
    attention.to_k, attention.heads = nn.Linear(text, width), heads
    block.attn2 = attention
    outer.transformer_blocks = nn.ModuleList([block])
    return outer


def test_levels_are_counted_in_both_naming_schemes():
    small = diffusers_unet(
        block_out_channels=(32, 32), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), attention_head_dim=8,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=16, layers_per_block=1,
    )  # fmt: skip
    assert UNetLayout.of(small).levels == 2
    ldm = nn.Module()
    ldm.input_blocks = nn.ModuleList(
        nn.Sequential(Halving()) if n % 3 == 0 and n else nn.Sequential(nn.Identity(), transformer()) for n in range(12)
    )
    layout = UNetLayout.of(ldm)
    assert layout.levels == 4
    assert (layout.widths, layout.text_widths, layout.heads) == ((4,) * 9, (8,) * 9, (2,) * 9)


def saa_for(layout_widths, text_width, rank=2) -> SAAModule:
    with torch.device("meta"):
        return SAAModule(tuple(SiteSizes(w, rank, c) for w in layout_widths for c in (None, text_width)))


def test_weights_that_fit_give_the_layout_and_others_say_what_is_what():
    sd15, sdxl = diffusers_unet(cross_attention_dim=768, attention_head_dim=8), diffusers_unet(**SDXL)
    assert fitting_layout(sd15, saa_for(SD15_WIDTHS, 768), "x") == UNetLayout.of(sd15)
    assert fitting_layout(sdxl, saa_for(bases.SDXL_WIDTHS, 2048), "x").levels == 3
    with pytest.raises(DynamicIDError) as refused:
        fitting_layout(sdxl, saa_for(SD15_WIDTHS, 768), "x")
    assert "Stable Diffusion XL with 70 cross attentions (width 640 to 1280, text width 2048)" in str(refused.value)
    made_for = (
        "made for Stable Diffusion 1.5 with 16 cross attentions (width 320 to 1280, text width 768). Load a Stable D"
    )
    assert made_for in str(refused.value)
    assert str(refused.value).endswith("or DynamicID weights for Stable Diffusion XL.")
    with pytest.raises(DynamicIDError, match="This model is Flux with no cross attention that DynamicID knows"):
        fitting_layout(nn.Linear(2, 2), saa_for(SD15_WIDTHS, 768), "Flux")
    with pytest.raises(DynamicIDError, match="Load the model that they were trained with"):
        fitting_layout(sd15, saa_for((4, 8), 16), "x")


def test_widths_alone_do_not_make_a_base():
    """SD2 differs from SD1.5 by the text alone; fine-tunes of one family do not differ; blocks may stand elsewhere."""
    sd15, sd2 = (
        diffusers_unet(cross_attention_dim=768, attention_head_dim=8),
        diffusers_unet(cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20)),
    )
    origin = UNetLayout.of(sd15).origin(step=3)
    assert (origin.base, origin.step, origin.sites[:3]) == (
        "Stable Diffusion 1.5",
        3,
        ("down.0.0", "down.1.0", "down.2.0"),
    )
    with pytest.raises(DynamicIDError) as refused:
        fitting_layout(sd2, saa_for(SD15_WIDTHS, 768), origin=origin)
    assert "This model is Stable Diffusion 2 with 16 " in str(refused.value)
    assert "made for Stable Diffusion 1.5 with 16 " in str(refused.value)
    finetune = diffusers_unet(cross_attention_dim=768, attention_head_dim=8, sample_size=96)
    assert fitting_layout(finetune, saa_for(SD15_WIDTHS, 768), origin=origin).sites == origin.sites
    moved = dataclasses.replace(origin, base="somebody's", sites=("down.0.1", *origin.sites[1:]))
    with pytest.raises(DynamicIDError, match="in other places of the UNet. Load a Stable Diffusion 1.5 model"):
        fitting_layout(sd15, saa_for(SD15_WIDTHS, 768), origin=moved)


def test_sites_are_the_same_in_both_naming_schemes():
    depths = {"input_blocks.4.1": 2, "input_blocks.5.1": 2, "output_blocks.0.1": 10, "middle_block.1": 3}
    other = {"down_blocks.1.attentions.0": 2, "down_blocks.1.attentions.1": 2, "up_blocks.0.attentions.0": 10}
    other |= {"mid_block.attentions.0": 3}
    found = []
    for places in (depths, other):
        names = [name for place, depth in places.items() for name in _parameters(place, depth=depth)]
        found.append(UNetLayout(tuple(attention_blocks(_shuffled(names))), (), (), (), 1).sites)
    assert found[0] == found[1]
    assert found[0][:5] == ("down.0.0", "down.0.1", "down.1.0", "down.1.1", "up.0.0") and found[0][-1] == "middle.0.2"


def test_every_linear_layer_of_an_attention_has_its_lora():
    unet, saa = diffusers_unet(cross_attention_dim=768, attention_head_dim=8), saa_for(SD15_WIDTHS, 768)
    modules = dict(unet.named_modules())
    layers = dict(lora_layers(fitting_layout(unet, saa, "x"), saa))
    attentions = [name for name in modules if name.endswith((".attn1", ".attn2"))]
    assert layers.keys() == {f"{a}.{part}" for a in attentions for part in ("to_q", "to_k", "to_v", "to_out.0")}
    for name, lora in layers.items():
        assert modules[name].weight.shape == (lora.up.out_features, lora.down.in_features), name
