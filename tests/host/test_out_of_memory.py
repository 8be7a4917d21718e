"""Memory that runs out in a real ComfyUI: the host handles it as its own, nothing of ours stays, the next run has the same bits."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from comfy_host import CHECKPOINT, VISION, Host
from comfyui.speaking import HostError
from out_of_memory import MESSAGE, alive, out_of_memory
from studio import Studio
from test_refine import INPUTS, Detector, cast, detector, picture  # noqa: F401 - fixtures

PROMPT: dict[str, dict[str, Any]] = {
    "model": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}},
    "weights": {"class_type": "DynamicIDLoader", "inputs": {"saa_file": "saa.safetensors", "imr_file": "imr.safetensors"}},
    "vision": {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": VISION}},
    "photo": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0x808080}},
    "face": {
        "class_type": "DynamicIDEncodeFace",
        "inputs": {
            "dynamicid": ["weights", 0], "clip_vision": ["vision", 0], "image": ["photo", 0], "face_order": "large-small",
            "face_index": 0, "crop_factor": 0.0, "combine": "average", "on_no_face": "clip only",
        },
    },
    "cast": {"class_type": "DynamicIDPlaceFace", "inputs": {"face": ["face", 0], "weight": 1.0}},
    "apply": {
        "class_type": "DynamicIDApply",
        "inputs": {
            "model": ["model", 0], "dynamicid": ["weights", 0], "cast": ["cast", 0], "weight": 1.0, "start_at": 0.0, "end_at": 1.0,
            "layout_strength": 2.0, "layout_end": 0.24, "gate_threshold": 0.3, "outside": "everyone", "lora_strength": 1.0,
        },
    },
    "text": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["model", 1], "text": "two people"}},
    "latent": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "sample": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["apply", 0], "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["latent", 0], "seed": 7,
            "steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
        },
    },
}  # fmt: skip


def places(host: Host) -> dict[str, tuple[Any, str, int]]:
    """Where memory runs out: owner, function, call."""
    module = host.module
    import comfy.model_management
    import comfy.samplers

    return {
        "in CLIP vision": (module("dynamicid_core.hosts.comfy.networks").ClipVision, "tokens", 1),
        "while the face encoder is loaded": (comfy.model_management, "load_models_gpu", 2),
        "in the face encoder": (module("dynamicid_core.networks.face_encoder").FaceEncoder, "forward", 1),
        "while the cast is packed": (module("dynamicid_core.call").AppliedCast, "of", 1),
        "while the LoRA is prepared": (module("dynamicid_core.hosts.comfy.model"), "add_lora", 1),
        "while a call is prepared": (module("dynamicid_core.hosts.comfy.run"), "prepare_call", 2),
        "in a cross attention": (module("dynamicid_core.call"), "add_faces", 20),
        "in the model's own sampling": (comfy.samplers, "calc_cond_batch", 2),
    }


PLACES = (
    "in CLIP vision", "while the face encoder is loaded", "in the face encoder", "while the cast is packed", "while the LoRA is prepared",
    "while a call is prepared", "in a cross attention", "in the model's own sampling",
)  # fmt: skip


def sampled(host: Host, prompt: dict) -> torch.Tensor:
    return host.run_graph(prompt, [("sample", 0)]).values["sample", 0]["samples"]


def graph(*wanted: str) -> dict:
    """What of the prompt these nodes need."""
    kept: dict[str, dict] = {}
    todo = list(wanted)
    while todo:
        if (node := todo.pop()) not in kept:
            kept[node] = copy.deepcopy(PROMPT[node])
            todo += [value[0] for value in kept[node]["inputs"].values() if isinstance(value, list)]
    return kept


@pytest.fixture(scope="module")
def expected(host: Host) -> torch.Tensor:
    host.forget()
    return sampled(host, graph("sample"))


@pytest.mark.parametrize("place", PLACES)
def test_the_host_handles_it_and_the_next_run_is_the_same(host: Host, expected: torch.Tensor, place: str) -> None:
    import comfy.model_management

    host.forget()
    owner, name, call = places(host)[place]
    with out_of_memory(owner, name, call) as calls, pytest.raises(HostError, match=MESSAGE):
        sampled(host, graph("sample"))
    assert calls[0] == call, "it ran out where it should"
    (failed,) = [said for event, said in host._executor.status_messages if event == "execution_error"]
    assert failed["exception_type"] == "torch.OutOfMemoryError" and "ran out of memory" in failed["exception_message"]
    assert not comfy.model_management.current_loaded_models, "the host took all models off the device, ours too"
    running = [host.module(f"dynamicid_core.{at}") for at in ("call", "hosts.comfy.run")]
    assert not alive(running[0].Call, running[0].Memory, running[1].Run), "nothing of the run is left"
    assert torch.equal(
        sampled(host, graph("sample")), expected
    )  # what had been computed before comes from the host's cache
    host.forget()
    assert torch.equal(sampled(host, graph("sample")), expected)


def test_maps_of_half_a_run_are_not_kept(host: Host, studio: Studio) -> None:
    recorder = host.module("dynamicid_core.gate_maps").GateRecorder()
    model = studio.adapter.apply_faces(
        studio.model, studio.weights, studio.cast(), studio.types.SAAOptions(), recorder=recorder
    )
    call = host.module("dynamicid_core.call")
    with out_of_memory(call, "add_faces", 20), pytest.raises(torch.OutOfMemoryError):
        studio.sample(model)
    assert not recorder._calls
    studio.sample(model)
    assert len(recorder._calls) == 2


def test_another_node_s_patch_that_runs_out_is_the_host_s_to_handle(studio: Studio) -> None:
    """Patches are tried on numbered rows first; what fails there for lack of memory is no fault of the patch."""

    def patch(rows, text, value, extra):
        raise torch.OutOfMemoryError(MESSAGE)

    model = studio.apply()
    model.set_model_attn2_patch(patch)
    with pytest.raises(torch.OutOfMemoryError, match=MESSAGE):
        studio.sample(model)


@pytest.mark.parametrize("name, call", [("encode", 1), ("decode", 1), ("decode", 2)])
def test_a_second_pass(host: Host, studio: Studio, detector: Detector, picture, cast, monkeypatch, name, call) -> None:  # noqa: F811
    def refine() -> torch.Tensor:
        inputs = INPUTS | {"tries": 2, "mend": True}
        return host.node("DynamicIDRefineFaces")(
            image=picture, model=studio.model, dynamicid=studio.weights, cast=cast, positive=studio.positive,
            negative=studio.negative, vae=studio.vae, face_analysis=detector, **inputs,
        )[0]  # fmt: skip

    expected = refine()
    with out_of_memory(studio.vae, name, call) as calls, pytest.raises(torch.OutOfMemoryError):
        refine()
    assert calls[0] == call
    assert torch.equal(refine(), expected)
