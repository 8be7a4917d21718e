"""The host's IMAGE and MASK tensors and the core's pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import comfy.model_management
import numpy as np
import torch
from comfy_api.latest import ui

from ..dynamicid_core.pictures import to_rgb
from ..dynamicid_core.views import CELL


def picture_size(latent: Mapping[str, torch.Tensor]) -> tuple[int, int]:
    """Height and width in pixels of the picture that a LATENT becomes."""
    height, width = (CELL * int(cells) for cells in latent["samples"].shape[-2:])
    return height, width


def to_arrays(images: torch.Tensor) -> list[np.ndarray]:
    """IMAGE [B, H, W, C] in 0..1 -> uint8 RGB [H, W, 3] each; an alpha channel is laid on white."""
    return [to_rgb(image.float().cpu()) for image in images]


def to_mask(mask: torch.Tensor) -> torch.Tensor:
    """MASK [h, w] or [F, h, w], on any device -> the same in float32, where the core computes regions: on the CPU."""
    return mask.detach().float().cpu()


def to_images(pictures: Sequence[np.ndarray]) -> torch.Tensor:
    """uint8 RGB pictures of one size -> IMAGE [B, H, W, 3] in 0..1, where and as the host keeps its images."""
    images = torch.from_numpy(np.stack(pictures)).float() / 255
    dtype = getattr(comfy.model_management, "intermediate_dtype", lambda: torch.float32)()
    return images.to(comfy.model_management.intermediate_device(), dtype)


def preview_of(cls, images: torch.Tensor) -> ui.PreviewImage:
    """IMAGE, to be shown in the node."""
    return ui.PreviewImage(images.float(), cls=cls)
