"""The drawn world's files in a real ComfyUI, through its own loaders: recognised, complete, and the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from comfy_host import Host, captured_log
from standins.drawn import write_drawn_weights

from dynamicid_core.checkpoints import load_saa
from dynamicid_core.drawn import carried, text, vision, world
from dynamicid_core.drawn.make import portrait, posed
from dynamicid_core.drawn.unet import make_unet
from dynamicid_core.pictures import clip_pixels

CAPTION = "a drawing of two people, happy, blue background"
CHECKPOINT, VAE, CLIP_VISION, SAA, IMR = (
    Path(name).name for name in (world.CHECKPOINT, world.VAE, world.CLIP_VISION, world.SAA, world.IMR)
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawn_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def filled(core_host: Host, weights: Path) -> Iterator[Path]:
    models = core_host.base / "models"
    made = world.fill(models, weights)
    yield models
    for path in made.values():
        (path / "det_drawn.onnx" if path.is_dir() else path).unlink()


@pytest.fixture(scope="module")
def loaded(core_host: Host, filled: Path) -> tuple:
    with captured_log(0) as log:
        return (*core_host.node("CheckpointLoaderSimple")(ckpt_name=CHECKPOINT), log)


def pixels() -> torch.Tensor:
    """[1, 128, 128, 3], 0 to 1: a drawn person as ComfyUI has pictures."""
    return torch.from_numpy(portrait(7, posed("happy", "front view"), 128).copy())[None].float() / 255


def test_the_checkpoint_is_taken_for_sd15_and_nothing_is_left_over(loaded: tuple) -> None:
    model, _, vae, log = loaded
    assert type(model.model.model_config).__name__ == "SD15"
    assert type(vae.first_stage_model).__name__ == "TAESD"
    assert not [line for line in log if "unexpected" in line.lower() or "leftover" in line.lower()]
    missing = [line for line in log if "missing" in line.lower()]
    assert all("logit_scale" in line and "text_projection" in line and line.count("'") == 4 for line in missing)


@torch.inference_mode()
def test_the_wide_unet_says_what_the_narrow_one_says(loaded: tuple, weights: Path) -> None:
    narrow = make_unet().eval()
    narrow.load_state_dict(carried.unet(weights))
    draw = torch.Generator().manual_seed(3)
    noisy, said = torch.randn(1, 4, 16, 24, generator=draw), torch.randn(1, 77, 768, generator=draw)
    time = torch.tensor([417])
    import comfy.model_management as management

    management.load_models_gpu([loaded[0]])
    wide = loaded[0].model.diffusion_model(noisy, time.float(), context=said)
    assert torch.allclose(wide, narrow(noisy, time, said).sample, atol=5e-3)


def test_texts_are_those_of_the_table(core_host: Host, loaded: tuple) -> None:
    states = core_host.node("CLIPTextEncode")(clip=loaded[1], text=CAPTION)[0][0][0][0]
    table = torch.from_numpy(text.caption_states(CAPTION))
    assert torch.allclose(states[: len(table)], table, atol=5e-3)


@torch.inference_mode()
def test_both_autoencoders_are_the_carried_one(core_host: Host, loaded: tuple, weights: Path) -> None:
    (from_file,) = core_host.node("VAELoader")(vae_name=VAE)
    own = carried.autoencoder(weights)
    latents = own.encode(pixels().movedim(-1, 1))
    back = own.decode(latents).movedim(1, -1).clamp(0, 1)
    for vae in (from_file, loaded[2]):
        (said,) = core_host.node("VAEEncode")(vae=vae, pixels=pixels())
        seen = loaded[0].model.latent_format.process_in(said["samples"])
        assert torch.allclose(seen, latents, atol=0.02)
        (picture,) = core_host.node("VAEDecode")(vae=vae, samples=said)
        assert torch.allclose(picture, back, atol=0.02)


@torch.inference_mode()
def test_clip_vision_is_vit_l_and_its_layers_change_nothing(core_host: Host, filled: Path, monkeypatch) -> None:
    import comfy.clip_vision

    with monkeypatch.context() as patch, captured_log() as log:
        whole = comfy.clip_vision.ClipVisionModel.__init__
        patch.setattr(comfy.clip_vision.ClipVisionModel, "__init__", whole.whole)
        (clip,) = core_host.node("CLIPVisionLoader")(clip_name=CLIP_VISION)
        assert not log
    assert len(clip.model.vision_model.encoder.layers) == 24
    from dynamicid_core.drawn.pipeline import clip_vision

    given = clip_pixels(portrait(7, posed("happy", "front view"), 128))
    narrow = clip_vision()(pixel_values=given, output_hidden_states=True).hidden_states[-2]
    assert narrow.shape == (1, vision.TOKENS, vision.WIDTH)
    # ComfyUI's node resizes by rules of its own; the core gives it pictures of 224 px, which it leaves alone.
    states = core_host.node("CLIPVisionEncode")(clip_vision=clip, image=clip_image(given), crop="none")[0]
    assert torch.allclose(states.penultimate_hidden_states.float(), narrow, atol=1e-3)


def clip_image(given: torch.Tensor) -> torch.Tensor:
    """What CLIP's normalisation was made of, as a picture."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    return given.movedim(1, -1) * deviation + mean


def test_the_packs_own_loaders_take_the_rest(host: Host, filled: Path, weights: Path) -> None:
    comfy = host.module("dynamicid_core.hosts.comfy")
    made = comfy.load(filled / "dynamicid" / SAA)
    assert made.saa.origin.base == "drawn world" and made.saa.origin.recogniser == "drawn"
    assert made.saa.encoder_hash == load_saa(weights / carried.SAA).encoder_hash
    (analysis,) = host.node("DynamicIDFaceAnalysis")(model_pack="drawn", provider="CPU")
    assert analysis is not None
