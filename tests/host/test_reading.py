"""What somebody else's files and pictures may do in ComfyUI: nothing but a sentence; and what is said of crops."""

from __future__ import annotations

import os

import pytest
import torch
from comfy_host import CHECKPOINT, Host, HostError, captured_log
from safetensors.torch import load_file, save_file
from studio import Studio

Nodes = dict[str, tuple[str, dict]]
DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_files_of_any_dtype_encode_and_edit(host: Host, studio: Studio, dtype) -> None:
    """The networks compute in float32 what the file's own rounding leaves, as library and command line do."""
    folder = host.base / "models" / "dynamicid"
    rounded = {}
    for part in ("saa", "imr"):
        state = load_file(folder / f"{part}.safetensors")
        rounded[part] = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}
        save_file(rounded[part], folder / f"{part}_odd.safetensors")
        save_file(
            {n: t.float() if t.is_floating_point() else t for n, t in rounded[part].items()},
            folder / f"{part}_f.safetensors",
        )
    load = host.module("dynamicid_core.hosts.comfy").load
    odd, full = (load(folder / f"saa_{kind}.safetensors", folder / f"imr_{kind}.safetensors") for kind in ("odd", "f"))
    identity, seen = torch.nn.functional.normalize(torch.randn(2, 512), dim=-1), torch.randn(2, 257, 1280)
    tokens = odd.token_encoder.run(identity, seen)
    assert tokens.dtype == torch.float32 and torch.isfinite(tokens).all()
    torch.testing.assert_close(tokens, full.token_encoder.run(identity, seen), rtol=1e-4, atol=1e-4)
    edited = []
    for loaded in (odd, full):
        networks = loaded.motion_networks(studio.clip)
        features = networks.keypoint_encoder(torch.rand(2, 1, 96, 96, generator=torch.Generator().manual_seed(0)))
        text = networks.text_features(["a happy expression"])
        edited.append(networks.reconfigurator(tokens[:1], features[:1], features[1:], text, text))
    torch.testing.assert_close(*edited, rtol=1e-3, atol=1e-3)
    for name in ("saa_odd", "saa_f", "imr_odd", "imr_f"):
        (folder / f"{name}.safetensors").unlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_called_like_a_face_file_is_left_alone(host: Host) -> None:
    """Opening it would wait for a writer that never comes: the list is made when the page loads."""
    path = host.base / "input" / "pipe.safetensors"
    os.mkfifo(path)
    try:
        assert "pipe.safetensors" not in host.module("nodes.folders").face_files()
        with pytest.raises(HostError, match="There is no face file 'pipe.safetensors'"):
            host.run_graph(graph({"face": ("DynamicIDLoadFace", {"face_file": path.name})}), capture=[("face", 0)])
    finally:
        path.unlink()


def test_the_largest_preview_is_drawn_as_large_as_anybody_looks(host: Host, studio: Studio) -> None:
    (drawn,) = host.node("DynamicIDPreviewCast")(cast=studio.cast(), width=16384, height=16384)
    assert drawn.shape == (1, 2048, 2048, 3)


def test_broken_weights_and_faces_are_a_sentence(host: Host, studio: Studio) -> None:
    saa = host.base / "models" / "dynamicid" / "saa_broken.safetensors"
    state = load_file(saa.with_name("saa.safetensors"))
    save_file(state | {"proj_module.proj.2.weight": torch.zeros_like(state["proj_module.proj.2.weight"])}, saa)
    face = host.base / "input" / "large.safetensors"
    host.module("dynamicid_core.face_files").save_face(face, studio.face(1))
    with pytest.raises(ValueError, match="zeros at the end of proj.2.weight"):
        host.node("DynamicIDLoader")(saa_file=saa.name, imr_file="none")
    tokens = load_file(face)
    meta = {"format": "dynamicid-face", "version": "1", "encoder": "a"}
    save_file(tokens | {"tokens": tokens["tokens"] * 1e30}, face, meta)
    with pytest.raises(ValueError, match="is a damaged face file. A face's tokens holds values as large as"):
        host.node("DynamicIDLoadFace")(face_file=face.name)
    saa.unlink(), face.unlink()


# Crops


def graph(nodes: Nodes) -> dict[str, dict]:
    return {
        name: {"class_type": cls, "inputs": inputs, "_meta": {"title": name}} for name, (cls, inputs) in nodes.items()
    }


