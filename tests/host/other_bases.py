"""Stable Diffusion 2 and XL, narrow: the same seeded tensors in a ComfyUI MODEL and in a diffusers UNet.

The blocks, depths, text widths and added conditions are the real ones; only the channels are fewer. ComfyUI loads them by its
own detection and classes, which are told that there are such narrow ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class NarrowBase:
    """A base model with few channels."""

    name: str  # of ComfyUI's class for the real one
    channels: tuple[int, ...]  # of the UNet's levels
    text_width: int
    prediction: str  # diffusers' word
    pooled: int | None  # width of the added pooled text
    unet: dict[str, Any] = field(default_factory=dict)  # what diffusers needs to know besides

    @property
    def latent_scale(self) -> float:
        return 0.13025 if self.pooled else 0.18215

    def make_unet(self, seed: int = 0) -> nn.Module:
        """diffusers' UNet; its weights are twice as large as usual, so that attention is not lost in noise."""
        from diffusers import UNet2DConditionModel

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet = UNet2DConditionModel(
                sample_size=8,
                block_out_channels=self.channels,
                cross_attention_dim=self.text_width,
                use_linear_projection=True,
                attention_head_dim=tuple(max(width // 64, 1) for width in self.channels),  # how many heads, of 64
                **self.unet,
            )
            for name, parameter in unet.named_parameters():
                if ".attn2." in name and name.endswith("weight"):
                    parameter.data *= 2
                if name.endswith("up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"):
                    parameter.data.normal_(std=0.3)  # by which ComfyUI tells v-prediction
        return unet.eval().requires_grad_(False)

    @contextmanager
    def known_to_comfyui(self) -> Iterator[None]:
        """ComfyUI's list of models, with this one in it."""
        import comfy.supported_models as known

        real = getattr(known, self.name)
        config = {**real.unet_config, "model_channels": self.channels[0]}
        known.models.append(type(self.name, (real,), {"unet_config": config}))
        try:
            yield
        finally:
            known.models.pop()

    def make_model(self, unet: nn.Module) -> Any:
        """ComfyUI's MODEL with that UNet's weights."""
        import comfy.sd
        import comfy.utils

        multiples = [width // self.channels[0] for width in self.channels]
        depths = {"transformer_depth": [1] * 6 + [0] * 2, "transformer_depth_output": [1] * 9 + [0] * 3}
        if self.pooled:
            depths = {"transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_output": [0] * 3 + [2] * 3 + [10] * 3}
        names = comfy.utils.unet_to_diffusers(
            {
                **depths,
                "num_res_blocks": [2] * len(multiples),
                "channel_mult": multiples,
                "transformer_depth_middle": 10 if self.pooled else 1,
            }
        )
        tensors = {names[name]: tensor for name, tensor in unet.state_dict().items()}
        with self.known_to_comfyui():
            return comfy.sd.load_diffusion_model_state_dict(tensors)

    def conditioning(self, seed: int) -> list[list[Any]]:
        """A prompt, as ComfyUI carries it: random text states, and the pooled text where the model wants it."""
        generator = torch.Generator().manual_seed(seed)
        states = torch.randn(1, 77, self.text_width, generator=generator)
        return [[states, {"pooled_output": torch.randn(1, self.pooled or 8, generator=generator)}]]


SDXL = NarrowBase(
    "SDXL",
    (32, 64, 128),
    2048,
    "epsilon",
    1280,
    {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 1280 + 6 * 256,
    },
)
SD2 = NarrowBase("SD20", (64, 128, 256, 256), 1024, "v_prediction", None)


def write_checkpoint(path: Any, unet: nn.Module, rank: int = 4, **about: Any) -> None:
    """Seeded DynamicID weights for a UNet, written as training writes them; ``about``: fields of their origin."""
    from published import proj_module, saa_module, tensors

    from dynamicid_core.bases import UNetLayout
    from dynamicid_core.checkpoints import load_saa, write_saa

    layout = UNetLayout.of(unet)
    width = layout.text_widths[0]
    encoder = tensors(proj_module(hidden=32, width=width, depth=1, inner=64, feed=64), "proj_module.")
    sites = tensors(saa_module(layout.widths, rank, width), "SAA_module.")
    gains = {"up.weight": 0.1, "down.weight": width**-0.5, "ip.weight": 4 * width**-0.5}
    for name, tensor in sites.items():
        tensor *= next(gain for ending, gain in gains.items() if name.endswith(ending))
    made = load_saa(encoder | sites)
    write_saa(path, made.face_encoder, made.saa, layout.origin(**about))


def pipeline(base: NarrowBase, unet: nn.Module) -> Any:
    """A diffusers pipeline with that UNet, without text encoders: prompts come as tensors."""
    import diffusers
    from standins.pipeline import make_vae

    noise = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "timestep_spacing": "leading"}
    scheduler = diffusers.EulerDiscreteScheduler(**noise, prediction_type=base.prediction)
    common = {"vae": make_vae(), "text_encoder": None, "tokenizer": None, "unet": unet, "scheduler": scheduler}
    if base.pooled:
        pipe = diffusers.StableDiffusionXLPipeline(
            **common, text_encoder_2=None, tokenizer_2=None, add_watermarker=False, force_zeros_for_empty_prompt=False
        )
    else:
        pipe = diffusers.StableDiffusionPipeline(
            **common, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sample(pipe: Any, base: NarrowBase, sigmas: list[float], size: tuple[int, int], cfg: float) -> Tensor:
    """What `Studio.sample` does with :meth:`NarrowBase.conditioning` 1 and 2, in diffusers."""
    (positive, more), (negative, less) = base.conditioning(1)[0], base.conditioning(2)[0]
    pooled = {"pooled_prompt_embeds": more, "negative_pooled_prompt_embeds": less} if base.pooled else {}
    latents = pipe(
        prompt_embeds=positive, negative_prompt_embeds=negative,
        **{name: given["pooled_output"] for name, given in pooled.items()},
        latents=torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(7)),
        sigmas=sigmas, num_inference_steps=len(sigmas) - 1, guidance_scale=cfg,
        height=8 * size[0], width=8 * size[1], output_type="latent",
    ).images  # fmt: skip
    return latents / base.latent_scale
