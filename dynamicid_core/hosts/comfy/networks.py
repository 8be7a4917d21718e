"""Networks that ComfyUI loads, casts and moves: what runs before sampling."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch
from torch import Tensor

from ...checkpoints import MotionCheckpoint, SAACheckpoint, load_motion, load_saa
from ...encode import TokenEncoder
from ...motion import MotionNetworks
from ...types import DynamicIDError


class ManagedNetwork:
    """A network that the host loads to its device and casts, and that leaves the device after each use.

    It is needed before sampling, when the UNet is about to want the room.
    """

    def __init__(self, module: torch.nn.Module):
        device = comfy.model_management.get_torch_device()
        # Read at call time: the host replaces this class when dynamic VRAM is on.
        patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
        self.module = module
        self.patcher = patcher_class(
            module, load_device=device, offload_device=comfy.model_management.unet_offload_device()
        )

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Run on the host's device in float32, to which the layers (``comfy.ops.manual_cast``) cast their weights.

        Inputs may come from anywhere; the result is on the CPU.
        """
        comfy.model_management.load_models_gpu([self.patcher])
        try:
            with torch.no_grad():
                return self.module(*(x.to(self.patcher.load_device, torch.float32) for x in inputs)).cpu()
        finally:
            self.release()

    def release(self) -> None:
        """Have the host take the weights off its device, and nothing else.

        As ``unload_model_and_clones`` does, which hosts before 0.33 may lack.
        """
        loaded = comfy.model_management.current_loaded_models
        others = [model for model in loaded if model.model is not self.patcher]
        comfy.model_management.free_memory(1e30, self.patcher.load_device, others)


@dataclass(frozen=True, eq=False)
class LoadedDynamicID:
    """What the socket DYNAMICID carries. Weights used while sampling stay on the CPU: only their products travel."""

    saa: SAACheckpoint
    motion: MotionCheckpoint | None

    @cached_property
    def token_encoder(self) -> TokenEncoder:
        """The face encoder, as :func:`encode.encode_photos` takes it."""
        encoder = self.saa.face_encoder
        return TokenEncoder(ManagedNetwork(encoder), encoder.sizes, self.saa.encoder_hash)

    @cached_property
    def _motion_networks(self) -> tuple[ManagedNetwork, ManagedNetwork] | None:
        if self.motion is None:
            return None
        return ManagedNetwork(self.motion.reconfigurator), ManagedNetwork(self.motion.keypoint_encoder)

    def motion_networks(self, clip: Any) -> MotionNetworks | None:
        """IMR, key point encoder and a CLIP's text features, as :func:`motion.edit_face` takes them; None without an IMR."""
        if self._motion_networks is None:
            return None
        return MotionNetworks(*self._motion_networks, lambda texts: text_features(clip, texts))


def load(saa_path: str | os.PathLike[str], imr_path: str | os.PathLike[str] | None = None) -> LoadedDynamicID:
    """Load the weights with the host's layer classes. Raises DynamicIDError naming a file that does not fit."""
    saa = load_saa(saa_path, comfy.ops.manual_cast)
    motion = load_motion(imr_path, comfy.ops.manual_cast) if imr_path else None
    return LoadedDynamicID(saa, motion)


class ClipVision:
    """The host's CLIP_VISION, as :func:`encode.encode_photos` takes it.

    Pixels are prepared by the core (``pictures.clip_pixels``), because the host's own preparation differs by a pixel at some
    sizes, and because the null tokens need pixels that are exactly zero.
    """

    def __init__(self, model: Any):
        self.model = model

    def tokens(self, pixels: Tensor) -> Tensor:
        """Hidden states before the last layer: [K, 3, 224, 224] normalised -> [K, 257, 1280], float32 on the CPU.

        Raises DynamicIDError for a model that is no CLIP or takes pictures of another size.
        """
        size = self.model.config.get("image_size", 224)
        if self.model.model_type != "clip_vision_model" or size != pixels.shape[-1]:
            raise DynamicIDError(
                f"This CLIP vision model ({self.model.model_type}, {size} px) is not the one DynamicID was made with. "
                "Load CLIP-ViT-H-14-laion2B-s32B-b79K (the file that IP-Adapter uses)."
            )
        comfy.model_management.load_model_gpu(self.model.patcher)
        seen = self.model.model(pixel_values=pixels.to(self.model.load_device), intermediate_output=-2)
        return seen[1].float().cpu()


def text_features(clip: Any, texts: Sequence[str]) -> Tensor:
    """Pooler outputs of SD1.5's text encoder, unprojected: K texts -> [K, 768], float32 on the CPU.

    Raises DynamicIDError for a text encoder that gives another width or none.
    """
    pooled = []
    for text in texts:
        tokens = clip.tokenize(text)
        feature = clip.encode_from_tokens(tokens, return_pooled="unprojected", return_dict=True)["pooled_output"]
        if feature is None or feature.shape[-1] != 768:
            gives = "no pooled feature" if feature is None else f"a pooled feature of width {feature.shape[-1]}"
            raise DynamicIDError(
                f"This text encoder gives {gives}; expression editing needs that of Stable Diffusion 1.5 (768). "
                "Connect CLIP of the SD1.5 checkpoint."
            )
        pooled.append(feature[:1])
    return torch.cat(pooled).float().cpu()
