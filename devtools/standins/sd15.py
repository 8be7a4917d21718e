"""A stand-in for a Stable Diffusion 1.5 checkpoint, in the naming of the original (LDM) single-file format.

The UNet has the real one's blocks (16 transformer blocks, 8 heads, text width 768) at 320 channels throughout, where
the real one grows to 1280: the least that hosts take for SD1.5. The text encoder has the real sizes. The VAE has the
real encoder's sizes; its decoder has a quarter of the real channels.

No picture can come of it, but everything that matters for trying a graph does: the UNet answers about its own input
(so that sampling shrinks noise to the size of real latents) plus something that depends on timestep, prompt and
whatever acts in the attention layers; the VAE turns an averaged colour into a latent and back.
"""

from __future__ import annotations

import numpy as np

from .clip import TEXT_WIDTH, text_encoder
from .weights import Weight, Weights, exact, layer, norm, with_prefix, zeros

WIDTH = 320  # channels of every UNet block
SITE_WIDTHS = (WIDTH,) * 16  # of the transformer blocks in checkpoint order: down 6, up 9, middle 1
DECODER_WIDTH, REAL_DECODER_WIDTH = 32, 128

# Residual branches besides attention that carry weights; the others are zero and take no space on the disk.
_LIVE_RESIDUALS = ("input_blocks.1.0", "middle_block.0", "output_blocks.6.0")
_LIVE_FEED_FORWARDS = ("input_blocks.1.1", "middle_block.1", "output_blocks.11.1")


def checkpoint(decoder_width: int = DECODER_WIDTH) -> Weights:
    """Every tensor of the single-file checkpoint: UNet, text encoder, VAE."""
    return (
        with_prefix("model.diffusion_model.", unet())
        | with_prefix("cond_stage_model.transformer.text_model.", text_encoder())
        | with_prefix("first_stage_model.", vae(decoder_width))
    )


# UNet


def unet() -> Weights:
    """The UNet: ``eps(x, t, text)`` near ``x``, plus what the random layers between add."""
    weights = layer("time_embed.0", 4 * WIDTH, WIDTH, gain=1.0) | layer("time_embed.2", 4 * WIDTH, 4 * WIDTH, gain=1.0)
    weights |= {"input_blocks.0.0.weight": exact(_spread()), "input_blocks.0.0.bias": zeros(WIDTH)}
    for block in range(1, 12):
        name = f"input_blocks.{block}"
        if block % 3 == 0:
            weights |= layer(f"{name}.0.op", WIDTH, WIDTH, 3, 3, gain=1.0)
        else:
            weights |= _residual(f"{name}.0", WIDTH)
            if block < 9:
                weights |= _transformer(f"{name}.1")
    weights |= _residual("middle_block.0", WIDTH) | _transformer("middle_block.1") | _residual("middle_block.2", WIDTH)
    for block in range(12):
        name = f"output_blocks.{block}"
        weights |= _residual(f"{name}.0", 2 * WIDTH)
        if block >= 3:
            weights |= _transformer(f"{name}.1")
        if block in (2, 5, 8):
            weights |= layer(f"{name}.{1 if block == 2 else 2}.conv", WIDTH, WIDTH, 3, 3, gain=1.0)
    # The last block's shortcut hands the first convolution's channels on as they are.
    weights["output_blocks.11.0.skip_connection.weight"] = Weight((WIDTH, 2 * WIDTH, 1, 1), _last_shortcut)
    weights |= norm("out.0", WIDTH)
    weights |= {"out.2.weight": Weight((4, WIDTH, 3, 3), _gather), "out.2.bias": zeros(4)}
    return weights


