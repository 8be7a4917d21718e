"""The stand-in model files: right names and shapes, marked, small on the disk, made once, never over real weights."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from standins import clip, dynamicid, models, sd15
from standins.weights import Weights, exact, normal, read_metadata, write, zeros

from dynamicid_core.bases import attention_blocks
from dynamicid_core.checkpoints import convert, load_motion, load_saa
from dynamicid_core.files import read_checkpoint, read_tensors
from dynamicid_core.types import DynamicIDError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return models.make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One small file in place of all, and a detector that costs nothing: for tests of the bookkeeping."""

    def write_detector_pack(folder: Path, seed: int = 0) -> None:
        folder.mkdir()
        (folder / "det_10g.onnx").write_bytes(bytes([seed]))

    monkeypatch.setattr(models, "FILES", {"vae/small.safetensors": lambda: {"w": normal(3, 4, std=1.0), "z": zeros(5)}})
    monkeypatch.setattr("standins.detector.write_detector_pack", write_detector_pack)


def shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    return {name: weight.shape for name, weight in weights.items()}


def module_shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


# The files


def test_every_file_is_marked_and_holds_what_was_described(made: dict[str, Path]) -> None:
    assert set(made) == {*models.FILES, models.DETECTOR}
    for name, weights in models.FILES.items():
        assert models.is_stand_in(made[name])
        assert read_metadata(made[name])["dynamicid"] == "stand-in"
        described = weights()
        with safe_open(made[name], "np") as file:
            assert {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()} == shapes(described)
            for key in (
                next(iter(described)),
                list(described)[-1],
                next(k for k, w in described.items() if w.make is None),
            ):
                assert np.array_equal(file.get_tensor(key), described[key].values(key, 0)), key
    assert models.is_stand_in(made[models.DETECTOR])
    assert sorted(file.stem for file in made[models.DETECTOR].glob("*.onnx")) == [
        "1k3d68",
        "2d106det",
        "det_10g",
        "w600k_r50",
    ]


