"""What a checkpoint belongs to: written, read, held against models, recognisers and encoders."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import published
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dynamicid_core import __version__
from dynamicid_core.blending import average_faces, blend_faces
from dynamicid_core.catalogue import model_file
from dynamicid_core.checkpoints import (
    check_faces,
    convert,
    encoder_warnings,
    load_motion,
    load_saa,
    motion_warning,
    write_motion,
    write_saa,
)
from dynamicid_core.encode import TokenEncoder, check_clip_width, encode_photos
from dynamicid_core.motion import MotionNetworks, edit_face
from dynamicid_core.networks.face_encoder import FaceEncoderSizes
from dynamicid_core.origins import TEXT_FEATURES, Origin, check_recogniser, choose_text_encoder, recogniser_name
from dynamicid_core.scoring import score_image
from dynamicid_core.types import RECOGNISER, Cast, DynamicIDError, Face, Person

OTHER = Origin("Somebody's", (4, 6, 4), (8, 8, 8), ("down.0.0", "up.0.0", "middle.0.0"), "auraface", "ViT-L", "clip_g")


def a_face(name: str = "anna", **changed) -> Face:
    values = {"tokens": torch.randn(1, 4, 8), "uncond_tokens": torch.zeros(1, 4, 8), "encoder": "abc", "name": name}
    return Face(**{**values, **changed})


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def damaged(path: Path, **changed: str) -> Path:
    """The small SAA file with these metadata."""
    save_file(
        published.small_saa(), path, Origin(base="", widths=(4, 6, 4), text_widths=(8,) * 3).to_metadata() | changed
    )
    return path


# Files


def test_what_training_writes_is_what_loading_reads(tmp_path):
    made = load_saa(published.small_saa())
    path = write_saa(tmp_path / "saa.safetensors", made.face_encoder, made.saa, dataclasses.replace(OTHER, step=12))
    read = load_saa(path)
    assert read.origin == dataclasses.replace(OTHER, step=12, encoder=made.encoder_hash, version=__version__)
    assert read.encoder_hash == made.encoder_hash
    assert all(torch.equal(t, read.saa.state_dict()[name]) for name, t in made.saa.state_dict().items())
    motion = load_motion(published.small_imr())
    path = write_motion(tmp_path / "imr.safetensors", motion.reconfigurator, motion.keypoint_encoder, read.origin)
    again = load_motion(path)
    assert again.origin == read.origin
    assert (again.token_width, again.text_width) == (8, 7)
    expected = motion.keypoint_encoder.state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in again.keypoint_encoder.state_dict().items())


def test_files_without_metadata_count_as_published(tmp_path):
    assert load_saa(published.small_saa()).origin == Origin(widths=(4, 6, 4), text_widths=(8, 8, 8))
    full = {name: torch.ones(shape) for name, shape in published.saa_module().items()}
    encoder = published.tensors(published.proj_module(depth=1), "proj_module.")
    save_file({f"SAA_module.{name}": t for name, t in full.items()} | encoder, tmp_path / "saa.safetensors")
    origin = load_saa(tmp_path / "saa.safetensors").origin
    assert (origin.base, origin.recogniser, origin.text_feature) == ("Stable Diffusion 1.5", "buffalo_l", "clip_l")
    assert origin.clip_vision == model_file("clip_vision").name.removesuffix(".safetensors")
    assert model_file("face_pack").name == RECOGNISER


@pytest.mark.parametrize(
    "base",
    [
        "SDXL",
        "[]",
        json.dumps({"family": "SDXL"}),
        json.dumps({"family": 3, "sites": [], "widths": [4], "text_widths": [8]}),
        json.dumps({"family": "", "sites": [], "widths": [4, 6], "text_widths": [8]}),
        json.dumps({"family": "", "sites": ["down.0.0"], "widths": [4, 6, 4], "text_widths": [8, 8, 8]}),
        json.dumps({"family": "", "sites": [], "widths": ["4"], "text_widths": [8]}),
    ],
)
def test_a_base_that_cannot_be_read_is_an_error(tmp_path, base):
    with pytest.raises(DynamicIDError, match="saa.safetensors has damaged metadata: its base cannot be read"):
        load_saa(damaged(tmp_path / "saa.safetensors", base=base))


def test_metadata_that_only_inform_are_ignored_where_strange(tmp_path):
    path = damaged(tmp_path / "saa.safetensors", step="many", version="?", recogniser="  ", author="somebody")
    assert load_saa(path).origin == Origin(widths=(4, 6, 4), text_widths=(8, 8, 8), version="?")


@pytest.mark.parametrize(
    "origin, said",
    [
        (Origin(base="Stable Diffusion XL"), "is for Stable Diffusion XL, but its tensors are for 3 other cross att"),
        (Origin(base="Mine", widths=(4, 6), text_widths=(8, 8)), "is for Mine, but its tensors are for 3 other"),
    ],
)
def test_metadata_and_tensors_must_agree(tmp_path, origin, said):
    with pytest.raises(DynamicIDError, match=f"contradicts itself: its metadata say that it {said}"):
        load_saa(damaged(tmp_path / "saa.safetensors", **origin.to_metadata()))
    made = load_saa(published.small_saa())
    with pytest.raises(DynamicIDError, match="contradicts itself"):
        write_saa(tmp_path / "new.safetensors", made.face_encoder, made.saa, origin)
    assert not (tmp_path / "new.safetensors").exists()


def test_an_encoder_of_other_tokens_than_the_sites_take_is_refused():
    narrow = published.tensors(published.proj_module(width=6, inner=16, feed=4, depth=1), "proj_module.")
    sites = published.tensors(published.SMALL_SAA, "SAA_module.")
    with pytest.raises(DynamicIDError, match="makes tokens of width 6, but its attention sites take 8"):
        load_saa(narrow | sites)


def test_converting_keeps_what_a_file_says_of_itself(tmp_path):
    made, motion = load_saa(published.small_saa()), load_motion(published.small_imr())
    files = [
        write_saa(tmp_path / "a.safetensors", made.face_encoder, made.saa, OTHER),
        write_motion(tmp_path / "b.safetensors", motion.reconfigurator, motion.keypoint_encoder, Origin(step=5)),
    ]
    written = convert(files, tmp_path / "out")
    assert [metadata(path) for path in written] == [metadata(path) for path in files]


# Recognisers


def test_recognisers_are_named_by_pack_and_channels():
    assert [recogniser_name("auraface", channels) for channels in ("rgb", "bgr")] == ["auraface", "auraface (bgr)"]
    check_recogniser("AuraFace", OTHER, "The face")  # a folder in another case
    with pytest.raises(DynamicIDError) as refused:
        check_recogniser("auraface (bgr)", OTHER, "The face 'anna'")
    assert "The face 'anna' is of the recogniser auraface (bgr), but" in str(refused.value)
    assert "Encode the photo with the face model pack auraface, or load weights that were" in str(refused.value)


class Detector:
    def __init__(self, recogniser: str) -> None:
        self.recogniser = recogniser

    def detect(self, image):
        raise AssertionError("nothing is looked for")


def test_encoding_with_another_recogniser_is_refused_before_anything_is_done():
    encoder = TokenEncoder(lambda identities, clip: identities, FaceEncoderSizes(), "abc", OTHER)
    photo = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(DynamicIDError, match="The face analysis is of the recogniser buffalo_l, but .* of auraface"):
        encode_photos([photo], Detector("buffalo_l"), None, encoder)
    with pytest.raises(AssertionError, match="nothing is looked for"):
        encode_photos([photo], Detector("auraface"), None, encoder)


def test_faces_of_different_recognisers_do_not_mix():
    faces = [a_face(), a_face("ben", recogniser="auraface")]
    said = r"different recognisers \(anna with buffalo_l, ben with auraface\) and cannot be mixed. Encode all"
    for mix in (
        lambda: blend_faces(faces, (1, 1)),
        lambda: average_faces(faces),
        lambda: Cast(tuple(map(Person, faces))),
        lambda: Cast((Person(faces[0]),)).add(Person(faces[1])),
    ):
        with pytest.raises(DynamicIDError, match=said):
            mix()
    assert blend_faces([faces[1], faces[1]], (1, 2)).recogniser == "auraface"


def test_scoring_with_another_recogniser_is_refused():
    cast = Cast((Person(a_face(recogniser="auraface")),))
    with pytest.raises(DynamicIDError, match="made with the recogniser auraface, .* of buffalo_l; .*Load .* auraface"):
        score_image(cast, np.zeros((8, 8, 3), np.uint8), Detector("buffalo_l"))


def test_faces_that_the_weights_do_not_know_are_refused_and_other_encoders_warned_of():
    saa = load_saa(published.small_saa())
    with pytest.raises(DynamicIDError, match="The face 'anna' is of the recogniser auraface, but .* of buffalo_l"):
        check_faces([a_face(recogniser="auraface")], saa.origin)
    check_faces([a_face()], saa.origin)
    ours = a_face("ours", encoder=saa.encoder_hash)
    (warning,) = encoder_warnings([a_face(), ours, a_face("again")], saa)
    assert warning.startswith("Face 'again' was made by the face encoder abc, but the loaded one is")


# CLIP


def test_clip_models_of_another_width_are_named():
    check_clip_width(FaceEncoderSizes(), torch.zeros(1, 257, 1280))
    with pytest.raises(DynamicIDError) as refused:
        check_clip_width(FaceEncoderSizes(), torch.zeros(1, 257, 1024))
    assert "seems to be CLIP ViT-L/14: it gives tokens of width 1024, but the face encoder needs 1280." in str(
        refused.value
    )
    assert str(refused.value).endswith("Load CLIP-ViT-H-14-laion2B-s32B-b79K (the file that IP-Adapter uses).")
    with pytest.raises(DynamicIDError, match="gives tokens of width 5, but .* needs 1280. Load ViT-L.$"):
        check_clip_width(FaceEncoderSizes(), torch.zeros(1, 257, 5), OTHER)


def test_the_named_text_encoder_is_chosen_or_its_lack_said():
    encoders = {"clip_l": 1, "clip_g": 2}
    assert [choose_text_encoder(encoders, Origin(text_feature=name)) for name in encoders] == [1, 2]
    with pytest.raises(DynamicIDError) as refused:
        choose_text_encoder({"clip_l": 1}, OTHER)
    assert f"read the text feature clip_g ({TEXT_FEATURES['clip_g']}), but this text encoder gives clip_l (" in str(
        refused.value
    )
    with pytest.raises(DynamicIDError, match="gives none that DynamicID knows"):
        choose_text_encoder({}, OTHER)
    with pytest.raises(DynamicIDError, match="the text feature 'umt5', which this DynamicID does not know. Update it."):
        choose_text_encoder(encoders, Origin(text_feature="umt5"))


# Expressions


def test_expressions_want_tokens_and_texts_of_their_width():
    motion = load_motion(published.small_imr())
    face = a_face(tokens=torch.randn(1, 3, 8), uncond_tokens=torch.zeros(1, 3, 8), landmarks=torch.rand(106, 2))

    def edit(face: Face, width: int) -> Face:
        texts = lambda some: torch.ones(len(some), width)  # noqa: E731
        networks = MotionNetworks(motion.reconfigurator, motion.keypoint_encoder, texts, motion)
        return edit_face(face, networks, expression="happy", source="neutral")

    assert edit(face, 7).tokens.shape == face.tokens.shape
    with pytest.raises(DynamicIDError, match="gives a clip_l feature of width 9, .* read clip_l .* of width 7"):
        edit(face, 9)
    wide = dataclasses.replace(face, tokens=torch.randn(1, 3, 16), uncond_tokens=torch.zeros(1, 3, 16))
    with pytest.raises(
        DynamicIDError, match="anna has tokens of width 16, .* edit tokens of width 8. Load the IMR file"
    ):
        edit(wide, 7)


def test_an_imr_of_another_encoder_is_warned_of():
    saa, motion = load_saa(published.small_saa()), load_motion(published.small_imr())
    assert motion_warning(saa, None) is None and motion_warning(saa, motion) is None
    for encoder, warns in ((saa.encoder_hash, False), ("f" * 64, True)):
        trained = dataclasses.replace(motion, origin=Origin(encoder=encoder))
        assert bool(motion_warning(saa, trained)) == warns
