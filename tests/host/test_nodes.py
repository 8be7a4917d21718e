"""The pack's nodes in real graphs: the whole way from photo to picture, what bad input gets, and how the pack loads."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from comfy_host import CHECKPOINT, PACK, REPOSITORY, Host, HostError, captured_log
from PIL import Image
from safetensors.torch import load_file, save_file

VISION = "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"
BOXES = [[{"x": 0, "y": 0, "width": 200, "height": 400}, {"x": 300, "y": 0, "width": 200, "height": 400}]]

Nodes = dict[str, tuple[str, dict]]


def graph(nodes: Nodes) -> dict[str, dict]:
    return {
        name: {"class_type": cls, "inputs": inputs, "_meta": {"title": name}} for name, (cls, inputs) in nodes.items()
    }


LOADERS: Nodes = {
    "weights": ("DynamicIDLoader", {"saa_file": "saa.safetensors", "imr_file": "imr.safetensors"}),
    "analysis": ("DynamicIDFaceAnalysis", {"model_pack": "buffalo_l", "provider": "CPU"}),
    "vision": ("CLIPVisionLoader", {"clip_name": VISION}),
    "checkpoint": ("CheckpointLoaderSimple", {"ckpt_name": CHECKPOINT}),
    "photo": ("LoadImage", {"image": "astronaut.png"}),
    "grey": ("EmptyImage", {"width": 64, "height": 64, "batch_size": 1, "color": 8421504}),
}
ENCODE = {
    "dynamicid": ["weights", 0], "clip_vision": ["vision", 0], "image": ["photo", 0], "face_analysis": ["analysis", 0],
    "face_order": "large-small", "face_index": 0, "crop_factor": 0.0, "combine": "average", "on_no_face": "error",
}  # fmt: skip
EDIT = {
    "dynamicid": ["weights", 0], "face": ["face", 0], "clip": ["checkpoint", 1], "expression": "a happy expression",
    "source": "", "strength": 1.0,
}  # fmt: skip
PLACE = {"faces.face0": ["face", 0], "faces.face1": ["edited", 0], "width": 500, "height": 400, "weight": 1.0}
APPLY = {
    "model": ["checkpoint", 0], "dynamicid": ["weights", 0], "cast": ["cast", 0], "weight": 1.0, "start_at": 0.0, "end_at": 1.0,
    "layout_strength": 2.0, "layout_end": 0.24, "gate_threshold": 0.3, "outside": "everyone", "lora_strength": 1.0,
}  # fmt: skip
PEOPLE: Nodes = {
    "face": ("DynamicIDEncodeFace", ENCODE),
    "edited": ("DynamicIDEditMotion", EDIT),
    "bboxes": ("TestBoxes", {"boxes": json.dumps(BOXES)}),
    "cast": ("DynamicIDPlaceFaces", {**PLACE, "bboxes": ["bboxes", 0]}),
    "applied": ("DynamicIDApply", APPLY),
}
# The same people without encoding the photo again, once the fixture `encoded` has written the file.
FROM_FILE: Nodes = PEOPLE | {"face": ("DynamicIDLoadFace", {"face_file": "ada.safetensors"})}


def sampled(model: str) -> Nodes:
    """Nodes that sample two steps with the MODEL of a node."""
    text = {"clip": ["checkpoint", 1], "text": "two people"}
    settings = {"seed": 1, "steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    inputs = {"model": [model, 0], "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["latent", 0]}
    return {
        "text": ("CLIPTextEncode", text),
        "latent": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "sample": ("KSampler", {**inputs, **settings}),
    }


class TestBoxes:
    """Boxes as the host's box editor gives them, out of a text."""

    __test__ = False
    INPUT_TYPES = classmethod(lambda cls: {"required": {"boxes": ("STRING", {})}})
    RETURN_TYPES = ("BOUNDING_BOX",)
    FUNCTION = "give"
    CATEGORY = "tests"

    def give(self, boxes: str) -> tuple:
        return (json.loads(boxes),)


