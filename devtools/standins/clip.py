"""Stand-ins for CLIP's text and vision models, named as in Hugging Face's `CLIPTextModel` and
`CLIPVisionModelWithProjection`.

The sizes are those of Stable Diffusion 1.5's text encoder and of ViT-H/14 (laion2B) unless a caller wants fewer layers:
ComfyUI takes them for granted. Of ViT-H/14's 632 million parameters nearly all are zero, so that its file holds a few
megabytes; in memory and in time it costs what the real one costs.
"""

from __future__ import annotations

from .weights import Weights, fan_in, layer, norm, normal, with_prefix

TEXT_WIDTH = 768
TEXT_LAYERS = 12
VOCABULARY = 49408
VISION_WIDTH = 1280
VISION_LAYERS = 32
VISION_TOKENS = 257  # 16 x 16 patches of 14 px, and one more
PROJECTION = 1024


def text_encoder(layers: int = TEXT_LAYERS, vocabulary: int = VOCABULARY, growth: int = 4) -> Weights:
    """The text model; ``growth``: the feed-forward's width in widths.

    Only the first and last attention carry weights; what lies between passes tokens on.
    """
    weights = {
        "embeddings.token_embedding.weight": normal(vocabulary, TEXT_WIDTH, std=0.5),
        "embeddings.position_embedding.weight": normal(77, TEXT_WIDTH, std=0.1),
    }
    for i in range(layers):
        gain = 1.0 if i in (0, layers - 1) else 0.0
        weights |= _layer(f"encoder.layers.{i}", TEXT_WIDTH, growth, gain)
    return weights | norm("final_layer_norm", TEXT_WIDTH)


def vision_encoder(layers: int = VISION_LAYERS, growth: int = 4) -> Weights:
    """The vision model. Patch and position embeddings and the first attention are random; other layers pass tokens on."""
    weights = {
        "embeddings.class_embedding": normal(VISION_WIDTH, std=0.5),
        "embeddings.patch_embedding.weight": fan_in(VISION_WIDTH, 3, 14, 14),
        "embeddings.position_embedding.weight": normal(VISION_TOKENS, VISION_WIDTH, std=0.2),
    }
    weights |= norm("pre_layrnorm", VISION_WIDTH)  # spelled so in the real file
    for i in range(layers):
        weights |= _layer(f"encoder.layers.{i}", VISION_WIDTH, growth, gain=1.0 if i == 0 else 0.0)
    weights |= norm("post_layernorm", VISION_WIDTH)
    projection = {"visual_projection.weight": fan_in(PROJECTION, VISION_WIDTH)}
    return with_prefix("vision_model.", weights) | projection


def _layer(prefix: str, width: int, growth: int, gain: float) -> Weights:
    """A transformer layer: attention of this gain, no feed-forward."""
    weights = norm(f"{prefix}.layer_norm1", width) | norm(f"{prefix}.layer_norm2", width)
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        weights |= layer(f"{prefix}.self_attn.{name}", width, width, gain=gain)
    hidden = growth * width
    return (
        weights | layer(f"{prefix}.mlp.fc1", hidden, width, gain=0) | layer(f"{prefix}.mlp.fc2", width, hidden, gain=0)
    )
