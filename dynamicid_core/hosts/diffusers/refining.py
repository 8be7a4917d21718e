"""Crops of a finished picture sampled by a pipeline's own networks and scheduler."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...refining import Patch
from ...types import Cast, DynamicIDError, SAAOptions
from .quiet import quiet

if TYPE_CHECKING:
    from .pipeline import DynamicID


@dataclass(frozen=True)
class Sampling:
    """How a crop is sampled. ``steps``: those that are taken, whatever the denoise."""

    prompt: str
    negative_prompt: str
    steps: int
    guidance_scale: float


class Redrawer:
    """A :data:`refining.Redraw`: image to image with a mask, with the person of each crop in the pipeline."""

    def __init__(self, did: DynamicID, sampling: Sampling, options: SAAOptions, lora: str):
        """Raises DynamicIDError for a pipeline of which diffusers has none for inpainting."""
        from diffusers import AutoPipelineForInpainting

        self.did, self.sampling, self.options, self.lora = did, sampling, options, lora
        try:
            with quiet():  # of a UNet that was not trained for inpainting alone
                self.pipe: Any = AutoPipelineForInpainting.from_pipe(did.pipe, controlnet=None)
        except ValueError as error:
            raise DynamicIDError(
                f"Faces cannot be refined with a {type(did.pipe).__name__}: diffusers has no pipeline of its kind that samples "
                "a part of a picture. Use a pipeline from text to image."
            ) from error
        self.pipe.set_progress_bar_config(**getattr(did.pipe, "_progress_bar_config", {}))

    def __call__(self, patch: Patch) -> Tensor:
        guided = self.sampling.guidance_scale > 1
        if patch.person is None:
            self.did.remove()
        else:
            cast = Cast((patch.person,))
            self.did.apply(cast, self.options, lora=self.lora, guided=guided, warn=lambda text: None)
        height, width = patch.mask.shape
        made = self.pipe(
            self.sampling.prompt,
            negative_prompt=self.sampling.negative_prompt,
            image=patch.pixels.movedim(-1, 0)[None],  # [1, 3, h, w]
            mask_image=patch.mask[None, None],
            height=height,
            width=width,
            strength=patch.denoise,
            num_inference_steps=self._schedule(patch.denoise),
            guidance_scale=self.sampling.guidance_scale,
            generator=torch.Generator().manual_seed(patch.seed),  # of the CPU: the same noise on every device
            output_type="pt",
        )
        drawn: Tensor = made.images[0].movedim(0, -1)  # [h, w, 3]
        return drawn

    def _schedule(self, denoise: float) -> int:
        """Steps of a whole schedule, of which a pipeline takes the last ``denoise``, rounded down: those asked for."""
        asked, most = self.sampling.steps, self.pipe.scheduler.config.get("num_train_timesteps", 1000)
        wanted = math.ceil(asked / denoise)
        return min(wanted + (int(wanted * denoise) < asked), most)
