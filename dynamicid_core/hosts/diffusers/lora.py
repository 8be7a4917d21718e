"""The LoRA of all attentions in a UNet's own weights, and out of them again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...bases import fitting_layout, linear_layer, lora_layers
from ...networks.saa import LoRA, SAAModule
from ...types import DynamicIDError


class FusedLoRA:
    """The LoRA added to the UNet's own weights; :meth:`remove` brings back every bit."""

    def __init__(self, unet: nn.Module, saa: SAAModule, strength: float):
        """Raises DynamicIDError for a UNet that the weights do not fit, or whose weights cannot be changed."""
        self.saa, self.strength = saa, strength
        modules = dict(unet.named_modules())
        pairs = [
            (linear_layer(modules[name]).weight, lora) for name, lora in lora_layers(fitting_layout(unet, saa), saa)
        ]
        if any(weight.is_meta or not weight.is_floating_point() for weight, _ in pairs):
            raise DynamicIDError(
                "The UNet's weights cannot be changed (they are quantized, or offloaded one by one). Apply DynamicID "
                "before enable_sequential_cpu_offload(), or with lora='apart'."
            )
        # On the CPU: the originals are needed once, after sampling.
        self._originals = [(weight, weight.detach().to("cpu", copy=True)) for weight, _ in pairs]
        try:
            self._add(pairs)
        except BaseException:  # out of memory in the middle, say: what was added would never be taken out
            self.remove()
            raise

    @torch.no_grad()
    def _add(self, pairs: Sequence[tuple[Tensor, LoRA]]) -> None:
        for weight, lora in pairs:
            up, down = (layer.weight.to(weight.device, torch.float32) for layer in (lora.up, lora.down))
            weight.copy_(torch.addmm(weight.float(), up, down, alpha=self.strength))

    def remove(self) -> None:
        """Give the UNet its own weights back."""
        with torch.no_grad():
            for weight, original in self._originals:
                weight.copy_(original)