@pytest.fixture(scope="module")
def ready(host: Host) -> Host:
    """The host with a photo of a person in its input folder."""
    from skimage.data import astronaut

    Image.fromarray(astronaut()).save(host.base / "input" / "astronaut.png")
    host.nodes.NODE_CLASS_MAPPINGS["TestBoxes"] = TestBoxes
    host.forget()
    return host


@pytest.fixture(scope="module")
def encoded(ready: Host):
    """The face in that photo, as the graph encodes it, and the preview; it lies in the input folder as well."""
    values = ready.run_graph(graph(LOADERS | PEOPLE), capture=[("face", 0), ("face", 1)]).values
    ready.module("dynamicid_core.face_files").save_face(ready.base / "input" / "ada.safetensors", values["face", 0])
    return values["face", 0], values["face", 1]


# The whole way


def test_photo_to_face_to_file_and_back(ready: Host, encoded) -> None:
    face, preview = encoded
    assert face.tokens.shape == face.uncond_tokens.shape == (1, 4, 768)
    assert face.identity.norm().item() == pytest.approx(1, abs=1e-5)
    assert preview.shape == (1, 512, 512, 3) and preview.min() >= 0 and preview.max() <= 1
    saving = LOADERS | PEOPLE | {"save": ("DynamicIDSaveFace", {"face": ["face", 0], "filename_prefix": "people/ada"})}
    (saved,) = ready.run_graph(graph(saving)).ui["save"]["files"]
    assert saved == {"filename": "ada_00001_.safetensors", "subfolder": "people", "type": "output"}
    name = "people/ada_00001_.safetensors [output]"
    loaded = ready.run_graph(graph({"load": ("DynamicIDLoadFace", {"face_file": name})}), capture=[("load", 0)])
    again = loaded.values["load", 0]
    for part in ("tokens", "uncond_tokens", "identity", "landmarks", "pose"):
        assert torch.equal(getattr(again, part), getattr(face, part)), part
    assert (again.encoder, again.expression, again.mix) == (face.encoder, face.expression, face.mix)
    assert not any("thumbnail" in key for key in load_file(ready.base / "output/people/ada_00001_.safetensors"))


def test_two_people_from_photo_to_latent(ready: Host, encoded) -> None:
    both = graph(LOADERS | PEOPLE | sampled("applied"))
    wanted = [("sample", 0), ("edited", 0), ("face", 0)]
    first = ready.run_graph(both, capture=wanted).values
    assert torch.isfinite(first["sample", 0]["samples"]).all()
    assert (first["edited", 0].tokens - first["face", 0].tokens).abs().max() > 0.01
    assert torch.equal(first["edited", 0].uncond_tokens, first["face", 0].uncond_tokens)
    plain = ready.run_graph(graph(LOADERS | sampled("checkpoint")), capture=wanted[:1]).values["sample", 0]["samples"]
    assert (first["sample", 0]["samples"] - plain).abs().max() > 0.1
    ready.forget()  # every node runs again; a face file stands for its photo
    again = ready.run_graph(graph(LOADERS | FROM_FILE | sampled("applied")), capture=wanted[:1]).values
    assert torch.equal(again["sample", 0]["samples"], first["sample", 0]["samples"])
    bypassed = ready.run_graph(graph(LOADERS | FROM_FILE | sampled("checkpoint")), capture=wanted[:1])
    assert torch.equal(bypassed.values["sample", 0]["samples"], plain)


def test_the_packs_networks_leave_the_device_after_use_and_nothing_else_does(ready: Host, encoded, monkeypatch) -> None:
    import comfy.model_management as management

    def on_device() -> set[str]:
        return {type(loaded.model.model).__name__ for loaded in management.current_loaded_models}

    load, seen = management.load_models_gpu, set()

    def load_models_gpu(models, *args, **kwargs):
        load(models, *args, **kwargs)
        seen.update(on_device())

    monkeypatch.setattr(management, "load_models_gpu", load_models_gpu)
    ready.forget()
    ready.run_graph(graph(LOADERS | PEOPLE), capture=[("edited", 0)])
    ours = {"FaceEncoder", "KeypointEncoder", "Reconfigurator"}
    assert ours < seen
    assert on_device() == seen - ours  # CLIP and what else the host keeps stays


