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
        """diffusers' UNet with seeded weights."""
        from diffusers import UNet2DConditionModel

        with torch.device("meta"):
            unet = UNet2DConditionModel(
                sample_size=8,
                block_out_channels=self.channels,
                cross_attention_dim=self.text_width,
                use_linear_projection=True,
                attention_head_dim=tuple(max(width // 64, 1) for width in self.channels),  # how many heads, of 64
                **self.unet,
            )
        unet, generator = unet.to_empty(device="cpu"), torch.Generator().manual_seed(seed)
        for name, parameter in unet.named_parameters():
            if parameter.ndim > 1:
                # What 70 blocks add is small beside what they pass on, as in trained ones: else rounding grows from block to
                # block until two ways to one result have nothing in common.
                gain = 0.2 if name.endswith(("to_out.0.weight", "ff.net.2.weight")) else 0.7
                parameter.data.normal_(std=gain / parameter[0].numel() ** 0.5, generator=generator)
            else:
                is_norm = name.endswith("weight")
                parameter.data.fill_(1.0 if is_norm else 0.0)
        if self.prediction == "v_prediction":  # ComfyUI tells it by this
            told_by = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"
            unet.get_parameter(told_by).data.normal_(std=0.3, generator=generator)
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
            depths = {
                "transformer_depth": [0, 0, 2, 2, 10, 10],
                "transformer_depth_output": [0] * 3 + [2] * 3 + [10] * 3,
            }
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

    noise = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "timestep_spacing": "leading",
        "steps_offset": 1,
    }
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


def make_clip(name: str) -> Any:
    """ComfyUI's CLIP of SDXL ("sdxl") or SD2 ("sd2") with three narrow layers and seeded weights."""
    import comfy.sd
    import comfy.sdxl_clip
    import comfy.supported_models_base
    import comfy.text_encoders.sd2_clip

    classes = {
        "sdxl": (comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel),
        "sd2": (comfy.text_encoders.sd2_clip.SD2Tokenizer, comfy.text_encoders.sd2_clip.SD2ClipModel),
    }
    few = {"num_hidden_layers": 3, "intermediate_size": 64}
    options = {f"{encoder}_model_config": few for encoder in ("clip_l", "clip_g", "clip_h")} | {"dtype": torch.float16}
    target = comfy.supported_models_base.ClipTarget(*classes[name])
    clip = comfy.sd.CLIP(target, model_options=options)
    generator = torch.Generator().manual_seed(5)
    for parameter_name, parameter in clip.cond_stage_model.named_parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
        else:
            parameter.data.fill_(float("norm" in parameter_name and parameter_name.endswith("weight")))
    return clip


def transformers_encoder(clip: Any, feature: str) -> tuple[Any, nn.Module]:
    """One of its encoders as transformers has it, with its tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    encoder = getattr(clip.cond_stage_model, feature)
    width = encoder.transformer.text_projection.weight.shape[1]
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=64, projection_dim=width, num_hidden_layers=3,
        num_attention_heads=width // 64, hidden_act="quick_gelu" if feature == "clip_l" else "gelu",
        bos_token_id=49406, eos_token_id=49407,
    )  # fmt: skip
    model = CLIPTextModelWithProjection(config)
    model.load_state_dict({name: t.float() for name, t in encoder.transformer.state_dict().items()}, strict=False)
    return getattr(clip.tokenizer, feature).tokenizer, model.eval().requires_grad_(False)


def write_motion_checkpoint(path: Any, token: int, text: int, **about: Any) -> None:
    """Seeded IMR weights for face tokens and a text feature of these widths, written as training writes them."""
    from published import imr, key_point_encoder, tensors

    from dynamicid_core.checkpoints import load_motion, write_motion
    from dynamicid_core.origins import Origin

    small = {"width": 64, "latents": 2, "inner": 64, "feed": 64}
    stages = ((2, 1), (3, 3), (4, 2), (3, 1), (4, 2), (5, 1))
    made = load_motion(
        tensors(imr(token=token, motion=32 + text, **small), "IMR.")
        | tensors(key_point_encoder(stages=stages, head=5, out=32), "key_point_encoder.")
    )
    write_motion(path, made.reconfigurator, made.keypoint_encoder, Origin(**about))
