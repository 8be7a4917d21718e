"""Face files: what is in them, what comes back, and what is said of files that are none."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import published
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dynamicid_core.blending import blend_faces
from dynamicid_core.face_files import encoder_mismatch, load_face, save_face
from dynamicid_core.types import DynamicIDError, Face

OURS, OTHERS = "0123456789abcdef" * 4, "fedcba9876543210" * 4
FACE_KEYS = {"format": "dynamicid-face", "version": "1", "encoder": OURS, "recogniser": "buffalo_l"}


def _face(seed: int = 0, known: bool = True, **changed) -> Face:
    generator = torch.Generator().manual_seed(seed)
    values = {"tokens": torch.randn(1, 4, 768, generator=generator), "encoder": OURS}
    values["uncond_tokens"] = torch.randn(1, 4, 768, generator=generator)
    if known:
        values["identity"] = torch.nn.functional.normalize(torch.randn(512, generator=generator), dim=0)
        values["landmarks"] = torch.rand(106, 2, generator=generator)
        values["pose"] = torch.tensor([1.5, -20.25, 0.1])
    return Face(**(values | changed))


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def _refused(path: Path) -> str:
    with pytest.raises(DynamicIDError) as caught:
        load_face(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) - len(str(path)) < 500
    return str(caught.value)


def test_a_face_that_moves_keeps_its_frames(tmp_path):
    face = _face(tokens=torch.randn(24, 4, 768, generator=torch.Generator().manual_seed(1)))
    path = save_face(tmp_path / "film.safetensors", face)
    assert torch.equal(load_face(path).tokens, face.tokens) and _metadata(path) == FACE_KEYS
    assert path.stat().st_size < 24 * 4 * 768 * 4 + 20_000
    save_file(load_file(path) | {"tokens": torch.ones(5000, 4, 768)}, path, FACE_KEYS)
    assert "[1 to 4096 frames" in _refused(path)


@pytest.mark.parametrize("known", [True, False], ids=["all known", "tokens only"])
def test_a_face_file_is_what_the_interface_says_and_comes_back_bit_for_bit(tmp_path, known):
    face = _face(known=known, thumbnail=torch.ones(2, 2, 3), name="Ada")
    path = save_face(tmp_path / "new" / "Ada.safetensors", face)
    assert _metadata(path) == FACE_KEYS
    tensors = load_file(path)
    shapes = {
        "tokens": [1, 4, 768],
        "uncond_tokens": [1, 4, 768],
        "identity": [512],
        "landmarks": [106, 2],
        "pose": [3],
    }
    assert {name: list(t.shape) for name, t in tensors.items()} == (shapes if known else dict(list(shapes.items())[:2]))
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    back = load_face(path)
    for name in shapes:
        value = getattr(face, name)
        assert torch.equal(getattr(back, name), value) if value is not None else getattr(back, name) is None
    assert (back.encoder, back.mix, back.name, back.expression, back.thumbnail) == (OURS, (1.0,), "Ada", None, None)
    assert os.listdir(path.parent) == ["Ada.safetensors"]


def test_half_precision_faces_are_saved_and_loaded_as_float32(tmp_path):
    face = _face(tokens=torch.randn(1, 4, 768).half())
    path = save_face(tmp_path / "a.safetensors", face)
    assert torch.equal(load_face(path).tokens, face.tokens.float())
    save_file({name: t.half() for name, t in load_file(path).items()}, path, FACE_KEYS)
    assert load_face(path).tokens.dtype == torch.float32


@pytest.mark.parametrize("weights", [(0.7, 0.3), (1, 2, 3), (1, 0)])
def test_a_face_blended_in_attention_keeps_its_mix(tmp_path, weights):
    face = blend_faces([_face(seed, expression="happy") for seed in range(len(weights))], weights, "attention")
    path = save_face(tmp_path / "blend.safetensors", face)
    assert _metadata(path) == FACE_KEYS | {"mix": json.dumps(face.mix), "expression": "happy"}
    back = load_face(path)
    assert (back.mix, back.expression) == (face.mix, "happy")
    assert torch.equal(back.tokens, face.tokens)


def test_names_may_be_in_any_script(tmp_path):
    path = tmp_path / "\u987e\u5ba2 \u00c9lo\u00efse \U0001f642.safetensors"
    save_face(path, _face())
    assert load_face(str(path)).name == path.stem


def test_what_a_file_is_called_and_says_fits_one_line(tmp_path):
    path = tmp_path / "Anna\nBen\x1b[31m.safetensors"
    saved = save_face(tmp_path / "a.safetensors", _face())
    metadata = FACE_KEYS | {"recogniser": "buffalo_l\nERROR: all is lost", "expression": "happy\x07" + "y" * 5000}
    save_file(load_file(saved), path, metadata)
    face = load_face(path)
    assert (face.name, face.recogniser) == ("Anna Ben [31m", "buffalo_l ERROR: all is lost")
    assert len(face.expression) == 200 and face.expression.isprintable()


def test_a_face_file_of_another_encoder_warns_and_names_both(tmp_path):
    path, said = save_face(tmp_path / "a.safetensors", _face()), []
    assert torch.equal(load_face(path, OTHERS, said.append).tokens, _face().tokens)
    (message,) = said
    assert str(path) in message and OURS[:12] in message and OTHERS[:12] in message
    load_face(path, OURS, said.append)
    load_face(path, None, said.append)
    assert len(said) == 1
    load_face(path, OTHERS)  # nobody listens
    assert "unknown" in encoder_mismatch("", OTHERS, "Ada")


def test_a_loaded_face_does_not_hold_on_to_its_file(tmp_path):
    path = save_face(tmp_path / "a.safetensors", _face())
    face = load_face(path)
    path.write_bytes(bytes(path.stat().st_size))  # written over in place
    assert torch.equal(face.tokens, _face().tokens)


def test_a_future_version_is_refused_with_both_versions(tmp_path):
    save_file({"parts": torch.ones(3)}, tmp_path / "a.safetensors", FACE_KEYS | {"version": "2"})
    message = _refused(tmp_path / "a.safetensors")
    assert "version 2" in message and "version 1" in message and "Update" in message


def test_checkpoints_and_other_files_are_no_faces(tmp_path):
    path = tmp_path / "a.safetensors"
    cases = {
        "a DynamicID SAA file": published.small_saa(),
        "a DynamicID IMR file": published.small_imr(),
        "a LoRA": {"lora_unet_x.lora_up.weight": torch.ones(2, 2)},
        "a file without tensors": {},
    }
    for kind, tensors in cases.items():
        save_file(tensors, path)
        message = _refused(path)
        assert kind in message and "expected a face file" in message
    torch.save({"proj_module": {}}, path)
    assert "it is a PyTorch pickle" in _refused(path)
    path.write_text("<html></html>")
    assert "web page" in _refused(path)
    assert "is a folder" in _refused(tmp_path)
    assert "There is no file" in _refused(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("changed", "metadata", "said"),
    [
        ({"tokens": None}, {}, "tokens"),
        ({"uncond_tokens": None}, {}, "uncond_tokens"),
        ({"tokens": torch.ones(4, 768)}, {}, r"\(4, 768\)"),
        ({"identity": torch.ones(128)}, {}, r"identity has shape \(128,\)"),
        ({"pose": torch.full((3,), float("nan"))}, {}, "NaN"),
        ({}, {"mix": "not numbers"}, "damaged"),
        ({}, {"mix": "[]"}, "damaged"),
        ({}, {"mix": "0.5"}, "damaged"),
        ({}, {"mix": '["a"]'}, "damaged"),
        ({}, {"mix": "[[1]]"}, "damaged"),
        ({}, {"mix": "[0.5, 0.2, 0.3]"}, "3 blended"),
        ({}, {"mix": "[1e300]"}, r"mix is 1e\+300; it must lie between"),
        ({}, {"mix": "[NaN]"}, "NaN is no number"),
        ({}, {"mix": "[" * 100_000}, "nested too deeply"),
        ({"tokens": torch.full((1, 4, 768), 3e38)}, {}, r"tokens holds values as large as 3e\+38"),
        (
            {"uncond_tokens": torch.cat((torch.ones(1, 3, 768), torch.zeros(1, 1, 768)), 1)},
            {},
            "zeros as uncond_tokens",
        ),
        ({"identity": torch.ones(512)}, {}, "identity has the length 22.6, not 1"),
    ],
)
def test_damaged_face_files(tmp_path, changed, metadata, said):
    tensors = {"tokens": torch.ones(1, 4, 768), "uncond_tokens": torch.ones(1, 4, 768), **changed}
    path = tmp_path / "a.safetensors"
    save_file({name: t for name, t in tensors.items() if t is not None}, path, FACE_KEYS | metadata)
    assert re.search(said, _refused(path))


def test_truncated_face_files(tmp_path):
    path = save_face(tmp_path / "a.safetensors", _face())
    whole = path.read_bytes()
    for size in (0, 1, 7, 8, 9, 100, 500, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        message = _refused(path)
        assert size < 9 or "truncated" in message
        assert "Expected a face file" in message


def test_a_face_remembers_its_recogniser(tmp_path):
    path = save_face(tmp_path / "anna.safetensors", dataclasses.replace(_face(), recogniser="auraface"))
    assert _metadata(path)["recogniser"] == "auraface" and load_face(path).recogniser == "auraface"
    older = {name: value for name, value in FACE_KEYS.items() if name != "recogniser"}
    save_file({"tokens": torch.ones(1, 4, 8), "uncond_tokens": torch.ones(1, 4, 8)}, path, older)
    assert load_face(path).recogniser == "buffalo_l"


def test_a_portrait_is_kept_only_if_asked_for(tmp_path):
    picture = torch.linspace(0, 1, 4 * 4 * 3).reshape(4, 4, 3)
    face = _face(thumbnail=picture)
    assert load_face(save_face(tmp_path / "without.safetensors", face)).thumbnail is None
    kept = save_face(tmp_path / "with.safetensors", face, portrait=True)
    assert (load_face(kept).thumbnail - picture).abs().max() <= 0.5 / 255 + 1e-6
    assert load_file(kept)["portrait"].dtype == torch.uint8 and _metadata(kept) == FACE_KEYS
    assert load_face(save_face(tmp_path / "none.safetensors", _face(), portrait=True)).thumbnail is None
    strange = load_file(kept) | {"portrait": torch.zeros(3, 3)}
    save_file(strange, kept, FACE_KEYS)
    assert load_face(kept).thumbnail is None  # for previews only: no reason to refuse a face