@pytest.mark.parametrize(("mode", "groups"), [("tokens", 1), ("attention", 2)])
def test_a_blend_is_one_person(ready: Host, encoded, mode: str, groups: int) -> None:
    blend = {"faces.face0": ["face", 0], "faces.face1": ["edited", 0], "weights": "3, 1", "mode": mode}
    place = {"face": ["blend", 0], "weight": 1.0}
    nodes = LOADERS | FROM_FILE | sampled("applied")
    nodes |= {"blend": ("DynamicIDBlendFaces", blend), "cast": ("DynamicIDPlaceFace", place)}
    values = ready.run_graph(graph(nodes), capture=[("blend", 0), ("sample", 0), ("face", 0), ("edited", 0)]).values
    face, (a, b) = values["blend", 0], (values[name, 0].tokens for name in ("face", "edited"))
    assert len(face.mix) == groups
    assert torch.allclose(face.tokens, 0.75 * a + 0.25 * b if groups == 1 else torch.cat((a, b), 1), atol=1e-6)
    assert torch.isfinite(values["sample", 0]["samples"]).all()


def test_a_film_from_keyframes_and_from_a_video(ready: Host, encoded) -> None:
    """From the photo's face to latents that differ by their faces alone, and a face file that keeps its frames."""
    moved = {
        "dynamicid": ["weights", 0], "face": ["face", 0], "clip": ["checkpoint", 1], "frames": 0, "easing": "linear",
        "strength": 1.0, "smoothing": 1.5, "source": "",
    }  # fmt: skip
    nodes = LOADERS | FROM_FILE | sampled("applied")
    nodes["edited"] = ("DynamicIDAnimateMotion", moved | {"keyframes": "0: as in the photo; 2: very happy"})
    driving = {"keyframes": "", "driving": ["photo", 0], "face_analysis": ["analysis", 0]}
    nodes["driven"] = ("DynamicIDAnimateMotion", moved | driving)
    nodes["kept"] = (
        "DynamicIDSaveFace",
        {"face": ["edited", 0], "filename_prefix": "film", "name": "", "portrait": False},
    )
    nodes["latent"] = ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 3})
    nodes["alike"] = ("LatentBatchSeedBehavior", {"samples": ["latent", 0], "seed_behavior": "fixed"})
    kind, inputs = nodes["sample"]
    nodes["sample"] = (kind, inputs | {"latent_image": ["alike", 0]})
    wanted = [("sample", 0), ("edited", 0), ("face", 0), ("driven", 0)]
    result = ready.run_graph(graph(nodes), capture=wanted)
    latent, film, face, driven = (result.values[key] for key in wanted)
    assert film.frames == 3 and driven.frames == 1 and torch.equal(film.tokens[0], face.tokens[0])
    assert (driven.tokens - face.tokens).abs().max() > 1e-4
    pictures = latent["samples"]
    assert (pictures[0] - pictures[2]).abs().max() > 1e-3
    (saved,) = result.ui["kept"]["files"]
    again = ready.module("dynamicid_core.face_files").load_face(ready.base / "output" / saved["filename"])
    assert torch.equal(again.tokens, film.tokens)


def test_a_batch_of_photos_is_one_person(ready: Host, encoded) -> None:
    batch = LOADERS | PEOPLE | {
        "two": ("ImageBatch", {"image1": ["photo", 0], "image2": ["grey", 0]}),
        "face": ("DynamicIDEncodeFace", {**ENCODE, "image": ["two", 0], "on_no_face": "skip photo"}),
    }  # fmt: skip
    with captured_log() as log:
        face = ready.run_graph(graph(batch), capture=[("face", 0)]).values["face", 0]
    assert torch.allclose(face.tokens, encoded[0].tokens, atol=1e-4)  # the only photo left
    assert any("No face was found in photo 2 of 2: left out." in line for line in log)


# What bad input gets


class FakeText:
    """A text encoder without a pooled feature, as T5 is."""

    cond_stage_model = torch.nn.Identity()


