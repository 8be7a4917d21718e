"""The drawn world's files in a models folder laid out as ComfyUI's."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..files import write_safetensors
from .carried import WEIGHTS
from .vision import vision_weights

STEM = "drawn_world"
PIPELINE = f"diffusers/{STEM}"
CLIP_VISION = f"clip_vision/{STEM}_vision.safetensors"

CROP_FACTOR = 2.0  # of the photos that the face encoder was trained on
STEPS, GUIDANCE = 25, 2.5  # of sampling


def fill_narrow(models: Path, weights: Path = WEIGHTS) -> None:
    """What training and diffusers need, narrow and quick: the pipeline's folder, and CLIP vision of one small layer."""
    from .pipeline import write_narrow_pipeline

    fresh = (models / PIPELINE).with_name(f".{STEM}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    write_narrow_pipeline(fresh, weights)
    shutil.rmtree(models / PIPELINE, ignore_errors=True)
    fresh.rename(models / PIPELINE)
    write_safetensors(models / CLIP_VISION, vision_weights(layers=1, hidden=64), {"format": "pt"})
