"""A stand-in for CLIP ViT-H/14's vision model (laion2B), named as in Hugging Face's `CLIPVisionModelWithProjection`.

The sizes are the real ones, since readers take them for granted: 632 million parameters, nearly all of them zero, so
that the file holds a few megabytes. In memory and in time the model costs what the real one costs.
"""

from __future__ import annotations

from .sd15 import clip_layer
from .weights import Weights, fan_in, norm, normal, with_prefix

WIDTH = 1280
LAYERS = 32


def vision_encoder() -> Weights:
    """Patch and position embeddings and the first attention are random; the other layers pass tokens on."""
    weights = {
        "embeddings.class_embedding": normal(WIDTH, std=0.5),
        "embeddings.patch_embedding.weight": fan_in(WIDTH, 3, 14, 14),
        "embeddings.position_embedding.weight": normal(257, WIDTH, std=0.2),
    }
    weights |= norm("pre_layrnorm", WIDTH)  # spelled so in the real file
    for i in range(LAYERS):
        weights |= clip_layer(f"encoder.layers.{i}", WIDTH, 4 * WIDTH, gain=1.0 if i == 0 else 0.0)
    weights |= norm("post_layernorm", WIDTH)
    return with_prefix("vision_model.", weights) | {"visual_projection.weight": fan_in(1024, WIDTH)}
