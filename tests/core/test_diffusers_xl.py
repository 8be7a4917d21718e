"""A pipeline of Stable Diffusion XL's kind, small: two text encoders, added conditions, blocks two and three deep."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from published import imr, key_point_encoder, proj_module, saa_module, tensors
from standins import pipeline as standins
from torch import nn

from dynamicid_core.bases import UNetLayout
from dynamicid_core.checkpoints import load_motion, load_saa, write_motion, write_saa
from dynamicid_core.command_line import generate, main, parser
from dynamicid_core.command_line.settings import Settings
from dynamicid_core.face_files import save_face
from dynamicid_core.faces import DetectedFace
from dynamicid_core.origins import Origin
from dynamicid_core.refining import RefineOptions
from dynamicid_core.types import Cast, DynamicIDError, Face, Person, Region

pytest.importorskip("diffusers")

WIDTHS = {"clip_l": 32, "clip_g": 64}  # of the text encoders
TEXT_WIDTH = sum(WIDTHS.values())


def text_encoder(width: int, projected: bool) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=514, hidden_size=width, intermediate_size=width, projection_dim=width, num_hidden_layers=3,
        num_attention_heads=2, bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def make_pipe():
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=16, block_out_channels=(32, 32, 64), cross_attention_dim=TEXT_WIDTH, use_linear_projection=True,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(1, 2, 4),
            transformer_layers_per_block=(1, 2, 3), addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=WIDTHS["clip_g"] + 6 * 8,
        )  # fmt: skip
        pipe = StableDiffusionXLPipeline(
            vae=standins.make_vae(), unet=unet.eval(), text_encoder=text_encoder(WIDTHS["clip_l"], False),
            text_encoder_2=text_encoder(WIDTHS["clip_g"], True), tokenizer=standins.make_tokenizer(),
            tokenizer_2=standins.make_tokenizer(), scheduler=EulerDiscreteScheduler(), add_watermarker=False,
        )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """The pipeline's folder, a checkpoint of each kind written as training writes them, and two face files."""
    folder, pipe = tmp_path_factory.mktemp("xl"), make_pipe()
    pipe.save_pretrained(folder / "model")
    layout = UNetLayout.of(pipe.unet)
    encoder = tensors(proj_module(hidden=8, width=TEXT_WIDTH, depth=1, inner=64, feed=8), "proj_module.")
    made = load_saa(encoder | tensors(saa_module(layout.widths, 2, TEXT_WIDTH), "SAA_module."))
    write_saa(folder / "saa.safetensors", made.face_encoder, made.saa, layout.origin(step=3))
    stages = ((2, 1), (3, 3), (4, 2), (3, 1), (4, 2), (5, 1))
    small = {"token": TEXT_WIDTH, "width": 64, "latents": 2, "inner": 64, "feed": 8}
    for feature, width in WIDTHS.items():
        motion = load_motion(
            tensors(imr(motion=6 + width, **small), "IMR.")
            | tensors(key_point_encoder(stages, head=5, out=6), "key_point_encoder.")
        )
        origin = Origin(text_feature=feature, encoder=made.encoder_hash)
        write_motion(folder / f"imr_{feature}.safetensors", motion.reconfigurator, motion.keypoint_encoder, origin)
    for number, name in enumerate(("anna", "ben")):
        save_face(folder / f"{name}.safetensors", a_face(number, made.encoder_hash))
    return {path.stem: path for path in folder.iterdir()}


def a_face(seed: int, encoder: str) -> Face:
    tokens = torch.randn(2, 1, 4, TEXT_WIDTH, generator=torch.Generator().manual_seed(seed))
    return Face(
        tokens[0], tokens[1], encoder, landmarks=torch.linspace(0.2, 0.8, 212).view(106, 2), name=f"face {seed}"
    )


@pytest.fixture
def did(files):
    from dynamicid_core.hosts.diffusers import DynamicID

    return DynamicID.from_files(make_pipe(), files["saa"], files["imr_clip_g"])


def picture(did) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    made = did.pipe("two people", num_inference_steps=2, height=64, width=96, generator=generator, output_type="latent")
    return made.images


def test_faces_of_a_finished_picture_are_refined(did, monkeypatch) -> None:
    class Detector:
        recogniser = "buffalo_l"

        def detect(self, image: np.ndarray) -> list[DetectedFace]:
            side = image.shape[0]
            box = (side / 4, side / 4, side * 3 / 4, side * 3 / 4)
            return [DetectedFace(box, 0.9, np.zeros((5, 2)), np.eye(1, 512, dtype=np.float32)[0])]

    monkeypatch.setattr(did.photos, "detector", Detector())
    face = dataclasses.replace(a_face(0, did.saa.encoder_hash), identity=torch.eye(1, 512)[0])
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    plain = picture(did)
    how = RefineOptions(size=64, crop_factor=1.5, padding=0.1)
    made = did.refine(image, [face], "a person", how, steps=1).image
    assert (made[20:44, 20:44] != image[20:44, 20:44]).mean() > 0.9 and np.array_equal(made[:, 60:], image[:, 60:])
    assert torch.equal(picture(did), plain)