def _residual(prefix: str, channels: int) -> Weights:
    gain = 0.7 if prefix in _LIVE_RESIDUALS else 0.0
    weights = norm(f"{prefix}.in_layers.0", channels) | norm(f"{prefix}.out_layers.0", WIDTH)
    weights |= layer(f"{prefix}.in_layers.2", WIDTH, channels, 3, 3, gain=gain)
    weights |= layer(f"{prefix}.emb_layers.1", WIDTH, 4 * WIDTH, gain=gain)
    weights |= layer(f"{prefix}.out_layers.3", WIDTH, WIDTH, 3, 3, gain=gain)
    if channels != WIDTH:
        weights |= layer(f"{prefix}.skip_connection", WIDTH, channels, 1, 1, gain=1.0)
    return weights


def _transformer(prefix: str) -> Weights:
    inner = f"{prefix}.transformer_blocks.0"
    weights = norm(f"{prefix}.norm", WIDTH) | layer(f"{prefix}.proj_in", WIDTH, WIDTH, 1, 1, gain=1.0)
    for attention, context in (("attn1", WIDTH), ("attn2", TEXT_WIDTH)):
        weights |= layer(f"{inner}.{attention}.to_q", WIDTH, WIDTH, gain=1.0, bias=False)
        weights |= layer(f"{inner}.{attention}.to_k", WIDTH, context, gain=1.0, bias=False)
        weights |= layer(f"{inner}.{attention}.to_v", WIDTH, context, gain=1.0, bias=False)
        weights |= layer(f"{inner}.{attention}.to_out.0", WIDTH, WIDTH, gain=1.0)
    gain = 0.7 if prefix in _LIVE_FEED_FORWARDS else 0.0
    weights |= layer(f"{inner}.ff.net.0.proj", 8 * WIDTH, WIDTH, gain=gain)
    weights |= layer(f"{inner}.ff.net.2", WIDTH, 4 * WIDTH, gain=gain)
    for i in (1, 2, 3):
        weights |= norm(f"{inner}.norm{i}", WIDTH)
    return weights | layer(f"{prefix}.proj_out", WIDTH, WIDTH, 1, 1, gain=0.7)


def _directions() -> np.ndarray:
    """``[WIDTH / 2, 4]``: unit vectors in latent space, evenly spread by a fixed generator."""
    directions = np.random.default_rng(4).standard_normal((WIDTH // 2, 4))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _spread() -> np.ndarray:
    """First convolution: each pair of channels holds plus and minus one direction of the latent."""
    kernel = np.zeros((WIDTH, 4, 3, 3))
    kernel[0::2, :, 1, 1] = _directions()
    kernel[1::2, :, 1, 1] = -_directions()
    return kernel


def _gather(rng: np.random.Generator) -> np.ndarray:
    """Last convolution: the inverse of `_spread` (silu(a) - silu(-a) = a), and a little of every channel.

    1.7 makes up for what the normalisation before it takes: it gives the input 0.55 of its channels' variance.
    """
    kernel = 0.25 * rng.standard_normal((4, WIDTH, 3, 3)) / np.sqrt(9 * WIDTH)
    inverse = 1.7 * np.linalg.pinv(_directions())
    kernel[:, 0::2, 1, 1] += inverse
    kernel[:, 1::2, 1, 1] -= inverse
    return kernel


def _last_shortcut(rng: np.random.Generator) -> np.ndarray:
    from_below = 0.5 * rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)
    return np.concatenate([from_below, np.eye(WIDTH)], axis=1)[:, :, None, None]


# VAE

# Rows: latent channels; columns: red, green, blue. Brightness, then two differences, all of length 1.
_COLOURS = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])


def vae(decoder_width: int = DECODER_WIDTH) -> Weights:
    """The autoencoder: latent channels 0..2 hold the colour of each 8x8 block, 3 is left for the decoder's hue."""
    weights = with_prefix("encoder.", _encoder(128)) | with_prefix("decoder.", _decoder(decoder_width))
    means = np.zeros((8, 8, 1, 1))
    means[:4, :4, 0, 0] = np.eye(4)
    weights |= {"quant_conv.weight": exact(means), "quant_conv.bias": exact(np.repeat([0.0, -20.0], 4))}
    return weights | {"post_quant_conv.weight": exact(np.eye(4)[:, :, None, None]), "post_quant_conv.bias": zeros(4)}


