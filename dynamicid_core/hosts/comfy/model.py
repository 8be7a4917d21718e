"""Faces on a MODEL: a clone with the cast's wrappers and the LoRA among its weight patches."""

from __future__ import annotations

import logging
from typing import Any

import comfy.lora
import torch
from torch import Tensor

from ...bases import UNetLayout, fitting_layout, lora_layers
from ...call import AppliedCast
from ...checkpoints import check_faces
from ...gate_maps import GateRecorder
from ...networks.saa import SAAModule
from ...types import Cast, DynamicIDError, SAAOptions
from .networks import LoadedDynamicID
from .rows import KEY
from .run import add_cast, applied_casts, remove_casts


def model_name(model: Any) -> str:
    """What a MODEL is, in the host's words: "SDXL", "Flux", ..."""
    config = getattr(model.model, "model_config", None)
    return type(config).__name__ if config is not None else type(model.model).__name__


def add_lora(model: Any, saa: SAAModule, layout: UNetLayout, strength: float) -> None:
    """Merge the LoRA of every attention into the MODEL's weights, through the host's own mechanism.

    A model that has the same weights' LoRA already (a second Apply on the same chain) gets the difference.
    """
    merged: tuple[tuple[SAAModule, float], ...] = model.get_attachment(KEY) or ()
    before = [entry for entry in merged if _same_weights(entry[0], saa)]
    change = strength - sum(share for _, share in before)
    model.set_attachments(KEY, (*(entry for entry in merged if entry not in before), (saa, strength)))
    if change == 0:
        return
    state, keys = {}, {}
    for layer, lora in lora_layers(layout, saa):
        state[f"{layer}.lora_up.weight"], state[f"{layer}.lora_down.weight"] = lora.up.weight, lora.down.weight
        keys[layer] = f"diffusion_model.{layer}.weight"
    model.add_patches(comfy.lora.load_lora(state, keys), change)


def _same_weights(a: SAAModule, b: SAAModule) -> bool:
    """Whether two modules hold the same LoRA: one file loaded by two nodes gives two modules."""
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return a is b or (len(a) == len(b) and all(x is y or torch.equal(x, y) for x, y in pairs))


def with_lora(model: Any, loaded: LoadedDynamicID, strength: float) -> Any:
    """A clone of a MODEL with the LoRA alone, for several :func:`apply_faces` of that strength, which then merge nothing.

    Raises DynamicIDError for a model that does not fit.
    """
    saa = loaded.saa.saa
    layout = fitting_layout(model.model.diffusion_model, saa, model_name(model), loaded.saa.origin)
    model = model.clone()
    add_lora(model, saa, layout, strength)
    return model


def apply_faces(
    model: Any, loaded: LoadedDynamicID, cast: Cast, options: SAAOptions, recorder: GateRecorder | None = None
) -> Any:
    """A clone of a MODEL in which the people of ``cast`` appear; ``recorder`` notes down where identity goes in.

    Raises DynamicIDError for a model or faces that do not fit, and for an empty cast.
    """
    saa, origin = loaded.saa.saa, loaded.saa.origin
    layout = fitting_layout(model.model.diffusion_model, saa, model_name(model), origin)
    check_faces((person.face for person in cast.people), origin)
    # Nodes run in inference mode, but what is kept for sampling must be ordinary tensors.
    with torch.inference_mode(False), torch.no_grad():
        applied = AppliedCast.of(cast, options, layout, saa, recorder, _log)
    model = model.clone()
    add_lora(model, saa, layout, options.lora_strength)
    add_cast(model, applied)
    return model


def without_faces(model: Any) -> Any:
    """A clone of a MODEL in which nobody appears. A LoRA stays, so that the same weights need not be merged again."""
    model = model.clone()
    remove_casts(model)
    return model


def _log(text: str) -> None:
    logging.warning("DynamicID: %s", text)


def gate_maps(model: Any, height: int, width: int, **chosen: Any) -> list[tuple[Cast, Tensor]]:
    """What the recorders on a MODEL saw while it was last sampled with: for each cast, its people and their maps. Where places
    were found, people have those.

    ``chosen``: what :meth:`gate_maps.GateRecorder.maps` takes besides a size in pixels. Raises DynamicIDError for a model
    without faces, and when nothing was recorded.
    """
    casts = applied_casts(model)
    if not casts:
        raise DynamicIDError("No face is applied to this model. Connect the model that comes out of Apply DynamicID.")
    maps = []
    for applied in casts:
        if applied.recorder is None:
            raise DynamicIDError(
                "This model was sampled without recording. Queue the graph again with this node in it."
            )
        maps.append((applied.recorder.places or applied.cast, applied.recorder.maps(height, width, **chosen)))
    return maps
