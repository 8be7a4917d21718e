"""What a checkpoint belongs to: base model, recogniser, CLIP models (docs/nodes.md, checkpoints).

Checkpoints trained here carry it as safetensors metadata. Published ones carry nothing: what they lack is taken to be
what those were made with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .catalogue import model_file
from .types import DynamicIDError

RECOGNISER = model_file("face_pack").name  # of the published checkpoints
CLIP_VISION = model_file("clip_vision").name.removesuffix(".safetensors")
TEXT_FEATURE = "clip_l"
ABOUT = ("recogniser", "clip_vision", "text_feature", "encoder", "version")  # texts among the metadata


@dataclass(frozen=True)
class Origin:
    """What a checkpoint was trained with. Where a field is not given, it is the published one's, or unknown."""

    base: str = ""  # name of a family (bases.BASES), or of one that they do not list; "": a UNet of no family
    widths: tuple[int, ...] = ()  # C of each of its cross attentions, in checkpoint order
    text_widths: tuple[int, ...] = ()  # of each one's text tokens
    sites: tuple[str, ...] = ()  # where each one is: "down.1.0", stage, place and depth there (bases.UNetLayout.sites)
    recogniser: str = RECOGNISER  # whose identities the face encoder knows
    clip_vision: str = CLIP_VISION  # whose tokens it reads
    text_feature: str = TEXT_FEATURE  # that the IMR reads
    encoder: str = ""  # sha256 of the face encoder whose tokens these weights take (SAACheckpoint.encoder_hash)
    step: int | None = None  # optimiser steps of training
    version: str = ""  # of the DynamicID that trained it

    def to_metadata(self) -> dict[str, str]:
        """As safetensors metadata, which are texts; ``base`` is JSON."""
        base = {"family": self.base, "sites": self.sites, "widths": self.widths, "text_widths": self.text_widths}
        known = {name: getattr(self, name) for name in ABOUT if getattr(self, name)}
        steps = {} if self.step is None else {"step": str(self.step)}
        return {"base": json.dumps(base), **known, **steps}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], source: str = "The file") -> Origin:
        """Read what :meth:`to_metadata` wrote; other entries are none of its business.

        ``step`` only informs, so a strange one is ignored. Raises DynamicIDError, with ``source``, for a ``base`` that
        cannot be read: nobody could then say which model the weights are for.
        """
        known: dict[str, Any] = {name: value for name in ABOUT if (value := metadata.get(name, "").strip())}
        step = metadata.get("step", "")
        return cls(**_base(metadata, source), **known, step=int(step) if step.isdecimal() else None)


def _base(metadata: Mapping[str, str], source: str) -> dict[str, Any]:
    """The fields of an :class:`Origin` that the metadata's ``base`` holds; none without it."""
    if "base" not in metadata:
        return {}
    try:
        values = json.loads(metadata["base"])
        widths = {name: tuple(values[name]) for name in ("widths", "text_widths")}
        family, sites = values["family"], tuple(values["sites"])
        sized = all(type(n) is int and n > 0 for entries in widths.values() for n in entries)
        counts = {len(entries) for entries in widths.values()} | ({len(sites)} if sites else set())
        if not (sized and len(counts) == 1 and all(isinstance(text, str) for text in (family, *sites))):
            raise ValueError("its lists do not fit together")
    except (ValueError, KeyError, TypeError) as error:  # also of json
        raise DynamicIDError(
            f"{source} has damaged metadata: its base cannot be read ({error}). Get the file again, or train with this "
            "version of DynamicID."
        ) from error
    return {"base": family, "sites": sites, **widths}
