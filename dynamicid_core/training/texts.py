"""What frozen text encoders say of prompts: states for the UNet, features for the IMR. Makers, as in ``features``."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ..datasets.manifest import Photo
from ..hosts.diffusers.quiet import quiet
from ..hosts.diffusers.texts import pooled_features, text_encoders
from ..prompts import grid_prompt, source_prompt
from ..types import DynamicIDError
from .features import TEXT_BATCH, Maker, Rows, cast
from .frozen import Networks, tokenizer_hash, weights_hash
from .store import digest


def text_key(text: str) -> bytes:
    return digest("text", text)


def source_text(photo: Photo) -> str:
    """What a source shows, in the words that inference finds for a photo."""
    return source_prompt(photo.angles, photo.expression or None)


def target_text(photo: Photo) -> str:
    """What a target shows, in the words of the training set."""
    return grid_prompt(photo.expression or "neutral", photo.pose or "front view")


def _items(texts: Iterable[str]) -> dict[bytes, str]:
    return {text_key(text): text for text in dict.fromkeys(texts)}


def _same(text: str) -> str:
    return text


def state_maker(texts: Iterable[str], networks: Networks, dtype: torch.dtype) -> Maker:
    """``states`` [S, W] of each text as the pipeline makes them for its UNet, and SDXL's ``pooled`` [W2]."""
    pipe, encoders = networks.pipe, list(text_encoders(networks.pipe).values())
    pooled = "pooled_prompt_embeds" in inspect.signature(pipe.encode_prompt).parameters

    def run(some: Sequence[str]) -> Rows:
        with quiet():  # of texts that are longer than CLIP reads
            made = pipe.encode_prompt(
                prompt=list(some), device=networks.device, num_images_per_prompt=1, do_classifier_free_guidance=False
            )
        rows = {"states": cast(made[0], dtype)}
        return {**rows, "pooled": cast(made[2], dtype)} if pooled else rows

    return Maker(
        "texts",
        {"encoders": _encoders_key(encoders), "pipeline": type(pipe).__name__, "dtype": str(dtype)},
        _items(texts),
        text_key,
        _same,
        run,
        TEXT_BATCH,
        tuple(encoder for _, encoder in encoders),
    )


def _encoders_key(encoders: Sequence[tuple[Any, Any]]) -> list[list[str]]:
    return [[weights_hash(encoder), str(encoder.config.hidden_act), tokenizer_hash(t)] for t, encoder in encoders]


def text_feature(networks: Networks, name: str) -> tuple[str, Any, Any]:
    """Name, tokenizer and text encoder whose feature the IMR reads; ``name`` "": the base's first.

    Raises DynamicIDError if the base has no encoder of that name.
    """
    found = text_encoders(networks.pipe)
    known = name or next(iter(found), "")
    if known not in found:
        raise DynamicIDError(
            f"base.text_feature is {name!r}, but the base model has {', '.join(found) or 'no CLIP text encoder'}."
        )
    return known, *found[known]


def feature_maker(texts: Iterable[str], networks: Networks, name: str) -> Maker:
    """``feature`` [Wt], float32: the pooler output of a text encoder, unprojected (docs/method.md, section 2)."""
    known, tokenizer, encoder = text_feature(networks, name)

    def run(some: Sequence[str]) -> Rows:
        return {"feature": pooled_features(tokenizer, encoder, some, networks.device)}

    made_by = {"feature": known, "encoder": _encoders_key([(tokenizer, encoder)])}
    return Maker("features", made_by, _items(texts), text_key, _same, run, TEXT_BATCH, (encoder,))
