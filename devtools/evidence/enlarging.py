"""Pictures enlarged and sampled again in tiles, each by itself, as tiled upscalers do it."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from dynamicid_core.drawn.world import ACTING, GUIDANCE, REFINE_STEPS
from dynamicid_core.hosts.diffusers import DynamicID
from dynamicid_core.types import Cast

TIMES = 2  # as high and as wide
TILE = 192  # px of a tile's width; it is as high as the picture
DENOISE = 0.5


def enlarged(did: DynamicID, picture: Image.Image, cast: Cast, caption: str, told: bool) -> Image.Image:
    """A picture at :data:`TIMES` its size; ``told``: each tile knows which part of the picture it is."""
    from diffusers import AutoPipelineForImage2Image

    pipe: Any = AutoPipelineForImage2Image.from_pipe(did.pipe)
    pipe.set_progress_bar_config(disable=True)
    larger = picture.resize((picture.width * TIMES, picture.height * TIMES), Image.Resampling.LANCZOS)
    made = larger.copy()
    for left in range(0, larger.width, TILE):
        tile = larger.crop((left, 0, left + TILE, larger.height))
        part = (0.0, left / larger.width, 1.0, (left + TILE) / larger.width)
        with did.apply(cast, ACTING, part=part if told else None):
            drawn = pipe(
                caption, image=tile, strength=DENOISE, num_inference_steps=REFINE_STEPS, guidance_scale=GUIDANCE,
                generator=torch.Generator().manual_seed(0),
            )  # fmt: skip
        made.paste(drawn.images[0], (left, 0))
    return made
