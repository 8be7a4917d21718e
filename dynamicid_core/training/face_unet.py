"""The base's UNet as training runs it: frozen, with the attention of inference, and faces that gradients flow through.

At inference the faces of a cast are packed once; here every row has its own person, and keys, values and probe are
computed from the tokens in each call. All else is the same code: ``hosts.diffusers.unet`` and ``call`` (docs/method.md,
section 3), with the gate acting and one person who has the whole picture.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..attention import face_keys_values, face_probe, packed, site_faces
from ..bases import attention_sites, fitting_layout
from ..call import FACE_ROLE, AppliedCast, Call, Memory, Row, prepare_call
from ..hosts.diffusers.unet import KEY, TimestepSchedule, add_faces, text_attention
from ..networks.saa import SAAModule, Site
from ..types import Cast, DynamicIDError, Face, Person, SAAOptions


class TokenStep(NamedTuple):
    """What the processors need to know of one call of the UNet."""

    call: Call
    tokens: Tensor  # [B, T, 768]: each row's person


class TokenProcessor:
    """The attention processor of one attention: text attention with LoRA, plus the faces at cross attention.

    No module: its weights are those of the site, which somebody else owns.
    """

    def __init__(self, site: Site, lora: bool):
        """``lora``: whether it is computed beside the weights; else it is in them, or left out."""
        self.site, self.lora = site, lora

    def _project(self, layer: nn.Module, target: str, x: Tensor) -> Tensor:
        out = layer(x)
        return out.add_(self.site.lora(target)(x)) if self.lora else out  # in place: nobody else knows it

    # diffusers reads the names of this method's parameters and passes on only those keywords.
    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        dynamicid: TokenStep | None = None,
    ) -> Tensor:
        """``attn``: the Attention; ``hidden_states`` [B, N, C], ``encoder_hidden_states`` [B, S, 768] or None -> [B, N, C]"""
        out, q = text_attention(attn, self._project, hidden_states, encoder_hidden_states, attention_mask)
        if self.site.is_cross and dynamicid is not None:
            keys, values = face_keys_values(self.site, dynamicid.tokens)  # [B, T, C] each
            faces = site_faces(packed(keys, values, face_probe(keys)), attn.heads)
            out = add_faces(dynamicid.call, faces, out, q)
        return attn.to_out[1](self._project(attn.to_out[0], "to_out", out))


class FaceUNet(nn.Module):
    """A frozen UNet2DConditionModel that is told with each call who is in the picture.

    Works on every UNet with cross attention; widths and sites come from the model. The SAA weights are used, not owned:
    they are no part of this module's parameters.
    """

    def __init__(
        self,
        unet: nn.Module,
        saa: SAAModule,
        lora: bool = True,
        timesteps: int = 1000,
        tokens: int = 4,
        options: SAAOptions = SAAOptions(),
    ):
        """``lora``: whether the LoRA is computed beside the weights (where it is trained), else it is in the weights
        (``FusedLoRA``); ``timesteps``: of the noise schedule; ``tokens``: T, of a face; ``options``: how faces act.

        Raises DynamicIDError for a UNet that the weights do not fit.
        """
        super().__init__()
        layout = fitting_layout(unet, saa)
        frozen: Any = unet.requires_grad_(False).eval()
        processors = {f"{name}.processor": TokenProcessor(site, lora) for name, site in attention_sites(layout, saa)}
        frozen.set_attn_processor(processors)
        self.unet: Any = frozen
        nobody = torch.zeros(1, tokens, saa.cross_sites[0].sizes.context or 0)
        # One person without a region has the whole picture, so this stands for every row, whoever that is.
        cast = Cast((Person(Face(nobody, nobody, "")),))
        self._applied = AppliedCast(cast, options, layout, packed=())
        self._schedule, self._memory = TimestepSchedule(timesteps), Memory()

    def added_conditions(self, pooled: Tensor | None, sizes: Tensor | None) -> dict[str, Tensor] | None:
        """What SDXL's UNet is told besides; None for UNets that take nothing. Raises DynamicIDError if it lacks."""
        kind = self.unet.config.get("addition_embed_type")
        if kind is None:
            return None
        if kind != "text_time" or pooled is None or sizes is None:
            raise DynamicIDError(
                f"The base's UNet needs added conditions ({kind}) that the cache does not hold. Run `train cache` with this base."
            )
        return {"text_embeds": pooled, "time_ids": sizes}

    def forward(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        tokens: Tensor,
        pooled: Tensor | None = None,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """``noisy`` [B, 4, h, w], ``timesteps`` [B], ``text`` [B, S, W], ``tokens`` [B, T, W]; SDXL's ``pooled`` [B, W2] and
        ``sizes`` [B, 6] -> what the UNet predicts, [B, 4, h, w].
        """
        device, rows = noisy.device, tuple(Row(FACE_ROLE, 0) for _ in noisy)
        half = torch.is_autocast_enabled(device.type)
        like = noisy.new_empty(0, dtype=torch.get_autocast_dtype(device.type) if half else self.unet.dtype)
        latent = (noisy.shape[-2], noisy.shape[-1])
        with torch.no_grad():  # nothing in it is trained
            call = prepare_call(
                self._applied, rows, latent, timesteps.float(), self._schedule, like, self._memory, recorded=()
            )
        return self.unet(
            noisy,
            timesteps,
            encoder_hidden_states=text,
            added_cond_kwargs=self.added_conditions(pooled, sizes),
            cross_attention_kwargs={KEY: TokenStep(call, tokens)},
            return_dict=False,
        )[0]
