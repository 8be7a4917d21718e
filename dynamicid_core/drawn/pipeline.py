"""The narrow world as a diffusers pipeline, for training and for drawing where no ComfyUI is: quick, and the same pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from . import text
from .autoencoder import BLOCKS, WIDE, Autoencoder, taesd_weights
from .carried import WEIGHTS, carried_autoencoder, carried_unet
from .unet import make_unet
from .words import write_tokenizer


def tiny_autoencoder(model: Autoencoder) -> nn.Module:
    """diffusers' TAESD with the world's weights: pixels -1 to 1, latents as the UNet takes them."""
    from diffusers import AutoencoderTiny

    tiny: Any = AutoencoderTiny(
        encoder_block_out_channels=(WIDE,) * 4,
        decoder_block_out_channels=(WIDE,) * 4,
        num_encoder_blocks=BLOCKS,
        num_decoder_blocks=BLOCKS[::-1],
        scaling_factor=1.0,
    )
    state = {}
    for name, tensor in taesd_weights(model).items():
        part, number, rest = name.split(".", 2)  # diffusers counts no clamp before the decoder
        state[f"{part}.layers.{int(number) - (part == 'decoder')}.{rest}"] = tensor
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


def write_narrow_pipeline(folder: Path, weights: Path = WEIGHTS) -> None:
    """A folder in diffusers' format, about 120 MB. Raises DynamicIDError where weights are missing."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    unet, vae = narrow_unet(carried_unet(weights)), tiny_autoencoder(carried_autoencoder(weights))
    write_tokenizer(folder / "tokenizer")
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    pipe: Any = StableDiffusionPipeline(
        vae=vae,  # type: ignore[arg-type]
        text_encoder=text_encoder(),  # type: ignore[arg-type]
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=unet,  # type: ignore[arg-type]
        scheduler=scheduler,
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder)
