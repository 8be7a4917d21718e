"""Base models: which attentions a UNet has, in the checkpoint's order, and whether DynamicID's weights fit it.

The one place that knows UNets' naming schemes, LDM's (``input_blocks.1.1.transformer_blocks.0``, also ComfyUI's) and
diffusers' (``down_blocks.0.attentions.0.transformer_blocks.0``), and the families that people use. Checkpoint order is
down, up, middle, and in a transformer block self attention, then cross attention (docs/method.md, section 3): the 16
blocks of SD1.5 hold the sites 0..31, even = self, odd = cross.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from .networks.saa import LORA_TARGETS, LoRA, SAAModule, Site
from .origins import Origin
from .types import DynamicIDError

# The stage of a block -> its place in checkpoint order.
_ORDER = {"down": 0, "input": 0, "up": 1, "output": 1, "mid": 2, "middle": 2}
_BLOCK = re.compile(
    r"(?:^|\.)(?P<name>(?P<stage>down|up|mid|input|output|middle)_blocks?\."
    r"(?P<path>[\d.]*(?:attentions\.\d+\.)?)transformer_blocks\.(?P<index>\d+))\.attn2\."
)
_HALVING = re.compile(r"(?:^|\.)(?:input_blocks\.\d+\.0\.op|down_blocks\.\d+\.downsamplers\.0)$")
LINEAR_LAYERS = {target: "to_out.0" if target == "to_out" else target for target in LORA_TARGETS}  # in both schemes


@dataclass(frozen=True)
class Base:
    """A family of base models, as far as its cross attentions go."""

    name: str
    widths: tuple[int, ...]  # C of each transformer block, in checkpoint order
    text_width: int
    levels: int  # grid sizes of the UNet
    text_features: tuple[
        str, ...
    ]  # of its text encoders (origins.TEXT_FEATURES); an IMR reads the first unless told else
    side: int  # px of the square pictures that it makes best; of SD1.5, what DynamicID published


SD15_WIDTHS = (320, 320, 640, 640, 1280, 1280, *[1280] * 3, *[640] * 3, *[320] * 3, 1280)
# Two blocks deep where it is 640 wide, ten where it is 1280; none on the finest grid.
SDXL_WIDTHS = (*[640] * 4, *[1280] * 20, *[1280] * 30, *[640] * 6, *[1280] * 10)
# One layer a level; a fifth of the width is what is trained, all of it what ComfyUI takes (docs/evidence.md).
DRAWN_WIDTHS = (320, *[640] * 6, 320, 320, 640)
BASES = (
    Base("Stable Diffusion 1.5", SD15_WIDTHS, 768, 4, ("clip_l",), 768),
    Base("Stable Diffusion 2", SD15_WIDTHS, 1024, 4, ("clip_h",), 768),
    Base("Stable Diffusion XL", SDXL_WIDTHS, 2048, 3, ("clip_l", "clip_g"), 1024),
    Base("drawn world", DRAWN_WIDTHS, 768, 4, ("clip_l",), 128),
    Base("narrow drawn world", tuple(width // 5 for width in DRAWN_WIDTHS), 768, 4, ("clip_l",), 128),
)


@dataclass(frozen=True)
class TransformerBlock:
    """One block with a self and a cross attention."""

    name: str  # "input_blocks.1.1.transformer_blocks.0", in the naming of the UNet asked about
    stage: str  # "input", "output", "middle", whatever the naming
    number: int  # first number after the stage, 0 in the middle; in LDM's naming, with the stage, ComfyUI's patch key
    index: int  # transformer_blocks.{index}
    site: int  # site number of its self attention; the cross attention's is one more


def attention_blocks(names: Iterable[str]) -> list[TransformerBlock]:
    """A UNet's blocks with cross attention, in checkpoint order; none for models of another kind.

    ``names``: of its parameters or modules, in either naming scheme; what precedes a block's name is ignored.
    """
    found = {}
    for name in names:
        if match := _BLOCK.search(name):
            numbers = tuple(int(n) for n in re.findall(r"\d+", match["path"]))
            found[(_ORDER[match["stage"]], numbers, int(match["index"]))] = match["name"]
    stages = ("input", "output", "middle")
    return [
        TransformerBlock(found[key], stages[key[0]], 0 if key[0] == 2 else key[1][0], key[2], 2 * site)
        for site, key in enumerate(sorted(found))
    ]


@dataclass(frozen=True)
class UNetLayout:
    """The cross attentions of a UNet, in checkpoint order, and its grids."""

    blocks: tuple[TransformerBlock, ...]
    widths: tuple[int, ...]  # C of each block
    text_widths: tuple[int, ...]  # of each block's context
    heads: tuple[int, ...]  # H of each block
    levels: int  # how many grid sizes there are, each half of the one before

    @classmethod
    def of(cls, unet: nn.Module) -> UNetLayout:
        """Read off a UNet's modules, in either naming scheme, also where PEFT has wrapped its layers."""
        modules = dict(unet.named_modules())
        blocks = attention_blocks(name for name in modules if name.endswith(".attn2.to_k"))
        keys = [linear_layer(modules[f"{block.name}.attn2.to_k"]) for block in blocks]
        return cls(
            tuple(blocks),
            tuple(key.out_features for key in keys),
            tuple(key.in_features for key in keys),
            tuple(int(modules[f"{block.name}.attn2"].heads) for block in blocks),
            1 + sum(1 for name in modules if _HALVING.search(name)),
        )

    @property
    def sites(self) -> tuple[str, ...]:
        """Where each cross attention is, the same in every naming scheme: "down.1.0" is the first block of the second
        spatial transformer on the way down."""
        places: dict[str, list[str]] = {}
        found = []
        for block in self.blocks:
            stage = {"input": "down", "output": "up"}.get(block.stage, block.stage)
            known, place = places.setdefault(stage, []), block.name.partition(".transformer_blocks.")[0]
            if place not in known:
                known.append(place)
            found.append(f"{stage}.{known.index(place)}.{block.index}")
        return tuple(found)

    def origin(self, **known: Any) -> Origin:
        """The origin of weights that are made for this UNet; ``known``: the other fields of :class:`origins.Origin`."""
        base = known_base(self.widths, self.text_widths)
        return Origin(base.name if base else "", self.widths, self.text_widths, self.sites, **known)


