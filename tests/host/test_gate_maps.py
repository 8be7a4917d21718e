"""Preview Activation over HTTP, where the host's queue tells Apply whether to record."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from comfy_host import CHECKPOINT, HostError
from PIL import Image

from dynamicid_core.face_files import save_face
from dynamicid_core.types import Face


@pytest.fixture(scope="module")
def graph(server):
    """Two people side by side, sampled in two steps; face files with tokens of unit scale."""
    generator = torch.Generator().manual_seed(3)
    for name in ("left", "right"):
        tokens = torch.randn(2, 1, 4, 768, generator=generator)
        save_face(server.base / "input" / f"{name}.safetensors", Face(tokens[0], tokens[1], "test", name=name))
    nodes = {
        "model": ("CheckpointLoaderSimple", {"ckpt_name": CHECKPOINT}),
        "loader": ("DynamicIDLoader", {"saa_file": "saa.safetensors", "imr_file": "none"}),
        "left": ("DynamicIDLoadFace", {"face_file": "left.safetensors"}),
        "right": ("DynamicIDLoadFace", {"face_file": "right.safetensors"}),
        "first": ("DynamicIDPlaceFace", {"face": ["left", 0], "weight": 1.0}),
        "cast": ("DynamicIDPlaceFace", {"face": ["right", 0], "cast": ["first", 0], "weight": 1.0}),
        "apply": (
            "DynamicIDApply",
            {
                "model": ["model", 0], "dynamicid": ["loader", 0], "cast": ["cast", 0], "weight": 1.0, "start_at": 0.0,
                "end_at": 1.0, "layout_strength": 2.0, "layout_end": 0.24, "gate_threshold": 0.3, "outside": "everyone",
                "lora_strength": 1.0,
            },
        ),
        "text": ("CLIPTextEncode", {"clip": ["model", 1], "text": "two people"}),
        "latent": ("EmptyLatentImage", {"width": 128, "height": 64, "batch_size": 1}),
        "sampler": (
            "KSampler",
            {
                "model": ["apply", 0], "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["latent", 0],
                "seed": 1, "steps": 2, "cfg": 5.0, "sampler_name": "ddim", "scheduler": "normal", "denoise": 1.0,
            },
        ),
        "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["model", 2]}),
        "preview": ("PreviewImage", {"images": ["decode", 0]}),
    }  # fmt: skip
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def with_maps(graph, model="apply", **chosen):
    inputs = {"model": [model, 0], "samples": ["sampler", 0], "layers": "all", "start_at": 0.0, "end_at": 1.0, **chosen}
    return {**graph, "maps": {"class_type": "DynamicIDGateMaps", "inputs": inputs}}


def pictures(server, result):
    return [np.asarray(Image.open(io.BytesIO(server.view(item)))) for item in result.ui["maps"]["images"]]


def test_maps_appear_also_when_the_picture_was_made_before(server, graph):
    server.run_graph(graph)
    drawn = pictures(server, server.run_graph(with_maps(graph)))
    assert [picture.shape for picture in drawn] == [(256, 512, 3)] * 3  # two people and the gate, large enough to read
    left, right = drawn[0][80:].astype(float), drawn[1][80:].astype(float)  # below the captions
    assert left[:, :256].mean() > 3 * left[:, 256:].mean()
    assert right[:, 256:].mean() > 3 * right[:, :256].mean()


def test_other_layers_and_steps_need_no_sampling(server, graph):
    server.run_graph(with_maps(graph))
    result = server.run_graph(with_maps(graph, layers="fine", end_at=0.5))
    ran = {event["data"]["node"] for event in result.events if event["type"] == "executing"}
    assert "maps" in ran
    assert "sampler" not in ran
    assert len(pictures(server, result)) == 3


def test_a_model_without_faces_is_explained(server, graph):
    with pytest.raises(HostError, match="No face is applied to this model"):
        server.run_graph(with_maps(graph, model="model"))
