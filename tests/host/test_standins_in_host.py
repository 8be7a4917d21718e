"""The stand-in models in a real ComfyUI, through its own nodes: recognised, complete, and not indifferent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from comfy_host import CHECKPOINT, VAE, VISION, Host, HostError, captured_log
from comfyui.serving import Server

PROMPT = "a photo of two people in a park"


@pytest.fixture(scope="module")
def loaded(core_host: Host) -> tuple:
    """Model, text encoder, VAE, and the lines that the host logged while loading them."""
    with captured_log(0) as log:
        return (*core_host.load_model(), log)


def graph(positive: str = PROMPT, seed: int = 1, size: int = 64, steps: int = 6, sampler: str = "dpmpp_2m") -> dict:
    """Text to picture in API format; node 5 samples, 6 decodes, 7 saves."""
    nodes = {
        "1": ("CheckpointLoaderSimple", {"ckpt_name": CHECKPOINT}),
        "2": ("CLIPTextEncode", {"clip": ["1", 1], "text": positive}),
        "3": ("CLIPTextEncode", {"clip": ["1", 1], "text": "blurry"}),
        "4": ("EmptyLatentImage", {"width": size, "height": size, "batch_size": 1}),
        "5": (
            "KSampler",
            {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0], "seed": seed}
            | {"steps": steps, "cfg": 5.0, "sampler_name": sampler, "scheduler": "normal", "denoise": 1.0},
        ),
        "6": ("VAEDecode", {"samples": ["5", 0], "vae": ["1", 2]}),
        "7": ("SaveImage", {"images": ["6", 0], "filename_prefix": "stand-in"}),
    }
    return {
        name: {"class_type": cls, "inputs": inputs, "_meta": {"title": cls}} for name, (cls, inputs) in nodes.items()
    }


def sample(core_host: Host, **settings) -> torch.Tensor:
    return core_host.run_graph(graph(**settings), capture=[("5", 0)]).values["5", 0]["samples"]


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Root mean square of a - b as a share of that of b's deviation."""
    return ((a - b).square().mean().sqrt() / b.std()).item()


def test_checkpoint_is_recognised_and_complete(loaded: tuple) -> None:
    model, _, _, log = loaded
    assert type(model.model.model_config).__name__ == "SD15"
    assert model.model.model_config.unet_config["channel_mult"] == [1, 1, 1, 1]
    assert not [line for line in log if "unexpected" in line.lower() or "leftover" in line.lower()]
    missing = [line for line in log if "missing" in line.lower()]
    # Real SD1.5 checkpoints lack these two as well; the host says so at debug level only.
    assert all("logit_scale" in line and "text_projection" in line and line.count("'") == 4 for line in missing), (
        missing
    )


def test_sampled_latents_have_a_plausible_size_and_follow_seed_and_prompt(core_host: Host, loaded: tuple) -> None:
    first = sample(core_host)
    assert 2 < first.std() < 15  # nan is not either; the real model's latents, before scaling, deviate by about 5.5
    core_host.forget()  # so that it samples again, instead of taking the latents from its cache
    assert torch.equal(sample(core_host), first)
    assert difference(sample(core_host, seed=2), first) > 0.5
    assert difference(sample(core_host, positive="a red car in the rain"), first) > 0.2


@pytest.mark.parametrize("sampler", ["ddim", "euler_ancestral"])
def test_other_samplers_end_at_latents_of_plausible_size_at_odd_sizes(
    core_host: Host, loaded: tuple, sampler: str
) -> None:
    latents = sample(core_host, size=72, steps=12, sampler=sampler)
    assert latents.shape[-2:] == (9, 9)
    assert 1 < latents.std() < 20


def test_prompts_give_different_pooled_and_token_embeddings(core_host: Host, loaded: tuple) -> None:
    encode = core_host.node("CLIPTextEncode")
    (a, a_extra), (b, b_extra) = (encode(clip=loaded[1], text=text)[0][0] for text in (PROMPT, "a red car"))
    assert difference(a, b) > 0.2
    assert difference(a_extra["pooled_output"], b_extra["pooled_output"]) > 0.2
    last, before = loaded[1].clone(), loaded[1].clone()
    before.clip_layer(-2)
    assert difference(encode(clip=before, text=PROMPT)[0][0][0], encode(clip=last, text=PROMPT)[0][0][0]) > 0.1