def test_a_cast_acts_and_leaves_the_pipeline_as_it_was(did) -> None:
    plain = picture(did)
    boxes = ((0, 0, 1, 0.5), (0, 0.5, 1, 1))
    people = (Person(a_face(i, did.saa.encoder_hash), Region(box=box)) for i, box in enumerate(boxes))
    with did.apply(Cast(tuple(people))):
        assert (picture(did) - plain).abs().max() > 1e-2
    assert torch.equal(picture(did), plain)


@pytest.mark.parametrize("feature", WIDTHS)
def test_text_features_are_the_named_encoders_unprojected_ends(did, files, feature: str) -> None:
    from dynamicid_core.hosts.diffusers import DynamicID

    named = DynamicID(did.pipe, did.saa, load_motion(files[f"imr_{feature}"]))
    texts = ["happy", "a very surprised expression"]
    found = named.text_features(texts)
    encoder = did.pipe.text_encoder_2.text_model if feature == "clip_g" else did.pipe.text_encoder
    for row, text in zip(found, texts, strict=True):
        ids = did.pipe.tokenizer(text, return_tensors="pt").input_ids
        states = encoder(ids).last_hidden_state[0]  # after the final LayerNorm
        torch.testing.assert_close(row, states[ids[0].tolist().index(513)], atol=1e-5, rtol=1e-4)
    face = a_face(0, did.saa.encoder_hash)
    assert not torch.equal(named.edit(face, "happy", source="sad").tokens, face.tokens)


def test_an_encoder_that_the_pipeline_lacks_is_named(did) -> None:
    from dynamicid_core.hosts.diffusers import DynamicID

    motion = dataclasses.replace(did.motion, origin=Origin(text_feature="clip_h"))
    named = DynamicID(did.pipe, did.saa, motion)
    with pytest.raises(DynamicIDError, match="read the text feature clip_h .* gives clip_l .*, clip_g"):
        named.edit(a_face(0, did.saa.encoder_hash), "happy", source="sad")


def test_apply_warns_of_other_encoders_and_refuses_other_recognisers(did) -> None:
    with pytest.warns(UserWarning, match="Face 'face 1' was made by the face encoder abc, but the loaded one is"):
        did.apply([a_face(1, "abc")])
    did.remove()
    said: list[str] = []
    did.apply([a_face(1, "abc")], warn=said.append)
    did.remove()
    assert len(said) == 1
    with pytest.raises(DynamicIDError, match="'face 2' is of the recogniser auraface, but .* of buffalo_l"):
        did.apply([dataclasses.replace(a_face(2, did.saa.encoder_hash), recogniser="auraface")])


def test_an_imr_of_another_encoder_is_warned_of(did) -> None:
    from dynamicid_core.hosts.diffusers import DynamicID

    motion = dataclasses.replace(did.motion, origin=Origin(text_feature="clip_g", encoder="f" * 64))
    with pytest.warns(UserWarning, match="were trained with the face encoder ffffffffffff, but the loaded one is"):
        DynamicID(did.pipe, did.saa, motion)


def test_generate_takes_such_a_model(files, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--model", files["model"], "--saa", files["saa"], "--size", "96x64", "--steps", "2", "--quiet", "--json"]
    faces = ["--face", files["anna"], "--expression", "a very surprised expression", "--imr", files["imr_clip_l"]]
    faces += ["--face", files["ben"], "--box", "0.5,0,1,1"]
    words = ["generate", *faces, *options, "--device", "cpu", "-o", "out.png", "--prompt", "two people"]
    assert main(list(map(str, words))) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["picture"] == "out.png"
    with Image.open("out.png") as made:
        assert made.size == (96, 64)


def test_generate_refuses_weights_of_another_base_by_name(files, tmp_path, capsys, monkeypatch) -> None:
    from dynamicid_core.saving import write_safetensors

    monkeypatch.chdir(tmp_path)
    saa = write_safetensors(tmp_path / "sd15.safetensors", standins.saa_tensors(), {"format": "pt"})
    words = ["generate", files["anna"], "--model", files["model"], "--saa", saa, "--device", "cpu"]
    assert main(list(map(str, words))) == 1
    said = capsys.readouterr().err
    assert (
        "with 28 cross attentions (width 32 to 64, text width 96), but the DynamicID weights are made for 16 " in said
    )


@pytest.mark.parametrize("base, side", [("Stable Diffusion XL", 1024), ("Stable Diffusion 1.5", 768), ("", 768)])
def test_pictures_have_the_size_that_the_base_makes_best(did, base: str, side: int) -> None:
    saa = dataclasses.replace(did.saa, origin=Origin(base=base))
    options = parser().parse_args(["generate", "anna.jpg"])
    did.saa = saa
    sized = generate._sized(Settings(), options, did)
    assert (sized.width, sized.height) == (side, side)
    options = parser().parse_args(["generate", "anna.jpg", "--size", "64"])
    assert generate._sized(Settings(width=64, height=64), options, did).width == 64
