"""Names and shapes of the published files, written out from the method's *Checkpoints*, and such tensors in any size.

Nothing here knows the project's own networks, which are held to it.
"""

from __future__ import annotations

import torch

Shapes = dict[str, tuple[int, ...]]
SD15_WIDTHS = (320, 320, 640, 640, 1280, 1280, *[1280] * 3, *[640] * 3, *[320] * 3, 1280)  # down, up, middle
KEYPOINT_STAGES = ((16, 1), (32, 3), (64, 4), (128, 3), (256, 3), (512, 2))  # channels, convolutions


def _linear(name: str, c_in: int, c_out: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (c_out, c_in)} | ({f"{name}.bias": (c_out,)} if bias else {})


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _attention(name: str, width: int, inner: int, norms: tuple[str, ...]) -> Shapes:
    shapes = {f"{name}.to_q.weight": (inner, width), f"{name}.to_kv.weight": (2 * inner, width)}
    shapes[f"{name}.to_out.weight"] = (width, inner)
    for norm in norms:
        shapes |= _norm(f"{name}.{norm}", width)
    return shapes


def _feed_forward(name: str, width: int, inner: int) -> Shapes:
    up, down = _linear(f"{name}.1", width, inner, False), _linear(f"{name}.3", inner, width, False)
    return _norm(f"{name}.0", width) | up | down


def proj_module(identity=512, hidden=1024, clip=1280, width=768, tokens=4, depth=4, inner=768, feed=3072) -> Shapes:
    shapes = _linear("proj.0", identity, hidden) | _linear("proj.2", hidden, width * tokens) | _norm("norm", width)
    top = "perceiver_resampler"
    shapes |= _linear(f"{top}.proj_in", clip, width) | _linear(f"{top}.proj_out", width, width)
    shapes |= _norm(f"{top}.norm_out", width)
    for i in range(depth):
        shapes |= _attention(f"{top}.layers.{i}.0", width, inner, ("norm1", "norm2"))
        shapes |= _feed_forward(f"{top}.layers.{i}.1", width, feed)
    return shapes


def saa_module(widths=SD15_WIDTHS, rank=128, context=768) -> Shapes:
    shapes = {}
    for site in range(2 * len(widths)):
        width, is_cross = widths[site // 2], site % 2 == 1
        for target in ("to_q", "to_k", "to_v", "to_out"):
            c_in = context if is_cross and target in ("to_k", "to_v") else width
            shapes[f"{site}.{target}_lora.down.weight"] = (rank, c_in)
            shapes[f"{site}.{target}_lora.up.weight"] = (width, rank)
        if is_cross:
            shapes |= {f"{site}.to_k_ip.weight": (width, context), f"{site}.to_v_ip.weight": (width, context)}
    return shapes


def imr(token=768, motion=1536, width=1024, latents=4, inner=1024, feed=4096, depth_out=1, depth_in=1) -> Shapes:
    top = "feature_fusion"
    shapes = _norm(f"{top}.0", motion) | _linear(f"{top}.1", motion, width) | _norm(f"{top}.3", width)
    shapes |= _linear(f"{top}.4", width, latents * width)
    shapes |= _norm("norm_in", token) | _linear("proj_in", token, width)
    for net, depth in (("disentangleNet", depth_out), ("entangleNet", depth_in)):
        for i in range(depth):
            shapes |= _attention(f"{net}.{i}.0", width, inner, ("norm1", "norm2"))
            shapes |= _attention(f"{net}.{i}.1", width, inner, ("norm1",))
            shapes |= _feed_forward(f"{net}.{i}.2", width, feed)
    return shapes | _norm("norm_out", width) | _linear("proj_out", width, token)


def key_point_encoder(stages=KEYPOINT_STAGES, head=512, out=768) -> Shapes:
    shapes, channels = {}, 1
    convs = [
        (f"{stage}.{i}", 7 if stage == 0 else 3, width) for stage, (width, n) in enumerate(stages) for i in range(n)
    ]
    for place, kernel, width in [*convs, (f"{len(stages)}.0", 3, head), (f"{len(stages)}.1", 1, out)]:
        name = f"blocks.{place}.conv_block"
        shapes |= {f"{name}.0.weight": (width, channels, kernel, kernel), f"{name}.0.bias": (width,)}
        shapes |= {f"{name}.1.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{name}.1.num_batches_tracked"] = ()
        channels = width
    return shapes


# Another UNet, other widths, other ranks: small enough to write to disk in every test.
SMALL_PROJ = proj_module(identity=6, hidden=10, clip=9, width=8, tokens=3, depth=2, inner=16, feed=12)
SMALL_SAA = saa_module(widths=(4, 6, 4), rank=2, context=8)
SMALL_IMR = imr(token=8, motion=14, width=12, latents=2, inner=16, feed=20, depth_out=2, depth_in=1)
SMALL_KEYPOINTS = key_point_encoder(stages=((2, 1), (3, 3), (4, 2), (3, 1), (4, 2), (5, 1)), head=5, out=7)


def tensors(shapes: Shapes, prefix: str = "", dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Random tensors of those shapes; BatchNorm's counters are int64, its variances positive."""
    generator = torch.Generator().manual_seed(len(shapes))
    made = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator).to(dtype)
        if name.endswith("num_batches_tracked"):
            value = torch.tensor(len(made), dtype=torch.int64)
        made[prefix + name] = value.abs() + 1 if name.endswith("running_var") else value
    return made


def small_saa(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """The tensors of a small ``saa.safetensors``."""
    return tensors(SMALL_PROJ, "proj_module.", dtype) | tensors(SMALL_SAA, "SAA_module.", dtype)


def small_imr(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """The tensors of a small ``imr.safetensors``."""
    return tensors(SMALL_IMR, "IMR.", dtype) | tensors(SMALL_KEYPOINTS, "key_point_encoder.", dtype)