def linear_layer(layer: nn.Module) -> nn.Linear:
    """The linear layer itself where PEFT has wrapped it."""
    return cast(nn.Linear, getattr(layer, "base_layer", layer))


def _described(widths: tuple[int, ...], text_widths: tuple[int, ...]) -> str:
    if not widths:
        return "no cross attention that DynamicID knows"
    text = "/".join(map(str, sorted(set(text_widths))))
    return f"{len(widths)} cross attentions (width {min(widths)} to {max(widths)}, text width {text})"


def known_base(widths: tuple[int, ...], text_widths: tuple[int, ...]) -> Base | None:
    """The family whose cross attentions these are, if it is one of :data:`BASES`."""
    return next((base for base in BASES if base.widths == widths and {base.text_width} == set(text_widths)), None)


def base_named(name: str) -> Base | None:
    """The family of that name, if it is one of :data:`BASES`."""
    return next((base for base in BASES if base.name == name), None)


def widths_of(saa: SAAModule) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """C, and the width of the text, of each cross attention that the weights are made for."""
    sizes = [site.sizes for site in saa.cross_sites]
    return tuple(size.width for size in sizes), tuple(size.context or 0 for size in sizes)


def fitting_layout(unet: nn.Module, saa: SAAModule, name: str | None = None, origin: Origin = Origin()) -> UNetLayout:
    """The layout of a UNet, if the weights were made for such a one.

    ``name``: what its host calls the model, if it does; ``origin``: what the weights' file says of them.
    Raises DynamicIDError that says what the model is, what the weights were made for, and what to load.
    """
    layout = UNetLayout.of(unet)
    have, want = (layout.widths, layout.text_widths), widths_of(saa)
    moved = bool(origin.sites) and origin.sites != layout.sites  # as many, as wide, but in other places
    if have == want and 2 * len(want[0]) == len(saa) and not moved:
        return layout
    base, kind = known_base(*want), known_base(*have)
    family = base.name if base else origin.base
    cure = f"Load a {family} model" if family else "Load the model that they were trained with"
    example = " (e.g. Realistic Vision V6.0 B1)" if base is BASES[0] else ""
    other = f", or DynamicID weights for {kind.name}" if kind else ""
    places = " in other places of the UNet" if have == want else ""
    raise DynamicIDError(
        f"This model is {kind.name if kind else name or type(unet).__name__} with {_described(*have)}, but the DynamicID "
        f"weights are made for {f'{family} with ' if family else ''}{_described(*want)}{places}. {cure}{example}{other}."
    )


def attention_sites(layout: UNetLayout, saa: SAAModule) -> Iterator[tuple[str, Site]]:
    """Every attention of the UNet by its module's name, with its weights in the checkpoint, in checkpoint order."""
    sites = saa.sites
    for block in layout.blocks:
        for offset, attention in enumerate(("attn1", "attn2")):
            yield f"{block.name}.{attention}", sites[block.site + offset]


def lora_layers(layout: UNetLayout, saa: SAAModule) -> Iterator[tuple[str, LoRA]]:
    """Every linear layer of the UNet that the checkpoint changes, by its module's name, with its LoRA."""
    for attention, site in attention_sites(layout, saa):
        for target, layer in LINEAR_LAYERS.items():
            yield f"{attention}.{layer}", site.lora(target)
