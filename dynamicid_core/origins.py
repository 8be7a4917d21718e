"""What a checkpoint belongs to: base model, recogniser, CLIP models (docs/nodes.md, checkpoints).

Checkpoints trained here carry it as safetensors metadata. Published ones carry nothing: what they lack is taken to be
what those were made with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from .catalogue import model_file
from .plain import build, one_line, parse_json
from .types import RECOGNISER, DynamicIDError, is_same_recogniser

# Of the published checkpoints.
CLIP_VISION = model_file("clip_vision").name.removesuffix(".safetensors")
TEXT_FEATURE = "clip_l"

# Pooled outputs that an IMR can read, unprojected, by the name that both hosts' checkpoints give the encoder.
TEXT_FEATURES = {
    "clip_l": "CLIP ViT-L/14, in Stable Diffusion 1.5 and XL",
    "clip_g": "OpenCLIP ViT-bigG/14, in Stable Diffusion XL",
    "clip_h": "OpenCLIP ViT-H/14, in Stable Diffusion 2",
}
CLIP_WIDTHS = {768: "CLIP ViT-B", 1024: "CLIP ViT-L/14", 1280: "CLIP ViT-H/14", 1664: "CLIP ViT-bigG/14"}  # of tokens
BGR = " (bgr)"  # after the name of a recogniser that is given pictures in the order that InsightFace expects

T = TypeVar("T")
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
        known: dict[str, Any] = {name: value for name in ABOUT if (value := one_line(metadata.get(name, "")))}
        step = metadata.get("step", "")
        return cls(**_base(metadata, source), **known, step=int(step) if step.isdecimal() and len(step) < 16 else None)


@dataclass(frozen=True)
class _Base:
    """The metadata's ``base``, as JSON."""

    family: str
    sites: tuple[str, ...]
    widths: tuple[int, ...]
    text_widths: tuple[int, ...]


_BASE = tuple(field.name for field in fields(_Base))  # later versions may say more


def _base(metadata: Mapping[str, str], source: str) -> dict[str, Any]:
    """The fields of an :class:`Origin` that the metadata's ``base`` holds; none without it."""
    if "base" not in metadata:
        return {}
    try:
        values = parse_json(metadata["base"])
        known = {name: value for name, value in values.items() if name in _BASE} if isinstance(values, dict) else values
        base: _Base = build(_Base, known, "")
        sized = all(n > 0 for n in (*base.widths, *base.text_widths))
        counts = {len(base.widths), len(base.text_widths)} | ({len(base.sites)} if base.sites else set())
        if not sized or len(counts) != 1:
            raise DynamicIDError("its lists do not fit together")
    except DynamicIDError as error:
        raise DynamicIDError(
            f"{source} has damaged metadata: its base cannot be read ({one_line(str(error), 80)}). Get the file again, or train with this "
            "version of DynamicID."
        ) from error
    return {"base": base.family, "sites": base.sites, "widths": base.widths, "text_widths": base.text_widths}


def recogniser_name(pack: str, identity_channels: str) -> str:
    """What the identities of a face model pack go by, e.g. ``buffalo_l``; those read in BGR ``buffalo_l (bgr)``."""
    return pack + BGR if identity_channels == "bgr" else pack


def check_recogniser(found: str, origin: Origin, what: str) -> None:
    """Raise DynamicIDError where an identity comes from another recogniser than the one that the weights know.

    ``what``: what it is made with or by, as a sentence's subject, e.g. "The face 'anna'".
    """
    if not is_same_recogniser(found, origin.recogniser):
        raise DynamicIDError(
            f"{what} is of the recogniser {found}, but the loaded DynamicID weights know the identities of "
            f"{origin.recogniser}. Encode the photo with the face model pack {origin.recogniser}, or load weights that were "
            f"trained with {found}."
        )


def clip_needed(origin: Origin) -> str:
    """Which CLIP vision model to load."""
    known = " (the file that IP-Adapter uses)" if origin.clip_vision == CLIP_VISION else ""
    return f"Load {origin.clip_vision}{known}."


def choose_text_encoder(found: Mapping[str, T], origin: Origin) -> T:
    """The encoder whose feature the IMR reads, of a model's text encoders by name (:data:`TEXT_FEATURES`).

    Raises DynamicIDError that names the feature wanted and those that there are.
    """
    if origin.text_feature in found:
        return found[origin.text_feature]
    if origin.text_feature not in TEXT_FEATURES:
        raise DynamicIDError(
            f"The weights for expressions read the text feature {origin.text_feature!r}, which this DynamicID does not "
            "know. Update it."
        )
    has = ", ".join(f"{name} ({TEXT_FEATURES[name]})" for name in found) or "none that DynamicID knows"
    raise DynamicIDError(
        f"The weights for expressions read the text feature {origin.text_feature} ({TEXT_FEATURES[origin.text_feature]}), "
        f"but this text encoder gives {has}. Take the text encoder of such a model."
    )
