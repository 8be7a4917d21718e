"""Networks that ComfyUI loads, casts and moves: what runs before sampling."""

from __future__ import annotations

import copy
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
from ...origins import TEXT_FEATURES, Origin, choose_text_encoder, clip_needed
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
        try:
            comfy.model_management.load_models_gpu([self.patcher])
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


@dataclass(frozen=True, eq=False, repr=False)  # the host writes the inputs of a failed node into its report
class LoadedDynamicID:
    """What the socket DYNAMICID carries. Weights used while sampling stay on the CPU: only their products travel."""

    saa: SAACheckpoint
    motion: MotionCheckpoint | None

    @cached_property
    def token_encoder(self) -> TokenEncoder:
        """The face encoder, as :func:`encode.encode_photos` takes it."""
        encoder = self.saa.face_encoder
        return TokenEncoder(ManagedNetwork(encoder), encoder.sizes, self.saa.encoder_hash, self.saa.origin)

    @cached_property
    def _motion_networks(self) -> tuple[ManagedNetwork, ManagedNetwork] | None:
        if self.motion is None:
            return None
        return ManagedNetwork(self.motion.reconfigurator), ManagedNetwork(self.motion.keypoint_encoder)

    def motion_networks(self, clip: Any) -> MotionNetworks | None:
        """IMR, key point encoder and a CLIP's text features, as :func:`motion.edit_face` takes them; None without an IMR."""
        if self.motion is None or self._motion_networks is None:
            return None
        origin = self.motion.origin
        return MotionNetworks(*self._motion_networks, lambda texts: text_features(clip, texts, origin), self.motion)


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

    def __init__(self, model: Any, origin: Origin = Origin()):
        """``origin``: of the face encoder that shall read the tokens."""
        self.model, self.origin = model, origin

    def tokens(self, pixels: Tensor) -> Tensor:
        """Hidden states before the last layer: [K, 3, 224, 224] normalised -> [K, 257, 1280], float32 on the CPU.

        Raises DynamicIDError for a model that is no CLIP or takes pictures of another size.
        """
        size = self.model.config.get("image_size", 224)
        if self.model.model_type != "clip_vision_model" or size != pixels.shape[-1]:
            raise DynamicIDError(
                f"This CLIP vision model ({self.model.model_type}, {size} px) is not the one that the DynamicID weights "
                f"were made with. {clip_needed(self.origin)}"
            )
        comfy.model_management.load_model_gpu(self.model.patcher)
        seen = self.model.model(pixel_values=pixels.to(self.model.load_device), intermediate_output=-2)
        return seen[1].float().cpu()


class OneEncoder:
    """One of a CLIP's text encoders, to the host what its ``SD1ClipModel`` is, which has no other."""

    def __init__(self, encoder: Any, key: str):
        self.encoder, self.key = encoder, key

    def set_clip_options(self, options: dict[str, Any]) -> None:
        self.encoder.set_clip_options(options)

    def reset_clip_options(self) -> None:
        self.encoder.reset_clip_options()

    def encode_token_weights(self, tokens: dict[str, Any]) -> Any:
        return self.encoder.encode_token_weights(tokens[self.key])


def text_features(clip: Any, texts: Sequence[str], origin: Origin = Origin()) -> Tensor:
    """Pooler outputs of the text encoder that ``origin`` names, unprojected: K texts -> [K, 768], float32 on the CPU.

    ``clip``: a CLIP of any model that has that encoder, as SDXL's has two. Raises DynamicIDError if it has not.
    """
    model = clip.cond_stage_model
    encoders = {name: encoder for name in TEXT_FEATURES if (encoder := getattr(model, name, None)) is not None}
    encoder = choose_text_encoder(encoders, origin)
    one = copy.copy(clip)  # the host's own way of running it, for this encoder alone
    one.cond_stage_model = OneEncoder(encoder, origin.text_feature.removeprefix("clip_"))
    pooled = [
        one.encode_from_tokens(clip.tokenize(text), return_pooled="unprojected", return_dict=True)["pooled_output"]
        for text in texts
    ]
    return torch.cat([feature[:1] for feature in pooled]).float().cpu()
