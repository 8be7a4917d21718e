"""Checkpoints trained here for Stable Diffusion 2 and XL, in both hosts: the same pictures, and other models refused."""

from __future__ import annotations

import other_bases
import pytest
import torch
from other_bases import SD2, SDXL, NarrowBase
from studio import SMOOTH, Studio, difference
from test_agreement import of_the_core

from dynamicid_core.checkpoints import load_saa
from dynamicid_core.types import SAAOptions

pytest.importorskip("diffusers")

STEPS = 4  # as in test_agreement


class Both:
    """A narrow base with a checkpoint trained for it, in both hosts."""

    def __init__(self, studio: Studio, base: NarrowBase) -> None:
        from dynamicid_core.hosts.diffusers import DynamicID

        self.studio, self.base = studio, base
        self.unet = base.make_unet()
        self.file = f"saa_{base.name}.safetensors"
        path = studio.host.base / "models" / "dynamicid" / self.file
        other_bases.write_checkpoint(path, self.unet, step=7)
        self.model = base.make_model(self.unet)
        (self.weights,) = studio.host.node("DynamicIDLoader")(saa_file=self.file, imr_file="none")
        self.did = DynamicID(other_bases.pipeline(base, self.unet), load_saa(path))

    def cast(self, people: int = 2):
        """People side by side in boxes."""
        encoder, node = self.weights.saa.encoder_hash, self.studio.host.node("DynamicIDPlaceFaces")
        boxes = [{"x": 64 / people * i + 2, "y": 0, "width": 64 / people - 4, "height": 50} for i in range(people)]
        faces = {}
        for i in range(people):
            tokens = torch.randn(2, 1, 4, self.base.text_width, generator=torch.Generator().manual_seed(i))
            faces[f"face{i}"] = self.studio.types.Face(tokens[0], tokens[1], encoder, name=f"person {i}")
        return node(faces=faces, bboxes=boxes, width=64, height=64)[0]

    def in_comfyui(self, model, size, cfg):
        positive, negative = self.base.conditioning(1), self.base.conditioning(2)
        return self.studio.sample(model, size=size, steps=STEPS, cfg=cfg, positive=positive, negative=negative)

    def in_diffusers(self, size, cfg):
        return other_bases.sample(self.did.pipe, self.base, [*self.studio.sigmas(STEPS), 0.0], size, cfg)


@pytest.fixture(scope="module", params=[SDXL, SD2], ids=lambda base: base.name)
def both(studio: Studio, request) -> Both:
    return Both(studio, request.param)


@pytest.mark.parametrize("size, cfg", [((8, 8), 4.0), ((9, 13), 1.0)])
def test_hosts_agree(both: Both, size, cfg) -> None:
    cast = both.cast()
    plain = both.in_comfyui(both.model, size, cfg)
    applied = both.studio.apply(both.model, cast, both.weights, **SMOOTH)
    comfy = both.in_comfyui(applied, size, cfg)
    with both.did.apply(of_the_core(cast), SAAOptions(**SMOOTH)):
        here = both.in_diffusers(size, cfg)
    assert difference(comfy, plain) > 0.1  # there is something to agree about
    assert difference(both.in_diffusers(size, cfg), plain) < 5e-4  # so do the models without faces
    assert difference(here, comfy) < 5e-4
