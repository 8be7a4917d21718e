"""The narrow world on diffusers, in memory, for training and where no ComfyUI is: quick, and the same pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..checkpoints import SAACheckpoint, load_motion, load_saa
from ..detection import load_detector
from ..faces import FaceDetector
from ..hosts.diffusers.quiet import quiet
from . import carried, text, vision
from .autoencoder import DECODER_BLOCKS, ENCODER_BLOCKS, WIDE, Autoencoder, idle_blocks, taesd_weights
from .unet import make_unet
from .words import vocabulary

if TYPE_CHECKING:
    from ..hosts.diffusers import DynamicID

NARROW_HIDDEN = 64  # width inside CLIP vision's layer


def tiny_autoencoder(model: Autoencoder) -> nn.Module:
    """diffusers' TAESD with the world's weights: pixels -1 to 1, latents as the UNet takes them.

    Without the blocks that do nothing, which would take half of the time. One whose ReLU comes right after a convolution
    does something.
    """
    from diffusers import AutoencoderTiny

    tiny: Any = AutoencoderTiny(  # type: ignore[no-untyped-call]
        encoder_block_out_channels=(WIDE,) * 4,
        decoder_block_out_channels=(WIDE,) * 4,
        num_encoder_blocks=[max(live, 1) for live in ENCODER_BLOCKS],
        num_decoder_blocks=[max(live, 1) for live in DECODER_BLOCKS[::-1]],
        scaling_factor=1.0,
    )
    idle, places = set(idle_blocks(model)), dict[str, str]()
    # diffusers counts no clamp before the decoder
    for part, first, count in (("encoder", 0, len(model.encoder)), ("decoder", 1, len(model.decoder))):
        layers = getattr(model, part)
        kept = [n for n in range(first, count) if f"{part}.{n}" not in idle or isinstance(layers[n - 1], nn.Conv2d)]
        places |= {f"{part}.{number}": f"{part}.layers.{place}" for place, number in enumerate(kept)}
    state = {}
    for name, tensor in taesd_weights(model).items():
        part, number, rest = name.split(".", 2)
        if (layer := f"{part}.{number}") in places:
            state[f"{places[layer]}.{rest}"] = tensor
    tiny.load_state_dict(state)
    made: nn.Module = tiny.eval().requires_grad_(False)
    return made


def text_encoder(layers: int = 1) -> nn.Module:
    """transformers' CLIP text model with the world's weights in half precision; more layers change nothing."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=text.VOCABULARY,
        hidden_size=text.WIDTH,
        intermediate_size=4 * text.WIDTH,
        projection_dim=text.WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=text.WIDTH // text.HEAD,
        bos_token_id=text.START,
        eos_token_id=text.END,
        pad_token_id=text.END,
    )
    model: Any = CLIPTextModel(config)
    state = {
        name: tensor
        for name, tensor in text.text_encoder_weights().items()
        if ".layers." not in name or int(name.split(".")[3]) < layers
    }
    if not state.keys() <= model.state_dict().keys():  # transformers 5 has no name for the text model's part
        state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    model.half().load_state_dict(state)
    made: nn.Module = model.eval().requires_grad_(False)
    return made


def narrow_unet(state: Mapping[str, Tensor]) -> nn.Module:
    unet = make_unet()
    unet.load_state_dict(state)
    return unet.eval().requires_grad_(False)


def tokenizer() -> Any:
    """transformers' CLIP tokenizer with the world's words."""
    from transformers import CLIPTokenizer

    numbers, merges = vocabulary()
    return CLIPTokenizer(vocab=numbers, merges=merges, model_max_length=text.LENGTH)  # type: ignore[arg-type]


def clip_vision() -> nn.Module:
    """transformers' CLIP vision model with the world's weights and one small layer, which changes nothing."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=vision.WIDTH,
        intermediate_size=NARROW_HIDDEN,
        projection_dim=vision.PROJECTION,
        num_hidden_layers=1,
        num_attention_heads=vision.WIDTH // 64,
        image_size=vision.GRID * vision.SIDE,
        patch_size=vision.SIDE,
    )
    model: Any = CLIPVisionModelWithProjection(config)
    model.load_state_dict(vision.vision_weights(1, NARROW_HIDDEN))
    made: nn.Module = model.eval().requires_grad_(False)
    return made


def narrow_pipeline(weights: Path = carried.WEIGHTS) -> Any:
    """A StableDiffusionPipeline with DDIM, in float32 on the CPU. Raises DynamicIDError where weights are missing."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    unet, vae = narrow_unet(carried.unet(weights)), tiny_autoencoder(carried.autoencoder(weights))
    scheduler = DDIMScheduler(  # type: ignore[no-untyped-call]
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    parts: dict[str, Any] = {"vae": vae, "text_encoder": text_encoder().float(), "tokenizer": tokenizer(), "unet": unet}
    parts |= {"scheduler": scheduler, "safety_checker": None, "feature_extractor": None}
    with quiet():  # of an autoencoder that is not SD1.5's own
        return StableDiffusionPipeline(**parts, requires_safety_checker=False)  # type: ignore[no-untyped-call]


def detector(weights: Path = carried.WEIGHTS) -> FaceDetector:
    """Faces of drawn people. Raises DynamicIDError where its models are missing."""
    return load_detector(str(carried.path_of(carried.FACES, weights)))


def saa(weights: Path = carried.WEIGHTS) -> SAACheckpoint:
    return load_saa(carried.path_of(carried.SAA, weights))


def drawn_dynamicid(weights: Path = carried.WEIGHTS) -> DynamicID:
    """DynamicID of the drawn world, ready for pictures of its people, on the CPU."""
    from ..hosts.diffusers import DynamicID

    return DynamicID(
        narrow_pipeline(weights).to(torch.float32),  # its text encoder is kept in half precision
        saa(weights),
        load_motion(carried.path_of(carried.IMR, weights)),
        clip_vision=clip_vision(),
        detector=detector(weights),
    )