def face_of(host: Host, encoder: str = "x", width: int = 768, **more):
    types = host.module("dynamicid_core.types")
    return types.Face(torch.ones(1, 4, width), torch.full((1, 4, width), 0.5), encoder, **more)


# What is changed in the graph (node, inputs or another node), the node that is asked for, and what the message must say.
BAD = {
    "no face in the photo": ({"face": {"image": ["grey", 0]}}, "face", r"No face was found in the photo\. .*'clip only'"),
    "not so many faces": (
        {"face": {"face_index": 5}},
        "face",
        " found, numbered from 0 to .* but face 5 was asked for",
    ),
    "no detector": ({"face": {"face_analysis": None}}, "face", "Connect Load Face Analysis"),
    "IMR in the place of SAA": (
        {"weights": {"saa_file": "imr.safetensors"}},
        "weights",
        r"imr\.safetensors .*DynamicID IMR file.*SAA\.bin or saa\.safetensors",
    ),
    "SAA in the place of IMR": (
        {"weights": {"imr_file": "saa.safetensors"}},
        "weights",
        r"saa\.safetensors .*DynamicID SAA file.*IMR\.bin or imr\.safetensors",
    ),
    "a LoRA": ({"weights": {"saa_file": "lora.safetensors"}}, "weights", r"lora\.safetensors .*a LoRA"),
    "a truncated file": ({"weights": {"saa_file": "cut.safetensors"}}, "weights", "truncated download"),
    "more boxes than faces": (
        {"cast": {"faces.face1": None}},
        "cast",
        "2 boxes .*1 face|1 face.* 2 boxes",
    ),
    "fewer boxes than faces": (
        {"bboxes": {"boxes": json.dumps(BOXES[0][0])}},
        "cast",
        "1 box .*2 faces|2 faces.* 1 box",
    ),
    "no boxes": ({"bboxes": {"boxes": "[]"}}, "cast", "0 boxes|no box"),
    "a box outside": (
        {"cast": {"width": 100, "height": 100}},
        "cast",
        "Box 2 .* has no area on a canvas of 100 x 100",
    ),
    "boxes as text": ({"cast": {"bboxes": "0,0,10,10"}}, "cast", "bboxes holds '0,0,10,10' where a box belongs"),
    "boxes as lists": (
        {"cast": {"bboxes": {"__value__": [[0, 0, 10, 10], None]}}},
        "cast",
        "bboxes holds 0 where a box belongs",
    ),
    "a box of words": (
        {"cast": {"bboxes": {"x": "left", "y": 0, "width": 9, "height": 9}}},
        "cast",
        "Box 1 has 'left' as its x; give a number of pixels",
    ),
    "an empty mask": (
        {"cast": ("DynamicIDPlaceFace", {"face": ["face", 0], "mask": ["mask", 0], "weight": 1.0})},
        "cast",
        r"The mask is empty \(all zero\).* Paint a region",
    ),
    "no such pack": (
        {"analysis": {"model_pack": "antelopev2"}},
        "analysis",
        r"'antelopev2' was not found\. Searched:[\s\S]*insightface[\s\S]*github\.com/deepinsight.*antelopev2\.zip"
        r"[\s\S]*non-commercial research only",
    ),
    "a pack without a name": ({"analysis": {"model_pack": "  "}}, "analysis", "Name a face model pack, e.g. buffalo_l"),
    "no IMR": ({"weights": {"imr_file": "none"}}, "weights", "Expressions are edited in this graph, but imr_file is 'none'"),
    "a pose photo without a detector": ({"edited": {"pose_image": ["photo", 0]}}, "edited", "face_analysis|Face Analysis"),
    "a pose photo without a face": (
        {"edited": {"pose_image": ["grey", 0], "face_analysis": ["analysis", 0]}},
        "edited",
        "[Nn]o face was found",
    ),
    "a face without landmarks": (
        {"face": ("DynamicIDLoadFace", {"face_file": "blank.safetensors"})},
        "edited",
        "landmarks|face was found",
    ),
    "another number of weights": (
        {"edited": ("DynamicIDBlendFaces", {"faces.face0": ["face", 0], "weights": "1, 1", "mode": "tokens"})},
        "edited",
        "There are 1 faces but 2 weights",
    ),
    "weights in words": (
        {"edited": ("DynamicIDBlendFaces", {"faces.face0": ["face", 0], "weights": "half", "mode": "tokens"})},
        "edited",
        "Weights 'half' are no numbers",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def bad_files(ready: Host):
    folder = ready.base / "models" / "dynamicid"
    save_file({"lora_unet_a.lora_down.weight": torch.ones(1, 1)}, folder / "lora.safetensors")
    ready.module("dynamicid_core.face_files").save_face(ready.base / "input" / "blank.safetensors", face_of(ready))
    (folder / "cut.safetensors").write_bytes((folder / "saa.safetensors").read_bytes()[:100_000])


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_gets_a_sentence_at_its_node(ready: Host, bad_files, encoded, case: str) -> None:
    change, node, message = BAD[case]
    nodes = dict(LOADERS | PEOPLE | {"mask": ("SolidMask", {"value": 0.0, "width": 64, "height": 64})})
    if "face" not in change:
        nodes |= FROM_FILE
    for name, changed in change.items():
        cls, inputs = changed if isinstance(changed, tuple) else (nodes[name][0], {**nodes[name][1], **changed})
        nodes[name] = cls, {key: value for key, value in inputs.items() if value is not None}
    with pytest.raises(HostError, match=message) as caught:
        ready.run_graph(graph(nodes), capture=[(node, 0)])
    assert list(caught.value.node_errors) == [node]
    assert "Traceback" not in str(caught.value)


def test_no_message_names_the_folders_of_the_installation(ready: Host) -> None:
    for nodes, said in (
        (
            {"node": ("DynamicIDFaceAnalysis", {"model_pack": "nowhere", "provider": "CPU"})},
            "models/insightface/models",
        ),
        ({"node": ("DynamicIDLoader", {"saa_file": "lora.safetensors", "imr_file": "none"})}, "models/dynamicid/lora"),
    ):
        save_file({"lora_unet_a.lora_down.weight": torch.ones(1, 1)}, ready.base / "models/dynamicid/lora.safetensors")
        with pytest.raises(HostError) as caught:
            ready.run_graph(graph(nodes), capture=[("node", 0)])
        assert said in str(caught.value) and str(ready.base) not in str(caught.value)


@pytest.mark.parametrize("node", ["DynamicIDApply", "DynamicIDGateMaps"])
def test_a_schedule_that_runs_backwards_is_refused_before_anything_runs(ready: Host, node: str) -> None:
    nodes = dict(LOADERS | {"cast": ("DynamicIDPlaceFace", {"face": ["blank", 0], "weight": 1.0})})
    nodes |= {"blank": ("DynamicIDLoadFace", {"face_file": "blank.safetensors"})}
    ready.module("dynamicid_core.face_files").save_face(ready.base / "input" / "blank.safetensors", face_of(ready))
    latent = ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1})
    backwards = {"start_at": 0.9, "end_at": 0.1}
    given = {
        "DynamicIDApply": {**APPLY, **backwards},
        "DynamicIDGateMaps": {"model": ["checkpoint", 0], "samples": ["latent", 0], "layers": "all", **backwards},
    }[node]
    nodes |= {"latent": latent, "node": (node, given)}
    with pytest.raises(HostError, match="start_at is 0.9 and end_at 0.1, so faces would never act") as caught:
        ready.run_graph(graph(nodes), capture=[("node", 0)])
    assert list(caught.value.node_errors) == ["node"]


