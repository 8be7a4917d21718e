"""A UNet's attention sites in checkpoint order, for each naming scheme.

Checkpoint order is down, up, middle, and within a transformer block self attention, then cross attention
(method, section 3): SD1.5 has 16 blocks, hence sites 0..31, even = self, odd = cross.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .types import DynamicIDError

# The stage of a block -> its place in checkpoint order.
_ORDER = {"down": 0, "input": 0, "up": 1, "output": 1, "mid": 2, "middle": 2}
_BLOCK = re.compile(
    r"(?:^|\.)(?P<name>(?P<stage>down|up|mid|input|output|middle)_blocks?\."
    r"(?P<path>[\d.]*(?:attentions\.\d+\.)?)transformer_blocks\.(?P<index>\d+))\.attn2\."
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
    """Blocks in checkpoint order, from the names of a UNet's parameters or modules.

    Known naming schemes are LDM's (``input_blocks.1.1.transformer_blocks.0``; what precedes it is ignored)
    and diffusers' (``down_blocks.0.attentions.0.transformer_blocks.0``).
    Raises DynamicIDError if there are none.
    """
    found = {}
    for name in names:
        if match := _BLOCK.search(name):
            numbers = tuple(int(n) for n in re.findall(r"\d+", match["path"]))
            found[(_ORDER[match["stage"]], numbers, int(match["index"]))] = match["name"]
    if not found:
        raise DynamicIDError(
            "This model has no cross-attention blocks that DynamicID knows. Use a Stable Diffusion 1.5 model."
        )
    stages = ("input", "output", "middle")
    return [
        TransformerBlock(found[key], stages[key[0]], 0 if key[0] == 2 else key[1][0], key[2], 2 * site)
        for site, key in enumerate(sorted(found))
    ]