def _encoder(width: int) -> Weights:
    widths = [width, 2 * width, 4 * width, 4 * width]
    signed = np.concatenate([_COLOURS, -_COLOURS])
    first = np.zeros((width, 3, 3, 3))
    first[:6, :, 1, 1] = signed
    weights = {"conv_in.weight": exact(first), "conv_in.bias": zeros(width)}
    channels = width
    for level, out in enumerate(widths):
        for block in range(2):
            weights |= _vae_block(f"down.{level}.block.{block}", channels, out)
            channels = out
        if level < 3:
            average = np.zeros((3, 3))
            average[:2, :2] = 0.25  # the layer pads at the right and bottom only
            weights |= _filter(f"down.{level}.downsample.conv", channels, average)
    last = np.zeros((8, channels, 3, 3))
    for i in range(3):  # 3.4: real latents have a deviation of about 5.5, the normalised channels one of about 1.6
        last[i, [i, i + 3], 1, 1] = [3.4, -3.4]
    weights |= _vae_middle(channels) | norm("norm_out", channels)
    return weights | {"conv_out.weight": exact(last), "conv_out.bias": zeros(8)}


def _decoder(width: int) -> Weights:
    widths = [width, 2 * width, 4 * width, 4 * width]
    channels = widths[-1]
    first = np.zeros((channels, 4, 3, 3))
    first[:8, :, 1, 1] = np.concatenate([np.eye(4), -np.eye(4)])
    weights = {"conv_in.weight": exact(first), "conv_in.bias": zeros(channels)} | _vae_middle(channels)
    for level in (3, 2, 1, 0):
        for block in range(3):
            weights |= _vae_block(f"up.{level}.block.{block}", channels, widths[level])
            channels = widths[level]
        if level:
            weights |= _filter(f"up.{level}.upsample.conv", channels, np.outer([1, 2, 1], [1, 2, 1]) / 16)
    last = np.zeros((3, channels, 3, 3))
    hue = np.array([[0.3, -0.1, -0.2]])
    colours = 0.35 * np.concatenate([_COLOURS, hue]).T  # pixels of -1..1 with a deviation of about a third
    last[:, 0:4, 1, 1], last[:, 4:8, 1, 1] = colours, -colours
    return weights | norm("norm_out", channels) | {"conv_out.weight": exact(last), "conv_out.bias": zeros(3)}


def _filter(prefix: str, channels: int, kernel: np.ndarray) -> Weights:
    """A convolution that filters each channel by itself."""
    return {
        f"{prefix}.weight": exact(np.eye(channels)[:, :, None, None] * kernel),
        f"{prefix}.bias": zeros(channels),
    }


def _vae_block(prefix: str, channels: int, out: int) -> Weights:
    """A residual block without a residual: only its shortcut, which keeps or drops whole channels, carries weights."""
    weights = norm(f"{prefix}.norm1", channels) | norm(f"{prefix}.norm2", out)
    weights |= layer(f"{prefix}.conv1", out, channels, 3, 3, gain=0) | layer(f"{prefix}.conv2", out, out, 3, 3, gain=0)
    if channels != out:
        shortcut = exact(np.eye(out, channels)[:, :, None, None])
        weights |= {f"{prefix}.nin_shortcut.weight": shortcut, f"{prefix}.nin_shortcut.bias": zeros(out)}
    return weights


def _vae_middle(channels: int) -> Weights:
    weights = _vae_block("mid.block_1", channels, channels) | _vae_block("mid.block_2", channels, channels)
    weights |= norm("mid.attn_1.norm", channels)
    for name in ("q", "k", "v", "proj_out"):
        weights |= layer(f"mid.attn_1.{name}", channels, channels, 1, 1, gain=0)
    return weights