def test_an_empty_cast(ready: Host, encoded) -> None:
    cast = ready.module("dynamicid_core.types").Cast()
    (weights,) = ready.node("DynamicIDLoader")(saa_file="saa.safetensors", imr_file="none")
    with pytest.raises(ValueError, match="The cast is empty. Place at least one face."):
        ready.node("DynamicIDApply")(model=ready.load_model()[0], dynamicid=weights, cast=cast)


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        (
            {"hidden_size": 1024, "num_attention_heads": 16},
            "gives tokens of width 1024, but the face encoder needs 1280",
        ),
        (
            {"image_size": 336},
            r"\(clip_vision_model, 336 px\) is not the one that the DynamicID weights were made with",
        ),
        ({"model_type": "siglip_vision_model"}, r"\(siglip_vision_model, 224 px\) is not the one"),
    ],
)
def test_another_clip_vision_model(ready: Host, tmp_path: Path, vision: dict, message: str) -> None:
    import comfy.clip_vision

    config = json.loads((ready.comfyui / "comfy/clip_vision_config_h.json").read_text())
    config |= {"num_hidden_layers": 2, "intermediate_size": 64, **vision}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    model = comfy.clip_vision.ClipVisionModel(str(file))
    for parameter in model.model.parameters():
        torch.nn.init.zeros_(parameter)
    types = {"dynamicid": "DynamicIDLoader", "face_analysis": "DynamicIDFaceAnalysis"}
    loaded = {
        key: ready.node(cls)(**LOADERS["weights" if key == "dynamicid" else "analysis"][1])[0]
        for key, cls in types.items()
    }
    photo = torch.from_numpy(np.asarray(Image.open(ready.base / "input/astronaut.png"))).float()[None] / 255
    options = {key: value for key, value in ENCODE.items() if not isinstance(value, list)}
    with pytest.raises(ValueError, match=f"{message}.*CLIP-ViT-H-14-laion2B-s32B-b79K"):
        ready.node("DynamicIDEncodeFace")(clip_vision=model, image=photo, **loaded, **options)


