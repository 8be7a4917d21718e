"""Stand-ins for DynamicID's own checkpoints: as safetensors to run graphs, as published pickles to test readers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dynamicid_core.files import HUB_FILES

from . import sd15
from .weights import Weights, constant, layer, norm, normal, tensors, with_prefix, zeros

if TYPE_CHECKING:
    from torch import Tensor

# Transformer blocks of the real SD1.5 UNet, in checkpoint order: down 6, up 9, middle 1 (docs/method.md, "Checkpoints").
PUBLISHED_WIDTHS = (320, 320, 640, 640, 1280, 1280) + (1280,) * 3 + (640,) * 3 + (320,) * 3 + (1280,)


def saa(widths: Sequence[int] = sd15.SITE_WIDTHS, rank: int = 8, depth: int = 1) -> Weights:
    """``proj_module`` and ``SAA_module`` for a UNet whose transformer blocks have these widths.

    ``depth`` is the perceiver's. Defaults fit the stand-in UNet.
    """
    module: Weights = {}
    for block, width in enumerate(widths):
        for site, context in ((2 * block, width), (2 * block + 1, 768)):
            for name, wide in (("to_q", width), ("to_k", context), ("to_v", context), ("to_out", width)):
                module |= layer(f"{site}.{name}_lora.down", rank, wide, gain=1.0, bias=False)
                module |= layer(f"{site}.{name}_lora.up", width, rank, gain=0.1, bias=False)
        module |= layer(f"{2 * block + 1}.to_k_ip", width, 768, gain=1.0, bias=False)
        module |= layer(f"{2 * block + 1}.to_v_ip", width, 768, gain=2.0, bias=False)
    return with_prefix("proj_module.", _projection(depth)) | with_prefix("SAA_module.", module)


def imr(depth: int = 1) -> Weights:
    """``IMR`` with this many DisENet and ReENet layers, and ``key_point_encoder``."""
    return with_prefix("IMR.", _reconfigurator(depth)) | with_prefix("key_point_encoder.", _key_point_encoder())


def published_pickles(folder: Path | str, seed: int = 0, full: bool = False) -> dict[str, Path]:
    """Write ``SAA.bin``, ``IMR.bin`` and ``key_point_encoder.bin`` with the published nesting and tensor names.

    ``full`` gives the published shapes (about 550 MB), else those of the stand-in UNet. Values are float32. Returns
    the paths by file name.
    """
    import torch

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    face = saa(PUBLISHED_WIDTHS, rank=128, depth=4) if full else saa()
    motion = imr()
    saa_file, imr_file, keypoint_file = HUB_FILES
    contents = {
        saa_file: {part: _part(face, f"{part}.", seed) for part in ("proj_module", "SAA_module")},
        imr_file: _part(motion, "IMR.", seed),
        keypoint_file: _part(motion, "key_point_encoder.", seed),
    }
    paths = {name: folder / name for name in contents}
    for name, content in contents.items():
        torch.save(content, paths[name])
    return paths


def _part(weights: Weights, prefix: str, seed: int) -> dict[str, Tensor]:
    """Those whose names begin so, without that beginning."""
    chosen = {name: weight for name, weight in weights.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): tensor for name, tensor in tensors(chosen, seed).items()}


def _attention(prefix: str, width: int, inner: int, two_norms: bool) -> Weights:
    weights = norm(f"{prefix}.norm1", width) | (norm(f"{prefix}.norm2", width) if two_norms else {})
    weights |= layer(f"{prefix}.to_q", inner, width, gain=1.0, bias=False)
    weights |= layer(f"{prefix}.to_kv", 2 * inner, width, gain=1.0, bias=False)
    return weights | layer(f"{prefix}.to_out", width, inner, gain=1.0, bias=False)


def _feed_forward(prefix: str, width: int) -> Weights:
    """Zero behind its norm: half of the weights for nothing that a stand-in could show."""
    weights = norm(f"{prefix}.0", width) | layer(f"{prefix}.1", 4 * width, width, gain=0, bias=False)
    return weights | layer(f"{prefix}.3", width, 4 * width, gain=0, bias=False)


def _projection(depth: int) -> Weights:
    weights = layer("proj.0", 1024, 512, gain=22.0)  # an identity of 512 values has length 1: scale it to unit variance
    weights |= layer("proj.2", 4 * 768, 1024, gain=1.0) | norm("norm", 768)
    resampler = layer("proj_in", 768, 1280, gain=1.0) | layer("proj_out", 768, 768, gain=1.0) | norm("norm_out", 768)
    for i in range(depth):
        resampler |= _attention(f"layers.{i}.0", 768, 768, two_norms=True) | _feed_forward(f"layers.{i}.1", 768)
    return weights | with_prefix("perceiver_resampler.", resampler)


def _reconfigurator(depth: int) -> Weights:
    weights = norm("feature_fusion.0", 1536) | layer("feature_fusion.1", 1024, 1536, gain=1.0)
    weights |= norm("feature_fusion.3", 1024) | layer("feature_fusion.4", 4096, 1024, gain=1.0)
    weights |= norm("norm_in", 768) | layer("proj_in", 1024, 768, gain=1.0)
    for net in ("disentangleNet", "entangleNet"):
        for i in range(depth):
            weights |= _attention(f"{net}.{i}.0", 1024, 1024, two_norms=True)
            weights |= _attention(f"{net}.{i}.1", 1024, 1024, two_norms=False)
            weights |= _feed_forward(f"{net}.{i}.2", 1024)
    return weights | norm("norm_out", 1024) | layer("proj_out", 768, 1024, gain=1.0)


def _key_point_encoder() -> Weights:
    """Stages of convolutions: (kernel, inputs, outputs) of the first, and how many residual ones follow."""
    stages = [(7, 1, 16, 0), (3, 16, 32, 2), (3, 32, 64, 3), (3, 64, 128, 2), (3, 128, 256, 2), (3, 256, 512, 1)]
    weights: Weights = {}
    for stage, (kernel, inputs, outputs, residuals) in enumerate(stages):
        weights |= _convolution(f"blocks.{stage}.0", outputs, inputs, kernel)
        for i in range(residuals):
            weights |= _convolution(f"blocks.{stage}.{i + 1}", outputs, outputs, 3)
    return weights | _convolution("blocks.6.0", 512, 512, 3) | _convolution("blocks.6.1", 768, 512, 1)


def _convolution(prefix: str, outputs: int, inputs: int, kernel: int) -> Weights:
    weights = layer(f"{prefix}.conv_block.0", outputs, inputs, kernel, kernel, gain=1.4)  # 1.4: half dies in the ReLU
    weights |= norm(f"{prefix}.conv_block.1", outputs)
    weights[f"{prefix}.conv_block.1.bias"] = normal(outputs, std=0.1)
    weights[f"{prefix}.conv_block.1.running_mean"] = zeros(outputs)
    weights[f"{prefix}.conv_block.1.running_var"] = constant(1.0, outputs)
    return weights | {f"{prefix}.conv_block.1.num_batches_tracked": zeros(dtype="I64")}
