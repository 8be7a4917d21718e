"""CLIP's vision model from whatever file people have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ...files import describe, read_tensors
from ...types import DynamicIDError

if TYPE_CHECKING:
    from transformers import CLIPVisionConfig

HEAD_WIDTHS = {1280: 80, 1664: 104}  # ViT-H and ViT-bigG; 64 in the other sizes


def load_clip_vision(source: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> nn.Module:
    """CLIP's vision model from a folder in Hugging Face's format or from a single file with its tensor names.

    A file such as ComfyUI's ``CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors`` has no configuration beside it; its sizes are
    read from its tensors. Raises DynamicIDError for files that are no CLIP vision model.
    """
    from transformers import CLIPVisionModelWithProjection

    path, models = Path(source), cast(Any, CLIPVisionModelWithProjection)
    if path.is_dir():
        try:
            return models.from_pretrained(path, dtype=dtype).eval()
        except (OSError, ValueError) as error:
            raise DynamicIDError(f"{path} is no folder with a CLIP vision model ({error}).") from error
    tensors = read_tensors(path)
    model, report = models.from_pretrained(
        None, config=_config(path, tensors), state_dict=tensors, dtype=dtype, output_loading_info=True
    )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise DynamicIDError(
            f"{path} lacks {len(missing)} tensors of a CLIP vision model, e.g. {missing[0]}; get it again."
        )
    return model.eval()


def _config(path: Path, tensors: Mapping[str, Tensor]) -> CLIPVisionConfig:
    """The sizes of a CLIP vision model, from its tensors. Raises DynamicIDError for another kind of file."""
    from transformers import CLIPVisionConfig

    patch = tensors.get("vision_model.embeddings.patch_embedding.weight")
    position = tensors.get("vision_model.embeddings.position_embedding.weight")
    fc1 = tensors.get("vision_model.encoder.layers.0.mlp.fc1.weight")
    projection = tensors.get("visual_projection.weight")
    if patch is None or position is None or fc1 is None or projection is None:
        raise DynamicIDError(
            f"{path} is {describe(tensors)}; expected a CLIP vision model with Hugging Face's tensor names, "
            "such as CLIP-ViT-H-14-laion2B-s32B-b79K (the file that IP-Adapter uses)."
        )
    layers = {name.split(".")[3] for name in tensors if name.startswith("vision_model.encoder.layers.")}
    width = patch.shape[0]
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=fc1.shape[0],
        projection_dim=projection.shape[0],
        num_hidden_layers=len(layers),
        num_attention_heads=max(width // HEAD_WIDTHS.get(width, 64), 1),
        image_size=round((len(position) - 1) ** 0.5) * patch.shape[-1],
        patch_size=patch.shape[-1],
        hidden_act="quick_gelu" if width == 1024 else "gelu",  # OpenAI's models have the former, OpenCLIP's the latter
    )
