"""The tensors of Semantic-Activated Attention, one module for each attention site (docs/method.md, section 3; ``SAA_module``).

A site's sum is ``W x + strength * up(down(x))`` for q, k, v and out; cross sites add the keys and values of faces.
What is done with them stands in :mod:`dynamicid_core.attention`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .operations import Operations

LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out")


@dataclass(frozen=True)
class SiteSizes:
    """One attention layer of the UNet."""

    width: int  # C
    rank: int = 128
    context: int | None = None  # width of the text tokens; None at self attention


class LoRA(nn.Module):
    """``up(down(x))``, without an alpha."""

    def __init__(self, c_in: int, c_out: int, rank: int, operations: Operations = nn):
        super().__init__()
        self.down = operations.Linear(c_in, rank, bias=False)
        self.up = operations.Linear(rank, c_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))


class Site(nn.Module):
    """Weights of one attention layer; ``to_k_ip`` and ``to_v_ip`` exist at cross attention only."""

    def __init__(self, sizes: SiteSizes, operations: Operations = nn):
        super().__init__()
        self.sizes = sizes
        context = sizes.context or sizes.width
        self.to_q_lora = LoRA(sizes.width, sizes.width, sizes.rank, operations)
        self.to_k_lora = LoRA(context, sizes.width, sizes.rank, operations)
        self.to_v_lora = LoRA(context, sizes.width, sizes.rank, operations)
        self.to_out_lora = LoRA(sizes.width, sizes.width, sizes.rank, operations)
        if sizes.context is not None:
            self.to_k_ip = operations.Linear(context, sizes.width, bias=False)
            self.to_v_ip = operations.Linear(context, sizes.width, bias=False)

    @property
    def is_cross(self) -> bool:
        return self.sizes.context is not None

    def lora(self, target: str) -> LoRA:
        """The LoRA of ``to_q``, ``to_k``, ``to_v`` or ``to_out``."""
        return getattr(self, f"{target}_lora")


class SAAModule(nn.ModuleList):
    """All sites in checkpoint order: down, up, middle; in a block self attention, then cross attention."""

    def __init__(self, sizes: tuple[SiteSizes, ...], operations: Operations = nn):
        super().__init__(Site(site, operations) for site in sizes)

    @property
    def sites(self) -> list[Site]:
        """Every site, self and cross attention in turn."""
        return [site for site in self if isinstance(site, Site)]

    @property
    def cross_sites(self) -> list[Site]:
        """The cross attentions, which have keys and values for faces."""
        return [site for site in self.sites if site.is_cross]
