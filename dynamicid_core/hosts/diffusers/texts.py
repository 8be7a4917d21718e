"""Text features for expressions, from a pipeline's text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...origins import TEXT_FEATURE


def text_encoders(pipe: Any) -> dict[str, tuple[Any, Any]]:
    """Tokenizer and encoder of each text feature that a pipeline can give (:data:`origins.TEXT_FEATURES`).

    Of two encoders the first is CLIP-L and the second OpenCLIP bigG, as in Stable Diffusion XL; a single one is told by
    its width, where another base model has it.
    """
    found = {}
    if (encoder := getattr(pipe, "text_encoder", None)) is not None:
        alone = getattr(pipe, "text_encoder_2", None) is None
        name = {1024: "clip_h", 1280: "clip_g"}.get(encoder.config.hidden_size, TEXT_FEATURE) if alone else TEXT_FEATURE
        found[name] = (pipe.tokenizer, encoder)
    if (encoder := getattr(pipe, "text_encoder_2", None)) is not None:
        found["clip_g"] = (pipe.tokenizer_2, encoder)
    return found


def pooled_features(tokenizer: Any, encoder: Any, texts: Sequence[str], device: torch.device) -> Tensor:
    """Unprojected pooler outputs of a CLIP text encoder: K texts -> [K, its width], float32 on the CPU.

    ``encoder``: a transformers CLIPTextModel, or one with a projection, whose input they then are.
    """
    # Padded to the longest only: the feature is read at the text's end, and what follows does not act on it.
    tokens = tokenizer(
        list(texts), padding=True, max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    seen: list[Tensor] = []
    projection = getattr(encoder, "text_projection", None)
    # A hook, since calling the parts of a model would pass by those that offloading puts on the whole.
    hook = projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) if projection else None
    try:
        with torch.no_grad():
            output = encoder(tokens.input_ids.to(device))
    finally:
        if hook is not None:
            hook.remove()
    pooled: Tensor = seen[0] if seen else output.pooler_output
    return pooled.float().cpu()