def test_zero_tensors_take_no_space(made: dict[str, Path], tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    with probe.open("wb") as file:
        file.truncate(1 << 24)
    if not hasattr(probe.stat(), "st_blocks") or probe.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this file system stores zeros")
    used = {name: made[name].stat().st_blocks * 512 for name in models.FILES}
    assert used["clip_vision/CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"] < 32e6
    assert sum(used.values()) < 400e6


def test_values_depend_on_seed_and_name_alone() -> None:
    weight = normal(4, 6, std=1.0)
    assert np.array_equal(weight.values("a", 0), weight.values("a", 0))
    assert not np.array_equal(weight.values("a", 0), weight.values("b", 0))
    assert not np.array_equal(weight.values("a", 0), weight.values("a", 1))


def test_what_is_complete_stays_and_what_is_cut_short_or_old_is_made_anew(tmp_path: Path, small: None) -> None:
    path = models.make_models(tmp_path)["vae/small.safetensors"]
    whole, first = path.read_bytes(), path.stat().st_mtime_ns
    os.utime(path, ns=(first - 10**9, first - 10**9))
    calls: list[tuple[str, int, int]] = []
    models.make_models(tmp_path, progress=lambda *call: calls.append(call))
    assert path.stat().st_mtime_ns == first - 10**9
    assert calls == [("vae/small.safetensors", 0, 2), (models.DETECTOR, 1, 2), (models.DETECTOR, 2, 2)]
    path.write_bytes(whole[:-1])
    assert not models.is_stand_in(path)
    models.make_models(tmp_path)
    assert path.read_bytes() == whole
    models.make_models(tmp_path, seed=1)
    assert path.read_bytes() != whole
    assert (tmp_path / models.DETECTOR / "det_10g.onnx").read_bytes() == b"\1"
    assert not list(tmp_path.rglob("*part*"))


@pytest.mark.parametrize("name", ["vae/small.safetensors", f"{models.DETECTOR}/det_10g.onnx"])
def test_real_weights_are_never_overwritten(tmp_path: Path, small: None, name: str) -> None:
    real = tmp_path / name
    real.parent.mkdir(parents=True)
    write(real, {"w": exact(np.ones(3))}, 0, {"format": "pt"})
    before = real.read_bytes()
    with pytest.raises(DynamicIDError, match="not a stand-in"):
        models.make_models(tmp_path)
    assert real.read_bytes() == before
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [real]
    assert not models.is_stand_in(real)


# The names: what other libraries' own models of the same architecture have


@pytest.fixture(scope="module")
def single_file_utils():
    return pytest.importorskip("diffusers.loaders.single_file_utils")


def test_unet_converts_to_the_diffusers_layout(made: dict[str, Path], single_file_utils) -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(block_out_channels=(sd15.WIDTH,) * 4, cross_attention_dim=768, attention_head_dim=8)
    checkpoint = load_file(made["checkpoints/Realistic_Vision_V6.0_NV_B1_fp16.safetensors"])
    converted = single_file_utils.convert_ldm_unet_checkpoint(checkpoint, dict(unet.config))
    assert {name: tuple(value.shape) for name, value in converted.items()} == module_shapes(unet)
    assert len(attention_blocks(checkpoint)) == len(attention_blocks(converted)) == 16


def test_vae_converts_to_the_diffusers_layout(made: dict[str, Path], single_file_utils) -> None:
    from diffusers import AutoencoderKL

    def model(width: int) -> AutoencoderKL:
        kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
        widths = (width, 2 * width, 4 * width, 4 * width)
        with torch.device("meta"):
            return AutoencoderKL(**kinds, block_out_channels=widths, layers_per_block=2, latent_channels=4)

    wide, narrow = model(128), model(sd15.DECODER_WIDTH)
    checkpoint = load_file(made["vae/vae-ft-mse-840000-ema-pruned.safetensors"])
    converted = single_file_utils.convert_ldm_vae_checkpoint(checkpoint, dict(wide.config))
    expected = {name: shape for name, shape in module_shapes(wide).items() if not name.startswith("decoder.")}
    expected |= {name: shape for name, shape in module_shapes(narrow).items() if name.startswith("decoder.")}
    assert {name: tuple(value.shape) for name, value in converted.items()} == expected


def test_clip_models_have_the_names_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    vision = {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 16, "num_hidden_layers": 32}
    with torch.device("meta"):
        text_model = transformers.CLIPTextModel(transformers.CLIPTextConfig(**text))
        config = transformers.CLIPVisionConfig(**vision, patch_size=14, projection_dim=1024)
        vision_model = transformers.CLIPVisionModelWithProjection(config)
    expected = {name.removeprefix("text_model."): shape for name, shape in module_shapes(text_model).items()}
    assert shapes(clip.text_encoder()) == {
        name: shape for name, shape in expected.items() if "position_ids" not in name
    }
    expected = {name: shape for name, shape in module_shapes(vision_model).items() if "position_ids" not in name}
    assert shapes(clip.vision_encoder()) == expected


# DynamicID's own files


def test_dynamicid_files_load_and_fit_the_unet(made: dict[str, Path]) -> None:
    saa = load_saa(made["dynamicid/saa.safetensors"])
    assert [site.sizes.width for site in saa.saa] == [width for width in sd15.SITE_WIDTHS for _ in range(2)]
    assert len(saa.saa.cross_sites) == 16
    load_motion(made["dynamicid/imr.safetensors"])
    identities = torch.nn.functional.normalize(torch.randn(2, 512, generator=torch.Generator().manual_seed(0)))
    saa.face_encoder.float()
    with torch.no_grad():
        tokens = saa.face_encoder(identities, torch.zeros(2, 257, 1280))
    assert (tokens[0] - tokens[1]).std() > 0.3 * tokens.std()


def test_published_pickles_have_the_published_names_and_convert(tmp_path: Path) -> None:
    paths = dynamicid.published_pickles(tmp_path, seed=3)
    assert sorted(paths) == ["IMR.bin", "SAA.bin", "key_point_encoder.bin"]
    assert {len(read_tensors(paths[name])): name for name in ("IMR.bin", "key_point_encoder.bin")} == {
        48: "IMR.bin",
        126: "key_point_encoder.bin",
    }
    assert set(torch.load(paths["SAA.bin"], weights_only=True)) == {"proj_module", "SAA_module"}
    (file,) = convert([paths["SAA.bin"]], tmp_path / "out")
    converted, expected = load_file(file), read_checkpoint(paths["SAA.bin"])
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[name], value) for name, value in expected.items())


def test_full_sizes_are_the_published_ones() -> None:
    full = shapes(dynamicid.saa(dynamicid.PUBLISHED_WIDTHS, rank=128, depth=4))
    assert sum(name.startswith("SAA_module.") for name in full) == 32 * 8 + 16 * 2
    assert full["SAA_module.0.to_q_lora.down.weight"] == (128, 320)
    assert full["SAA_module.31.to_k_ip.weight"] == (1280, 768)  # middle
    assert full["SAA_module.13.to_v_lora.down.weight"] == (128, 768)  # first of "up"
    assert full["SAA_module.28.to_out_lora.up.weight"] == (320, 128)  # last of "up"
    assert full["proj_module.perceiver_resampler.layers.3.1.3.weight"] == (768, 3072)
    assert full["proj_module.proj.2.weight"] == (3072, 1024)
