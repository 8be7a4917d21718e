"""The training cache of drawn people, many times faster than by the networks, whose forms hold mostly zeros.

What is written is what the networks would say up to rounding, under the same keys; so ``train`` finds its cache complete.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoints import load_saa
from ..datasets.manifest import Manifest
from ..hosts.diffusers import load_clip_vision
from ..training.cache import Cache, anchor_makers, fill, reconfigure_makers
from ..training.features import Maker, Rows
from ..training.frozen import Networks
from ..training.making import Share
from ..training.settings import Settings
from ..types import DynamicIDError
from . import text, vision
from .autoencoder import Autoencoder


class Embedding(nn.Module):
    """All that the world's CLIP vision model does: pixels [B, 3, 224, 224] -> states [B, 257, 1024]."""

    patch_embedding_weight: Tensor
    class_embedding: Tensor
    position_embedding_weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in vision.embeddings().items():  # in half precision, as in the file
            self.register_buffer(name.replace(".", "_"), torch.from_numpy(values).half().float())

    def forward(self, pixels: Tensor) -> Tensor:
        patches = nn.functional.conv2d(pixels, self.patch_embedding_weight, stride=vision.SIDE).flatten(2).mT
        first = self.class_embedding.expand(len(pixels), 1, -1)
        states = torch.cat((first, patches), 1) + self.position_embedding_weight
        return nn.functional.layer_norm(states, states.shape[-1:], eps=1e-5)


def text_states(captions: Sequence[str]) -> Tensor:
    """[B, 77, 768]. Raises DynamicIDError for words that the world does not have."""
    states = torch.from_numpy(np.stack([text.caption_states(caption) for caption in captions]))
    return torch.cat((states, states[:, -1:].expand(-1, text.LENGTH - states.shape[1], -1)), 1)


def quick(maker: Maker, autoencoder: Autoencoder, embedding: Embedding, encoder: nn.Module | None) -> Maker:
    """The same rows, made without the networks where that is possible."""
    runs: dict[str, Callable[[Any], Rows]] = {
        "clip": lambda inputs: {"clip": embedding(inputs["pixels"]).half()},
        "latents": lambda inputs: {
            "latents": autoencoder.encode(inputs["picture"].permute(0, 3, 1, 2).float() / 255).half(),
            "sizes": inputs["sizes"],
        },
        "texts": lambda some: _texts(some, maker),
    }
    if encoder is not None:
        runs["tokens"] = lambda inputs: {"tokens": encoder(inputs["identity"], embedding(inputs["pixels"]))}
    if maker.kind not in runs:
        return maker
    return dataclasses.replace(maker, run=runs[maker.kind], networks=maker.networks if maker.kind == "texts" else ())


def _texts(some: Sequence[str], maker: Maker) -> Rows:
    try:
        return {"states": text_states(some).half()}
    except DynamicIDError:  # a word that the world has not
        return maker.run(some)


def fill_quickly(settings: Settings, stage: str, autoencoder: Autoencoder, share: Share = Share()) -> Cache:
    """What ``train STAGE`` with these settings will look for in its cache. The world's own base and CLIP are taken for granted."""
    networks, manifest = _networks(settings, stage), Manifest.read(settings.need_dataset())
    wanted = {"anchor": anchor_makers, "reconfigure": reconfigure_makers}[stage](settings, manifest, networks)
    encoder = networks.saa.face_encoder.float().eval() if networks.saa else None
    embedding = Embedding()
    makers = [quick(maker, autoencoder.eval(), embedding, encoder) for maker in wanted]
    fill(settings.cache_folder, makers, torch.device("cpu"), share=share)
    share.wait()
    return Cache.open(settings.cache_folder, wanted)


def _networks(settings: Settings, stage: str) -> Networks:
    from diffusers import StableDiffusionPipeline

    base, saa = settings.base, settings.reconfigure.saa or settings.output / "saa.safetensors"
    model, vision_file = base.model or Path(), base.clip_vision or Path()

    def pipe() -> Any:
        options = {"safety_checker": None, "requires_safety_checker": False}
        return StableDiffusionPipeline.from_pretrained(model, **options)  # type: ignore[no-untyped-call]

    return Networks(
        pipe,
        lambda: load_clip_vision(vision_file),
        (lambda: load_saa(saa)) if stage == "reconfigure" else None,
    )
