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


@pytest.mark.parametrize("size, cfg", [((16, 16), 4.0), ((18, 13), 1.0)])
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


def test_the_checkpoint_says_what_it_is_for_in_both_hosts(both: Both) -> None:
    for origin in (both.weights.saa.origin, both.did.saa.origin):
        assert (origin.recogniser, origin.step, len(origin.sites)) == ("buffalo_l", 7, len(origin.widths))
        assert origin.encoder == both.weights.saa.encoder_hash
        assert set(origin.text_widths) == {both.base.text_width}


def test_weights_for_another_base_are_refused_by_name(studio: Studio, both: Both) -> None:
    text = both.base.text_width
    with pytest.raises(ValueError, match=f"This model is SD15 with .*text width 768.* made for .*text width {text}"):
        studio.apply(studio.model, both.cast(), both.weights)
    with pytest.raises(ValueError, match=f"This model is {both.base.name} with .*text width {text}.* made for .* 768"):
        studio.apply(both.model)


def test_faces_of_another_recogniser_are_refused(studio: Studio, both: Both) -> None:
    import dataclasses

    encoded = both.cast().people[0].face
    (cast,) = studio.host.node("DynamicIDPlaceFace")(face=dataclasses.replace(encoded, recogniser="auraface"))
    with pytest.raises(
        ValueError, match="'person 0' is of the recogniser auraface, but .* know the identities of buff"
    ):
        studio.apply(both.model, cast, both.weights)
    with pytest.raises(ValueError, match=r"different recognisers \(person 0 with auraface, person 0 with buffalo_l\)"):
        studio.host.node("DynamicIDPlaceFace")(face=encoded, cast=cast)


# Text features


TEXTS = ["in a happy expression, in front view", "a very surprised expression, (front view:1.2)"]


@pytest.mark.parametrize("name, features", [("sdxl", ("clip_l", "clip_g")), ("sd2", ("clip_h",))])
def test_text_features_are_those_of_transformers(studio: Studio, name: str, features: tuple[str, ...]) -> None:
    from dynamicid_core.hosts.diffusers.texts import pooled_features

    networks, clip = studio.host.module("dynamicid_core.hosts.comfy.networks"), other_bases.make_clip(name)
    origins = studio.host.module("dynamicid_core.origins")
    for feature in features:
        found = networks.text_features(clip, TEXTS[:1], origins.Origin(text_feature=feature))
        tokenizer, encoder = other_bases.transformers_encoder(clip, feature)
        expected = pooled_features(tokenizer, encoder, TEXTS[:1], torch.device("cpu"))
        assert found.shape == expected.shape and expected.std() > 0.1
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)
    with pytest.raises(
        ValueError, match=r"read the text feature (clip_h|clip_l) \(.*but this text encoder gives clip_"
    ):
        missing = "clip_h" if name == "sdxl" else "clip_l"
        networks.text_features(clip, TEXTS, origins.Origin(text_feature=missing))


def test_expressions_take_the_text_feature_that_the_weights_name(studio: Studio) -> None:
    path = studio.host.base / "models" / "dynamicid" / "imr_g.safetensors"
    other_bases.write_motion_checkpoint(path, token=768, text=1280, text_feature="clip_g", encoder="of another")
    import dataclasses

    from comfy_host import captured_log

    node = studio.host.node
    with captured_log() as log:
        (weights,) = node("DynamicIDLoader")(saa_file="saa.safetensors", imr_file="imr_g.safetensors")
    assert any("were trained with the face encoder of another, but the loaded one is" in line for line in log)
    face = dataclasses.replace(studio.face(0), landmarks=torch.rand(106, 2))
    given = {"dynamicid": weights, "face": face, "expression": TEXTS[0], "source": "neutral"}
    (edited,) = node("DynamicIDEditMotion")(**given, clip=other_bases.make_clip("sdxl"))
    assert (edited.tokens - face.tokens).abs().max() > 0.1
    with pytest.raises(ValueError, match="read the text feature clip_g .* but this text encoder gives clip_l"):
        node("DynamicIDEditMotion")(**given, clip=studio.clip)
