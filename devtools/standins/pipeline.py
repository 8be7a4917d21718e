"""A small stand-in for a diffusers SD1.5 pipeline, with seeded random weights: everything runs, in seconds, offline.

The UNet has the real one's layout (16 transformer blocks, 8 heads, text width 768) in a fraction of its width. The
tokenizer knows single characters only. The pictures are noise; what acts on them acts.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from . import clip
from .dynamicid import imr, saa
from .weights import MARK, Weights, tensors, with_prefix

WIDTHS = (32, 64, 64, 64)  # of the UNet's levels
SITE_WIDTHS = (32, 32, 64, 64, 64, 64) + (64,) * 3 + (64,) * 3 + (32,) * 3 + (64,)  # checkpoint order: down, up, middle
CLIP_LAYERS = 2


def _seeded(build, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval().requires_grad_(False)


def _filled(module: nn.Module, weights: Weights, seed: int) -> nn.Module:
    """With these weights in place."""
    if not weights.keys() <= module.state_dict().keys():
        weights = with_prefix("text_model.", weights)  # transformers 4 calls the text model's parts so, 5 does not
    module.load_state_dict(tensors(weights, seed))
    return module.eval().requires_grad_(False)


def make_unet(seed: int = 0) -> nn.Module:
    """A UNet2DConditionModel with SD1.5's blocks."""
    from diffusers import UNet2DConditionModel

    return _seeded(
        lambda: UNet2DConditionModel(
            sample_size=32, block_out_channels=WIDTHS, cross_attention_dim=clip.TEXT_WIDTH, attention_head_dim=8
        ),
        seed,
    )


def make_vae(seed: int = 0) -> nn.Module:
    """An AutoencoderKL that shrinks pictures eightfold, as SD1.5's does."""
    from diffusers import AutoencoderKL

    return _seeded(
        lambda: AutoencoderKL(
            block_out_channels=(32, 32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            scaling_factor=0.18215,
        ),
        seed,
    )


def make_tokenizer():
    """A CLIP tokenizer without merges: a token for each byte, and the real one's start and end."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    characters = list(bytes_to_unicode().values())
    words = [*characters, *(f"{c}</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)


def make_text_encoder(seed: int = 0) -> nn.Module:
    """A CLIP text model of the real width and two layers, for :func:`make_tokenizer`."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=514,
        hidden_size=clip.TEXT_WIDTH,
        intermediate_size=clip.TEXT_WIDTH,
        projection_dim=clip.TEXT_WIDTH,
        num_hidden_layers=CLIP_LAYERS,
        num_attention_heads=12,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    return _filled(CLIPTextModel(config), clip.text_encoder(CLIP_LAYERS, config.vocab_size, growth=1), seed)


def make_clip_vision(seed: int = 0) -> nn.Module:
    """A CLIP vision model of ViT-H/14's width with two layers."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=clip.VISION_WIDTH,
        intermediate_size=clip.VISION_WIDTH,
        projection_dim=clip.PROJECTION,
        num_hidden_layers=CLIP_LAYERS,
        num_attention_heads=16,
        image_size=224,
        patch_size=14,
        hidden_act="gelu",
    )
    return _filled(CLIPVisionModelWithProjection(config), clip.vision_encoder(CLIP_LAYERS, growth=1), seed)


def make_pipeline(seed: int = 0):
    """A StableDiffusionPipeline with DDIM, in float32 on the CPU."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    pipe = StableDiffusionPipeline(
        vae=make_vae(seed),
        text_encoder=make_text_encoder(seed),
        tokenizer=make_tokenizer(),
        unet=make_unet(seed),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def saa_tensors(seed: int = 0) -> dict[str, Tensor]:
    """Face encoder and attention sites for :func:`make_unet`, named as in ``saa.safetensors``."""
    return tensors(saa(SITE_WIDTHS), seed)


def motion_tensors(seed: int = 0) -> dict[str, Tensor]:
    """IMR and key point encoder, named as in ``imr.safetensors``."""
    return tensors(imr(), seed)


def make_detector(seed: int = 0):
    """InsightFace's own code on stand-in models."""
    from dynamicid_core.detection import load_detector

    from .detector import write_detector_pack

    with tempfile.TemporaryDirectory() as folder:  # the models are in memory once they are loaded
        write_detector_pack(Path(folder) / "pack", seed=seed)
        return load_detector(str(Path(folder) / "pack"))


def make_dynamicid(seed: int = 0):
    """A :class:`hosts.diffusers.DynamicID` of stand-ins, ready for photos."""
    from dynamicid_core.checkpoints import load_motion, load_saa
    from dynamicid_core.hosts.diffusers import DynamicID

    return DynamicID(
        make_pipeline(seed),
        load_saa(saa_tensors(seed)),
        load_motion(motion_tensors(seed)),
        clip_vision=make_clip_vision(seed),
        detector=make_detector(seed),
    )


def write_files(folder: Path | str, seed: int = 0) -> dict[str, Path]:
    """The same as files: ``model`` (a diffusers folder), ``saa``, ``imr``, ``clip_vision`` (a folder), ``detector``."""
    from dynamicid_core.saving import write_safetensors

    from .detector import write_detector_pack

    folder = Path(folder)
    mark = {"format": "pt", "dynamicid": MARK}
    make_pipeline(seed).save_pretrained(folder / "model")
    make_clip_vision(seed).save_pretrained(folder / "clip_vision")
    write_detector_pack(folder / "detector", seed=seed)
    return {
        "model": folder / "model",
        "clip_vision": folder / "clip_vision",
        "detector": folder / "detector",
        "saa": write_safetensors(folder / "saa.safetensors", saa_tensors(seed), mark),
        "imr": write_safetensors(folder / "imr.safetensors", motion_tensors(seed), mark),
    }
