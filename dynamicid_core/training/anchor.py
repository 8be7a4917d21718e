"""Stage 1, anchoring: face encoder and SAA learn to put one person into pictures (docs/method.md, section 4).

Trained are the face encoder, all LoRA, and the keys and values of faces, which start from the base's for text; the UNet is
frozen. Loss: the UNet's own, on the noise.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..bases import UNetLayout, linear_layer
from ..networks.face_encoder import FaceEncoder, FaceEncoderSizes
from ..networks.perceiver import HEAD_WIDTH
from ..networks.saa import LORA_TARGETS, SAAModule, SiteSizes
from ..types import DynamicIDError, SAAOptions
from .batches import AnchorBatch
from .face_unet import FaceUNet
from .losses import NoiseSchedule, mean_square


class AnchorModel(nn.Module):
    """What anchoring trains, by the checkpoint's names, and the frozen UNet that it is trained through."""

    def __init__(
        self,
        unet: nn.Module,
        face_encoder: FaceEncoder,
        saa: SAAModule,
        timesteps: int = 1000,
        options: SAAOptions = SAAOptions(),
    ):
        """The weights become float32 and trainable; the UNet keeps its dtype. ``timesteps``: of the noise schedule;
        ``options``: how faces act.

        Raises DynamicIDError for a UNet that the weights do not fit.
        """
        super().__init__()
        self.faces = FaceUNet(unet, saa, True, timesteps, face_encoder.sizes.tokens, options)
        self.proj_module = face_encoder.float().requires_grad_().train()
        self.SAA_module = saa.float().requires_grad_().train()

    def forward(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        identity: Tensor,
        clip: Tensor,
        pooled: Tensor | None = None,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """As :meth:`FaceUNet.forward`, for the people whose ``identity`` [B, 512] and ``clip`` states [B, L, Wc] these are."""
        return self.faces(noisy, timesteps, text, self.proj_module(identity, clip), pooled, sizes)


def anchor_losses(
    model: nn.Module,
    batch: AnchorBatch,
    noise: Tensor,
    timesteps: Tensor,
    schedule: NoiseSchedule,
    min_snr_gamma: float = 0.0,
) -> dict[str, Tensor]:
    """``loss``: the mean squared error of what :class:`AnchorModel` predicts; ``min_snr_gamma`` 0: all rows weigh 1.

    ``noise`` [B, 4, h, w], ``timesteps`` [B]. Places count as the batch says.
    """
    latents = batch.latents.float()
    noisy = schedule.noisy(latents, noise, timesteps)
    predicted = model(noisy, timesteps, batch.text, batch.identity, batch.clip, batch.pooled, batch.sizes)
    weights = schedule.min_snr_weights(timesteps, min_snr_gamma) if min_snr_gamma else None
    return {"loss": mean_square(predicted, schedule.target(latents, noise, timesteps), weights, batch.places)}


# --- weights to begin with ----------------------------------------------------------------------------------------


def new_face_encoder(unet: nn.Module, clip_width: int, seed: int = 0, **sizes: Any) -> FaceEncoder:
    """A face encoder of the published form with random weights, whose tokens are as wide as the UNet's text tokens.

    ``clip_width``: of CLIP's states; ``sizes``: others than published (:class:`FaceEncoderSizes`).
    Raises DynamicIDError for a UNet without cross attention.
    """
    width = _text_width(UNetLayout.of(unet))
    inner = width if width <= HEAD_WIDTH else -(-width // HEAD_WIDTH) * HEAD_WIDTH  # whole heads
    wanted: dict[str, Any] = {"clip": clip_width, "width": width, "inner": inner, "feed_forward": 4 * width, **sizes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FaceEncoder(FaceEncoderSizes(**wanted))


def new_saa(unet: nn.Module, rank: int, seed: int = 0) -> SAAModule:
    """SAA weights that change nothing yet but for the faces: LoRA whose sum is 0, faces' keys and values as the text's.

    Sites and widths come from the UNet. Raises DynamicIDError for a UNet without cross attention.
    """
    layout, modules = UNetLayout.of(unet), dict(unet.named_modules())
    width = _text_width(layout)
    saa = SAAModule(tuple(SiteSizes(c, rank, context) for c in layout.widths for context in (None, width)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for lora in (site.lora(target) for site in saa.sites for target in LORA_TARGETS):
            lora.down.weight.normal_(0, 1 / rank, generator=generator)
            lora.up.weight.zero_()
        for block, site in zip(layout.blocks, saa.cross_sites, strict=True):
            for name in ("to_k", "to_v"):
                own = linear_layer(modules[f"{block.name}.attn2.{name}"]).weight
                getattr(site, f"{name}_ip").weight.copy_(own)
    return saa


def _text_width(layout: UNetLayout) -> int:
    """The one width of a UNet's text tokens, which its face tokens will have."""
    widths = sorted(set(layout.text_widths))
    if len(widths) != 1:
        found = f"text tokens of widths {', '.join(map(str, widths))}" if widths else "no cross attention"
        raise DynamicIDError(f"The base's UNet has {found}; DynamicID needs cross attention to text of one width.")
    return widths[0]