def test_a_face_of_another_encoder_acts_with_a_warning(ready: Host, monkeypatch) -> None:
    files, encoder = ready.module("dynamicid_core.face_files"), "0123456789abcdef"
    files.save_face(ready.base / "input" / "stranger.safetensors", face_of(ready, encoder))
    import server

    (face,) = ready.node("DynamicIDLoadFace")(face_file="stranger.safetensors")
    (cast,) = ready.node("DynamicIDPlaceFace")(face=face)
    (weights,) = ready.node("DynamicIDLoader")(saa_file="saa.safetensors", imr_file="none")
    shown, instance = [], server.PromptServer.instance
    for name, value in (("client_id", "browser"), ("last_node_id", "7")):  # a browser that watches node 7 run
        monkeypatch.setattr(instance, name, value)
    monkeypatch.setattr(instance, "send_progress_text", lambda *message: shown.append(message))
    with captured_log() as log:
        (model,) = ready.node("DynamicIDApply")(model=ready.load_model()[0], dynamicid=weights, cast=cast)
    ((text, node, client),) = shown
    assert (node, client) == ("7", "browser")
    made_by = (
        f"'stranger' was made by the face encoder {encoder[:12]}, but the loaded one is {weights.saa.encoder_hash[:12]}"
    )
    assert made_by in text
    assert any(text in line for line in log)
    assert model is not ready.load_model()[0]


def test_faces_of_another_width(ready: Host) -> None:
    types = ready.module("dynamicid_core.types")
    cast = types.Cast((types.Person(face_of(ready, width=1024)),))
    (weights,) = ready.node("DynamicIDLoader")(saa_file="saa.safetensors", imr_file="none")
    with pytest.raises(ValueError, match="tokens of width 1024, but this DynamicID file needs 768"):
        ready.node("DynamicIDApply")(model=ready.load_model()[0], dynamicid=weights, cast=cast)


