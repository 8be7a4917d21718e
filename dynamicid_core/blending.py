"""Several faces -> one: photos of one person averaged, people blended into a new one (docs/method.md, section 3)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .types import DynamicIDError, Face, check_recognisers

BLEND_MODES = ("tokens", "attention")


def average_faces(faces: Sequence[Face]) -> Face:
    """Several photos of one person -> one face: mean tokens, mean identity (of length 1).

    The rest comes from the first photo in which a face was found. Raises DynamicIDError for faces that do not match.
    """
    _check_alike(faces)
    known = [face.identity for face in faces if face.identity is not None]
    identity = normalize(torch.stack(known).mean(0), dim=0) if known else None
    tokens = torch.stack(_tokens(faces)).mean(0)
    first = next((face for face in faces if face.landmarks is not None), faces[0])
    return dataclasses.replace(first, tokens=tokens, identity=identity)


def parse_weights(text: str) -> list[float]:
    """Numbers out of a text such as ``1, 0.5``, with any comma or semicolon between them, also of Chinese and Japanese.

    Raises DynamicIDError for anything else.
    """
    try:
        return [float(part) for part in re.split("[,;\uff0c\uff1b\u3001]", text) if part.strip()]
    except ValueError:
        raise DynamicIDError(f"Weights {text!r} are no numbers; write one for each face, such as '1, 0.5'.") from None


def _check_alike(faces: Sequence[Face]) -> None:
    if not faces:
        raise DynamicIDError("There are no faces to blend. Give at least one.")
    check_recognisers(faces)
    if len({face.encoder for face in faces}) > 1:
        raise DynamicIDError("These faces were made by different face encoders. Encode them all with the same one.")
    if len({(tuple(face.uncond_tokens.shape), face.mix) for face in faces}) > 1:
        raise DynamicIDError("A face blended in attention cannot be blended with another. Blend all faces at once.")


def _shares(weights: Sequence[float], count: int) -> list[float]:
    if len(weights) != count:
        raise DynamicIDError(f"There are {count} faces but {len(weights)} weights; give one weight for each face.")
    total = sum(weights)
    if not 0 < total < float("inf") or any(weight < 0 for weight in weights):
        raise DynamicIDError(f"Weights {list(weights)} do not add up to a blend; use numbers from 0 up, not all zero.")
    return [weight / total for weight in weights]


def _tokens(faces: Sequence[Face]) -> list[Tensor]:
    """Of each face [F, T, 768], with as many frames as the one has that has most."""
    return [face.tokens_of(max(face.frames for face in faces)) for face in faces]


def _sum(parts: Sequence[Tensor]) -> Tensor:
    return sum(parts[1:], start=parts[0])


def blend_faces(faces: Sequence[Face], weights: Sequence[float], mode: str = "tokens") -> Face:
    """One person out of several.

    ``tokens``: the weighted mean of their tokens. ``attention``: all tokens side by side; the first face's scores are
    multiplied by its share of the weights and the others' by the rest, as published (*mix*). Faces that move are blended
    frame by frame.
    Raises DynamicIDError for weights that do not fit and faces of different encoders.
    """
    _check_alike(faces)
    if mode not in BLEND_MODES:
        raise DynamicIDError(f"Blend mode {mode!r} is unknown; choose one of {', '.join(BLEND_MODES)}.")
    shares = _shares(weights, len(faces))
    first = faces[0]
    if len(faces) == 1:
        return first
    known = [s * face.identity for s, face in zip(shares, faces, strict=True) if face.identity is not None]
    identity = normalize(_sum(known), dim=0) if known else None
    name = " + ".join(face.name for face in faces if face.name)
    if mode == "attention":
        if any(len(face.mix) > 1 for face in faces):
            raise DynamicIDError("A face blended in attention cannot be blended so again. Blend all faces at once.")
        mix = (shares[0], *[1 - shares[0]] * (len(faces) - 1))
        tokens, null = (torch.cat(parts, dim=1) for parts in (_tokens(faces), [face.uncond_tokens for face in faces]))
        return dataclasses.replace(first, tokens=tokens, uncond_tokens=null, mix=mix, identity=identity, name=name)
    tokens = _sum([s * own for s, own in zip(shares, _tokens(faces), strict=True)])
    return dataclasses.replace(first, tokens=tokens, identity=identity, name=name)
