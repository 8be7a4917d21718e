"""A small dataset and small frozen networks for the tests of the cache and the batches."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from standins.pipeline import make_tokenizer
from torch import nn

from dynamicid_core.checkpoints import SAACheckpoint
from dynamicid_core.datasets.manifest import Manifest, Photo
from dynamicid_core.landmarks import EXPRESSIONS
from dynamicid_core.networks.face_encoder import FaceEncoder, FaceEncoderSizes
from dynamicid_core.networks.saa import SAAModule, SiteSizes
from dynamicid_core.prompts import GRID_POSES
from dynamicid_core.training.frozen import Networks
from dynamicid_core.training.settings import Settings
from dynamicid_core.training.settings_file import load_settings

WIDTH = 32  # of CLIP's states, text states and face tokens
SIZE = 64  # side of training pictures
# Person -> how many photos, collection, split.
PEOPLE = {
    "anna": (4, "photos", "train"),
    "ben": (2, "photos", "train"),
    "cleo": (1, "filled", "train"),
    "kdef-01": (3, "kdef", "train"),
    "zoe": (2, "photos", "validation"),
}


def write_dataset(folder: Path, people=PEOPLE) -> Manifest:
    """Blurred noise with a box for a face, each photo of another size."""
    rows = []
    for person, (count, collection, split) in people.items():
        for number in range(count):
            name = f"{person}-{number}"
            draw = np.random.default_rng(list(name.encode()))
            size = (int(draw.integers(60, 100)), int(draw.integers(60, 100)))
            small = Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            path = folder / "photos" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            small.resize(size[::-1], Image.Resampling.BICUBIC).save(path)
            identity = draw.normal(size=512).astype(np.float32)
            x, y = draw.uniform(0.1, 0.5, 2)
            rows.append(
                Photo(
                    hashlib.sha256(path.read_bytes()).hexdigest(), f"photos/{name}.png", person,
                    EXPRESSIONS[number % 7], GRID_POSES[number % 5], (0.0, float(draw.uniform(-30, 30)), 0.0),
                    draw.uniform(0.2, 0.8, (106, 2)).astype(np.float32), identity / np.linalg.norm(identity),
                    (x, y, x + 0.4, y + 0.4), size, f"a photo of a person, {number}", collection, split,
                )
            )  # fmt: skip
    rows.append(dataclasses.replace(rows[0], id="0" * 64, path="", reason="blurred"))
    Manifest(tuple(rows)).write(folder)
    return Manifest.read(folder)


def seeded(build, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval().requires_grad_(False)


def clip_vision(seed: int = 0) -> nn.Module:
    """17 tokens of width 32."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=WIDTH, projection_dim=16, num_hidden_layers=2, num_attention_heads=2,
        image_size=224, patch_size=56,
    )  # fmt: skip
    return seeded(lambda: CLIPVisionModelWithProjection(config), seed)


def vae(seed: int = 0) -> nn.Module:
    from diffusers import AutoencoderKL

    return seeded(
        lambda: AutoencoderKL(
            block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4, norm_num_groups=4,
            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, scaling_factor=0.5,
        ),
        seed,
    )  # fmt: skip


def text_encoder(seed: int = 0, projection: bool = False) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=514, hidden_size=WIDTH, intermediate_size=WIDTH, projection_dim=24, num_hidden_layers=2,
        num_attention_heads=2, bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )  # fmt: skip
    return seeded(lambda: (CLIPTextModelWithProjection if projection else CLIPTextModel)(config), seed)


def pipeline(seed: int = 0):
    """All of a pipeline but the UNet, which no cache needs."""
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=vae(seed), text_encoder=text_encoder(seed), tokenizer=make_tokenizer(), unet=None, scheduler=None,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl_pipeline(seed: int = 0):
    from diffusers import StableDiffusionXLPipeline

    return StableDiffusionXLPipeline(
        vae=vae(seed), text_encoder=text_encoder(seed), text_encoder_2=text_encoder(seed + 1, projection=True),
        tokenizer=make_tokenizer(), tokenizer_2=make_tokenizer(), unet=None, scheduler=None,
    )  # fmt: skip


def saa(seed: int = 0) -> SAACheckpoint:
    sizes = FaceEncoderSizes(hidden=16, clip=WIDTH, width=WIDTH, depth=1, inner=64, feed_forward=32)
    sites = SAAModule(tuple(SiteSizes(8, 2, context) for context in (None, WIDTH)))
    return SAACheckpoint(seeded(lambda: FaceEncoder(sizes), seed), sites)


def networks(pipe=None, clip=None, checkpoint=None) -> Networks:
    pipe, clip, checkpoint = pipe or pipeline(), clip or clip_vision(), checkpoint or saa()
    return Networks(lambda: pipe, lambda: clip, lambda: checkpoint)


def settings(folder: Path, **changes) -> Settings:
    """``changes``: names of settings with "__" for the point between section and name."""
    small = {"anchor__size": SIZE, "reconfigure__size": SIZE, "dataset": folder, "cache": folder / "cache"}
    return load_settings(None, [f"{name.replace('__', '.')}={value}" for name, value in {**small, **changes}.items()])