def people(host: Host, studio: Studio) -> Nodes:
    """Nodes of two people side by side, the model that has them, and a picture of 64 x 64 px."""
    host.module("dynamicid_core.face_files").save_face(host.base / "input" / "one.safetensors", studio.face(1))
    place = {"faces.face0": ["face", 0], "faces.face1": ["face", 0], "width": 64, "height": 64, "weight": 1.0}
    acts = {
        "weight": 1.0,
        "start_at": 0.0,
        "end_at": 1.0,
        "layout_strength": 2.0,
        "layout_end": 0.24,
        "gate_threshold": 0.3,
    }
    apply = {
        "model": ["checkpoint", 0],
        "dynamicid": ["weights", 0],
        "cast": ["cast", 0],
        **acts,
        "outside": "everyone",
    }
    return {
        "weights": ("DynamicIDLoader", {"saa_file": "saa.safetensors", "imr_file": "imr.safetensors"}),
        "checkpoint": ("CheckpointLoaderSimple", {"ckpt_name": CHECKPOINT}),
        "face": ("DynamicIDLoadFace", {"face_file": "one.safetensors"}),
        "cast": ("DynamicIDPlaceFaces", {**place, "layout": "side by side", "drawn_boxes": ""}),
        "applied": ("DynamicIDApply", {**apply, "lora_strength": 1.0}),
        "text": ("CLIPTextEncode", {"clip": ["checkpoint", 1], "text": "two people"}),
        "latent": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "sample": ("KSampler", sampler("latent")),
    }


def sampler(latent: str) -> dict:
    """Inputs of a KSampler that makes two steps."""
    settings = {"seed": 1, "steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    inputs = {"model": ["applied", 0], "positive": ["text", 0], "negative": ["text", 0], "latent_image": [latent, 0]}
    return inputs | settings


def again(width: int, height: int, masked: bool = False) -> Nodes:
    """Nodes that sample a second time, after the first, as a detailer does."""
    resize = {"upscale_method": "nearest-exact", "crop": "disabled"}
    return {
        "second": ("LatentUpscale", {"samples": ["sample", 0], "width": width, "height": height, **resize}),
        "mask": ("SolidMask", {"value": 1.0, "width": width, "height": height}),
        "masked": ("SetLatentNoiseMask", {"samples": ["second", 0], "mask": ["mask", 0]}),
        "sample2": ("KSampler", sampler("masked" if masked else "second")),
    }


UPSIDE_DOWN: Nodes = {
    "second": ("LatentFlip", {"samples": ["sample", 0], "flip_method": "x-axis: vertically"}),
    "sample2": ("KSampler", sampler("second")),
}


@pytest.mark.parametrize(
    "second, kept, said",
    [
        (again(96, 96), False, None),
        (UPSIDE_DOWN, False, "and now another picture of 64 x 64 px is sampled again"),
        (again(96, 64), False, "2 people were put into 64 x 64 px before, and now 96 x 64 px are sampled"),
        (again(64, 64, masked=True), False, "and now a part of 64 x 64 px is sampled again"),
        (again(64, 64, masked=True), True, "and now a part of 64 x 64 px is sampled again"),
    ],
    ids=["larger", "another picture", "another shape", "a part", "a part of a picture that is kept"],
)
def test_a_second_run_on_a_crop_is_said_once(
    host: Host, studio: Studio, second: Nodes, kept: bool, said: str | None
) -> None:
    """``kept``: the first run was in an earlier graph, and the host has its result."""
    nodes = people(host, studio) | second
    with captured_log() as log:
        host.forget()
        if kept:
            host.run_graph(graph(nodes), capture=[("sample", 0)])
        for _ in range(2):
            host.run_graph(graph(nodes), capture=[("sample2", 0)])
    found = [line for line in log if "DynamicID" in line]
    assert found == [] if said is None else [said in line for line in found] == [True]


def test_tiles_whose_place_nobody_tells_are_said(studio: Studio) -> None:
    """What tilers do: the model is called with parts of the latent, and our labels say nothing of them."""

    def tiled(apply_model, arguments: dict) -> torch.Tensor:
        halves = arguments["input"].chunk(2, dim=-1)
        return torch.cat([apply_model(half, arguments["timestep"], **arguments["c"]) for half in halves], dim=-1)

    model = studio.apply()
    model.set_model_unet_function_wrapper(tiled)
    with captured_log() as log:
        studio.sample(model)
    assert [line for line in log if "2 people are put into 64 x 64 px, of which a part of 32 x 64 px" in line]


def test_regions_of_another_canvas_are_said(studio: Studio) -> None:
    with captured_log() as log:
        model = studio.apply()
        studio.sample(model)
        assert not log
        studio.sample(model, size=(8, 16))
        studio.sample(model, size=(8, 16))
    assert [line for line in log if "DynamicID" in line] == [log[0]]
    assert "2 people have places in a picture of 64 x 64, and what is sampled has 128 x 64 px" in log[0]