@pytest.mark.parametrize("missing", ["insightface", "onnxruntime"])
def test_a_missing_package_is_named_when_it_is_needed(ready: Host, monkeypatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    ready.forget()
    with pytest.raises(
        HostError, match=f"Finding faces needs the Python package {missing} .*pip install insightface onnxruntime"
    ):
        ready.run_graph(graph({"analysis": LOADERS["analysis"]}), capture=[("analysis", 0)])


def test_a_text_encoder_without_a_pooled_feature(ready: Host, encoded) -> None:
    (weights,) = ready.node("DynamicIDLoader")(saa_file="saa.safetensors", imr_file="imr.safetensors")
    with pytest.raises(ValueError, match="read the text feature clip_l .* but this text encoder gives none"):
        ready.node("DynamicIDEditMotion")(dynamicid=weights, face=encoded[0], clip=FakeText(), expression="happy")


# Choosing files


@pytest.mark.parametrize(
    ("node", "inputs", "message"),
    [
        (
            "DynamicIDLoader",
            {"saa_file": "absent.bin", "imr_file": "none"},
            "There is no file 'absent.bin' in models/dynamicid",
        ),
        ("DynamicIDLoader", {"saa_file": "none", "imr_file": "none"}, "needs a file for saa_file"),
        ("DynamicIDLoadFace", {"face_file": "absent.safetensors"}, "There is no face file 'absent.safetensors'"),
        (
            "DynamicIDLoadFace",
            {"face_file": "../models/dynamicid/saa.safetensors"},
            "Invalid file path|does not lie in",
        ),
        ("DynamicIDLoadFace", {"face_file": "../../secret.safetensors [output]"}, "Invalid file path|does not lie in"),
        ("DynamicIDLoadFace", {"face_file": "/etc/passwd"}, "Invalid file path|does not lie in"),
        ("DynamicIDFaceAnalysis", {"model_pack": "buffalo_l", "provider": "abacus"}, "provider"),
        ("DynamicIDFaceAnalysis", {"model_pack": "../packs", "provider": "CPU"}, "give the name of a folder in models"),
    ],
)
def test_choices_are_checked_before_anything_runs(ready: Host, node: str, inputs: dict, message: str) -> None:
    with pytest.raises(HostError, match=message) as caught:
        ready.run_graph(graph({"node": (node, inputs)}), capture=[("node", 0)])
    assert "node" in caught.value.node_errors
    assert "exception" not in str(caught.value).lower()


def test_older_hosts_do_not_check_paths_so_the_pack_does(ready: Host, monkeypatch) -> None:
    folders = ready.module("nodes.folders")
    join = lambda name: str(ready.base / "input" / name)  # noqa: E731
    monkeypatch.setattr(folders.folder_paths, "get_annotated_filepath", join)
    assert folders.face_path("a.safetensors") == join("a.safetensors")
    with pytest.raises(ValueError, match="does not lie in"):
        folders.face_path("../models/dynamicid/saa.safetensors")


def choices(host: Host, node: str, name: str) -> list[str]:
    entry = host.object_info()[node]["input"]["required"][name]
    return entry[1]["options"] if entry[0] == "COMBO" else entry[0]


def test_new_files_are_listed_without_a_restart(ready: Host) -> None:
    weights, faces = ready.base / "models" / "dynamicid", ready.base / "output"
    shutil.copyfile(weights / "saa.safetensors", weights / "another_saa.safetensors")
    face = face_of(ready)
    ready.module("dynamicid_core.face_files").save_face(faces / "made" / "later.safetensors", face)
    save_file({"weight": torch.ones(1)}, faces / "no_face.safetensors")
    assert "another_saa.safetensors" in choices(ready, "DynamicIDLoader", "saa_file")
    listed = choices(ready, "DynamicIDLoadFace", "face_file")
    assert "made/later.safetensors [output]" in listed
    assert not any("no_face" in name for name in listed)
    nodes = {"load": ("DynamicIDLoadFace", {"face_file": "made/later.safetensors [output]"})}
    assert torch.equal(ready.run_graph(graph(nodes), capture=[("load", 0)]).values["load", 0].tokens, face.tokens)
    nodes = {"weights": ("DynamicIDLoader", {"saa_file": "another_saa.safetensors", "imr_file": "none"})}
    ready.run_graph(graph(nodes), capture=[("weights", 0)])
    (weights / "another_saa.safetensors").unlink()


def test_a_face_file_that_changes_is_read_again(ready: Host) -> None:
    files, path = ready.module("dynamicid_core.face_files"), ready.base / "input" / "changing.safetensors"

    def load():  # a new prompt each time: the host notes in it what it found
        nodes = graph({"load": ("DynamicIDLoadFace", {"face_file": path.name})})
        return ready.run_graph(nodes, capture=[("load", 0)]).values["load", 0]

    seen = []
    for mix in ((1.0,), (0.5, 0.5)):
        files.save_face(path, face_of(ready, mix=mix))
        seen.append(load())
    assert [face.mix for face in seen] == [(1.0,), (0.5, 0.5)]
    assert load() is seen[1]  # unchanged: from the cache


# How the pack loads

OPTIONAL = (
    "insightface",
    "onnxruntime",
    "onnx",
    "cv2",
    "huggingface_hub",
    "diffusers",
    "transformers",
    "skimage",
    "tqdm",
)


@pytest.fixture
def load_again(host: Host, monkeypatch):
    """Load the pack once more, as another folder, and undo what that leaves in the host."""
    link = host.base / "custom_nodes" / f"{PACK}-again"
    link.symlink_to(REPOSITORY, target_is_directory=True)
    for table in (host.nodes.NODE_CLASS_MAPPINGS, host.nodes.NODE_DISPLAY_NAME_MAPPINGS, host.nodes.EXTENSION_WEB_DIRS):
        monkeypatch.setattr(host.nodes, _name_of(host.nodes, table), dict(table))

    def load():
        before = set(host.nodes.NODE_CLASS_MAPPINGS.values())
        with captured_log() as log:
            loaded = host.loop.run_until_complete(host.nodes.load_custom_node(str(link)))
        new = [name for name, cls in host.nodes.NODE_CLASS_MAPPINGS.items() if cls not in before]
        return loaded, new, log

    yield load
    name = str(link).replace(".", "_x_")
    for module in [key for key in sys.modules if key == name or key.startswith(name + ".")]:
        del sys.modules[module]
    link.unlink()


def _name_of(module, value) -> str:
    return next(name for name, held in vars(module).items() if held is value)


def test_the_pack_loads_with_no_optional_package(host: Host, load_again, monkeypatch) -> None:
    for package in OPTIONAL:
        for name in [key for key in sys.modules if key == package or key.startswith(f"{package}.")]:
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, package, None)
    loaded, new, log = load_again()
    assert loaded and not log
    assert {"DynamicIDLoader", "DynamicIDEncodeFace", "DynamicIDEditMotion", "DynamicIDApply"} <= set(new)


