"""The drawn world's files: made once from the carried weights, never over others' files, the same narrow and wide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from standins.drawn import write_drawn_weights

from dynamicid_core.checkpoints import load_motion, load_saa
from dynamicid_core.drawn import carried, text, vision, world
from dynamicid_core.drawn.text import caption_ids, caption_states
from dynamicid_core.files import read_metadata, read_safetensors
from dynamicid_core.prompts import EXPRESSION_PRESETS, GRID_PROMPTS
from dynamicid_core.saving import write_safetensors
from dynamicid_core.types import DynamicIDError


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawn_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def wide(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    world.fill(models, weights)
    return models


def test_files_are_made_once_and_anew_from_other_weights(wide: Path, weights: Path, tmp_path: Path) -> None:
    said: list[str] = []
    made = world.fill(wide, weights, progress=lambda name, done, total: said.append(name))
    assert said == [] and all(path.exists() for path in made.values())
    before = {name: path.stat().st_mtime_ns for name, path in made.items()}
    other = tmp_path / "other"
    other.mkdir()
    for part in weights.iterdir():
        (other / part.name).symlink_to(part)
    (other / carried.IMR).unlink()
    tensors, metadata = read_safetensors(weights / carried.IMR)
    carried.carry(carried.IMR, {name: tensor + 1 for name, tensor in tensors.items()}, other, metadata)
    world.fill(wide, other, progress=lambda name, done, total: said.append(name))
    assert set(said) == {world.IMR}
    assert {name for name, path in made.items() if path.stat().st_mtime_ns != before[name]} == {world.IMR}


def test_what_is_not_ours_stays(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / world.VAE).write_bytes(b"somebody's")
    with pytest.raises(DynamicIDError, match="is not the drawn world's, so it stays"):
        world.fill(tmp_path, weights)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / world.VAE]


def test_missing_weights_are_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DynamicIDError, match="drawn world is not complete: .* has no unet.safetensors"):
        world.fill(tmp_path / "models", tmp_path)
    assert not (tmp_path / "models").exists()


def test_the_wide_files_load_and_belong_together(wide: Path, weights: Path) -> None:
    narrow, saa, motion = (
        load_saa(weights / carried.SAA), load_saa(wide / world.SAA), load_motion(wide / world.IMR)
    )  # fmt: skip
    assert saa.origin.base == "drawn world" and narrow.origin.base == "narrow drawn world"
    assert saa.origin.widths == tuple(5 * width for width in narrow.origin.widths)
    assert saa.encoder_hash == narrow.encoder_hash == motion.origin.encoder
    assert saa.origin.clip_vision == Path(world.CLIP_VISION).stem


def test_zeros_take_no_room(wide: Path) -> None:
    path = wide / world.CLIP_VISION
    assert path.stat().st_size > 500e6
    probe = path.with_name("probe")
    with probe.open("wb") as file:
        file.truncate(1 << 24)
    if hasattr(probe.stat(), "st_blocks") and probe.stat().st_blocks * 512 < 1 << 20:
        assert path.stat().st_blocks * 512 < 10e6
    probe.unlink()


def test_a_sparse_file_holds_what_went_in(tmp_path: Path) -> None:
    tensors = {
        "some": torch.randn(3, 5), "none": torch.zeros(4, 4), "often": torch.zeros((), dtype=torch.float16).expand(7, 9),
        "one": torch.ones(()).expand(2, 2), "count": torch.tensor(3), "turned": torch.randn(4, 6).half().T,
    }  # fmt: skip
    path = write_safetensors(tmp_path / "any.safetensors", tensors, {"a": "b"}, sparse=True)
    back, metadata = read_safetensors(path)
    assert metadata == {"a": "b"} and back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensor) and back[name].dtype == tensor.dtype for name, tensor in tensors.items())


# --- the networks on diffusers ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipe(weights: Path):
    pytest.importorskip("diffusers")
    from dynamicid_core.drawn.pipeline import narrow_pipeline

    return narrow_pipeline(weights)


def test_every_word_has_clips_number(pipe) -> None:
    for words in (*text.WORDS, *GRID_PROMPTS, *EXPRESSION_PRESETS.values(), "a drawing of two people, happy"):
        assert pipe.tokenizer(words).input_ids == caption_ids(words)
    assert pipe.tokenizer("disgust").input_ids == [text.START, 9793, 545, text.END]
    assert pipe.tokenizer("a", padding="max_length").input_ids == [text.START, 320, *[text.END] * 75]
    assert len(pipe.tokenizer("Z\u00fcrich").input_ids) > 3


@torch.inference_mode()
def test_one_layer_says_what_the_table_says(pipe) -> None:
    for caption in ("", "a drawing of one person, sad, fully turned to the left, pink striped shirt, grey background"):
        said = pipe.encode_prompt(caption, "cpu", 1, False)[0][0].float().numpy()
        table = caption_states(caption)
        assert np.abs(said[: len(table)] - table).max() < 5e-3
        assert np.abs(said[len(table) :] - table[-1]).max() < 5e-3


@torch.inference_mode()
def test_the_tiny_autoencoder_is_the_carried_one(pipe, weights: Path) -> None:
    own = carried.autoencoder(weights)
    pixels = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    latents = own.encode(pixels)
    assert torch.allclose(pipe.vae.encode(pixels * 2 - 1).latents, latents, atol=1e-4)
    assert torch.allclose(pipe.vae.decode(latents).sample, own.decode(latents) * 2 - 1, atol=1e-4)
    assert pipe.vae.config.scaling_factor == 1 and pipe.vae_scale_factor == 8


@torch.inference_mode()
def test_what_clip_vision_sees_can_be_read_again() -> None:
    """A linear map takes patches out of the states: nothing of a picture is lost."""
    pytest.importorskip("diffusers")
    from dynamicid_core.drawn.pipeline import clip_vision

    model = clip_vision()
    draw = torch.Generator().manual_seed(2)
    smooth = torch.nn.functional.interpolate(torch.randn(12, 3, 32, 32, generator=draw), 224, mode="bicubic")
    states = model(pixel_values=smooth, output_hidden_states=True).hidden_states[-2][:, 1:]
    patches = smooth.unfold(2, vision.SIDE, vision.SIDE).unfold(3, vision.SIDE, vision.SIDE)
    means = patches.mean((-1, -2)).flatten(2).mT.flatten(0, 1)  # colours of each patch
    seen = torch.cat((states.flatten(0, 1), torch.ones(len(means), 1)), 1).double()
    train, test = slice(0, 2560), slice(2560, None)
    solved = torch.linalg.lstsq(seen[train], means[train].double(), driver="gelsd").solution
    left = (seen[test] @ solved - means[test]).square().mean() / means[test].var()
    assert left < 0.05


def test_the_narrow_files_are_a_pipeline_that_loads(weights: Path, tmp_path: Path, pipe) -> None:
    from dynamicid_core.command_line import main
    from dynamicid_core.hosts.diffusers import load_clip_vision

    assert main(["drawn", "fill", str(tmp_path), "--narrow", "--weights", str(weights), "-q"]) == 0
    assert load_clip_vision(tmp_path / world.CLIP_VISION).config.hidden_size == vision.WIDTH
    assert read_metadata(tmp_path / world.SAA)["recogniser"] == "drawn"
    loaded = type(pipe).from_pretrained(tmp_path / world.PIPELINE, safety_checker=None, requires_safety_checker=False)
    assert all(torch.equal(a, b) for a, b in zip(loaded.unet.parameters(), pipe.unet.parameters(), strict=True))
    assert loaded.tokenizer("happy").input_ids == [text.START, 900, text.END]