def picture(size: int = 256) -> torch.Tensor:
    """[1, size, size, 3]: smooth gradients with a dark square, which no average hides."""
    ramp = torch.linspace(0, 1, size)
    red, green = torch.meshgrid(ramp, ramp, indexing="ij")
    image = torch.stack([red, green, 1 - red], dim=-1)[None].clone()
    image[:, size // 4 : size // 2, size // 4 : size // 2] = 0.1
    return image


def test_vae_file_loads_and_gives_back_what_it_took(core_host: Host, loaded: tuple) -> None:
    with captured_log(0) as log:
        (vae,) = core_host.node("VAELoader")(vae_name=VAE)
    assert not [line for line in log if "missing" in line.lower() or "leftover" in line.lower()]
    pixels = picture()
    (latent,) = core_host.node("VAEEncode")(vae=vae, pixels=pixels)
    (back,) = core_host.node("VAEDecode")(vae=vae, samples=latent)
    assert back.shape == pixels.shape
    likeness = torch.corrcoef(torch.stack([pixels.flatten(), back.flatten()]))[0, 1]
    assert likeness > 0.8
    (from_checkpoint,) = core_host.node("VAEDecode")(vae=loaded[2], samples=latent)
    assert torch.equal(back, from_checkpoint)


def test_clip_vision_is_vit_h_and_sees_the_picture(core_host: Host, monkeypatch) -> None:
    import comfy.clip_vision

    encode = core_host.node("CLIPVisionEncode")

    def load():
        with captured_log() as log:
            (clip,) = core_host.node("CLIPVisionLoader")(clip_name=VISION)
        assert not log
        return clip

    with monkeypatch.context() as patch:
        patch.setattr(comfy.clip_vision.ClipVisionModel, "__init__", comfy.clip_vision.ClipVisionModel.__init__.whole)
        (seen,) = encode(clip_vision=load(), image=picture(), crop="center")
    shallow = load()  # as all other tests have it
    (same,) = encode(clip_vision=shallow, image=picture(), crop="center")
    (other,) = encode(clip_vision=shallow, image=picture().flip(1), crop="center")
    assert seen.penultimate_hidden_states.shape == (1, 257, 1280)
    for name in ("last_hidden_state", "penultimate_hidden_states", "image_embeds"):
        assert torch.equal(getattr(seen, name), getattr(same, name)), name
    assert difference(same.penultimate_hidden_states, other.penultimate_hidden_states) > 0.2
    assert difference(same.image_embeds, other.image_embeds) > 0.01


def test_face_tokens_change_the_picture(core_host: Host, loaded: tuple) -> None:
    from dynamicid_core.hosts import comfy
    from dynamicid_core.types import Cast, Face, Person, SAAOptions

    face_weights = comfy.load(core_host.base / "models/dynamicid/saa.safetensors")
    results = []
    for people in ((), (1,), (2,)):
        faces = [torch.randn(2, 1, 4, 768, generator=torch.Generator().manual_seed(n)) for n in people]
        cast = Cast(tuple(Person(Face(tokens, nulls, encoder="test")) for tokens, nulls in faces))
        model = comfy.apply_faces(loaded[0], face_weights, cast, SAAOptions()) if people else loaded[0]
        results.append(sample_with(core_host, model, loaded[1]))
    plain, one, two = results
    assert difference(one, plain) > 0.1
    assert difference(one, two) > 0.1


def sample_with(core_host: Host, model, clip) -> torch.Tensor:
    encode = core_host.node("CLIPTextEncode")
    (latent,) = core_host.node("EmptyLatentImage")(width=64, height=64, batch_size=1)
    settings = {"seed": 1, "steps": 3, "cfg": 5.0, "sampler_name": "ddim", "scheduler": "normal", "denoise": 1.0}
    positive, negative = encode(clip=clip, text=PROMPT)[0], encode(clip=clip, text="")[0]
    (result,) = core_host.node("KSampler")(
        model=model, positive=positive, negative=negative, latent_image=latent, **settings
    )
    return result["samples"]


def test_refused_and_failing_graphs_name_the_node(core_host: Host, loaded: tuple) -> None:
    bad = graph()
    bad["1"]["inputs"]["ckpt_name"] = "absent.safetensors"
    with pytest.raises(HostError, match="absent.safetensors") as refused:
        core_host.run_graph(bad)
    assert "1" in refused.value.node_errors
    bad = graph(steps=1)
    bad["6"]["inputs"]["vae"] = ["8", 0]
    bad["8"] = {"class_type": "VAELoader", "inputs": {"vae_name": VAE}, "_meta": {"title": "Load VAE"}}
    file = core_host.base / "models/vae" / VAE
    whole = file.read_bytes()
    file.unlink()  # a link into the cache, which must stay as it is
    file.write_bytes(whole[:1000])
    try:
        with pytest.raises(HostError, match="^Load VAE: ") as failed:
            core_host.run_graph(bad)
    finally:
        file.write_bytes(whole)
    assert "8" in failed.value.node_errors


def test_object_info_lists_the_stand_ins(core_host: Host) -> None:
    info = core_host.object_info()
    assert CHECKPOINT in json.dumps(info["CheckpointLoaderSimple"])
    assert VISION in json.dumps(info["CLIPVisionLoader"])


def test_the_same_graph_over_http(server: Server, tmp_path: Path) -> None:
    result = server.run_graph(graph(size=64, steps=2), timeout=300)
    (image,) = result.ui["7"]["images"]
    assert server.view(image).startswith(b"\x89PNG")
    kinds = {event["type"] for event in result.events}
    assert {"execution_start", "progress", "execution_success"} <= kinds
    upload = tmp_path / "photo.png"
    upload.write_bytes(server.view(image))
    assert server.upload(upload) in json.dumps(server.object_info()["LoadImage"])
    with pytest.raises(HostError, match="absent"):
        server.run_graph(graph() | {"4": {"class_type": "absent", "inputs": {}, "_meta": {"title": "absent"}}})