@pytest.mark.parametrize("version", ["0.3.64", "0.15.9"])
def test_an_old_host_gets_one_sentence(host: Host, load_again, monkeypatch, version: str) -> None:
    monkeypatch.setattr(importlib.import_module("comfyui_version"), "__version__", version)
    loaded, new, log = load_again()
    assert loaded and not new  # the host goes on without a traceback
    assert log == [
        f"DynamicID needs ComfyUI 0.16.0 or newer, but this is {version}. Update ComfyUI; its nodes are left out now."
    ]


@pytest.mark.parametrize("version", ["0.16.0", "0.16.0rc1", "1.0.0", "0.33"])
def test_a_host_that_is_new_enough(host: Host, monkeypatch, version: str) -> None:
    monkeypatch.setattr(importlib.import_module("comfyui_version"), "__version__", version)
    assert host.module("nodes").too_old() is None


def test_a_drawn_person_stands_in_for_a_photo(host: Host) -> None:
    asked = {"seed": 10007, "pose": "front view", "size": 96}
    people: Nodes = {
        "sad": ("DynamicIDDrawnPerson", asked | {"expression": "sad"}),
        "happy": ("DynamicIDDrawnPerson", asked | {"expression": "happy"}),
        "seen": ("PreviewImage", {"images": ["sad", 0]}),
        "also": ("PreviewImage", {"images": ["happy", 0]}),
    }
    values = host.run_graph(graph(people), capture=[("sad", 0), ("happy", 0)]).values
    sad, happy = values["sad", 0], values["happy", 0]
    assert sad.shape == happy.shape == (1, 96, 96, 3) and 0 <= sad.min() < sad.max() <= 1
    changed = (sad != happy).any(-1).float().mean()
    assert 0.02 < changed < 0.4  # the face, not the person, the clothes or the wall
