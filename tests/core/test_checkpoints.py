"""Checkpoints of every format and size; files that are none (method, *Checkpoints*)."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import published
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from dynamicid_core.checkpoints import SAACheckpoint, convert, load_motion, load_saa
from dynamicid_core.files import HUB_FILES, describe, keypoint_file, read_checkpoint
from dynamicid_core.types import DynamicIDError

LONGEST = 700  # characters that still fit a node's error box
FORMATS = {"zip": True, "legacy": False}  # torch's two pickle formats


def _nested(dtype=torch.float32) -> dict[str, dict[str, torch.Tensor]]:
    """What a published SAA.bin holds."""
    return {
        "proj_module": published.tensors(published.SMALL_PROJ, "", dtype),
        "SAA_module": published.tensors(published.SMALL_SAA, "", dtype),
    }


def _imr(dtype=torch.float32):
    return published.tensors(published.SMALL_IMR, "", dtype)


def _keypoints(dtype=torch.float32):
    return published.tensors(published.SMALL_KEYPOINTS, "", dtype)


def _pickle(path: Path, value, zipped: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def _same(got, expected) -> None:
    """The same names, shapes, dtypes and bits."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype == value.dtype, name
        assert torch.equal(got[name], value), name


def _refused(load, *args) -> str:
    with pytest.raises(DynamicIDError) as caught:
        load(*args)
    return str(caught.value)


def _ones(shapes: published.Shapes, prefix: str) -> dict[str, torch.Tensor]:
    """Tensors of full size that take no memory."""
    return {
        prefix + name: torch.ones((), dtype=torch.int64 if name.endswith("tracked") else torch.float16).expand(shape)
        for name, shape in shapes.items()
    }


def _shapes(module: torch.nn.Module) -> published.Shapes:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def test_published_key_lists():
    """Every name and shape of the published files, as the method states them, and no other."""
    proj, sites = published.proj_module(), published.saa_module()
    imr, keypoints = published.imr(), published.key_point_encoder()
    assert (len(imr), len(keypoints)) == (48, 126)
    assert len({name.split(".")[0] for name in sites}) == 32
    assert sites["25.to_k_ip.weight"] == (320, 768) and sites["31.to_k_lora.down.weight"] == (128, 768)
    saa = load_saa(_ones(proj, "proj_module.") | _ones(sites, "SAA_module."))
    assert _shapes(saa.face_encoder) == proj
    assert _shapes(saa.saa) == sites
    motion = load_motion(_ones(imr, "IMR.") | _ones(keypoints, "key_point_encoder."))
    assert _shapes(motion.reconfigurator) == imr
    assert _shapes(motion.keypoint_encoder) == keypoints


@pytest.mark.parametrize(
    ("proj", "sites"),
    [
        ({}, {"rank": 8}),
        ({"tokens": 16, "depth": 2}, {"widths": (320, 640, 1280)}),
        ({"depth": 6, "inner": 320, "width": 512, "feed": 1024}, {"context": 512, "widths": (64,)}),
        ({"identity": 256, "hidden": 99, "clip": 1664}, {"rank": 1, "widths": (40, 80)}),
        ({"inner": 24}, {"widths": (8, 8, 8, 8)}),
    ],
)
def test_sizes_of_saa_are_read_from_the_tensors(proj, sites):
    proj, sites = published.proj_module(**proj), published.saa_module(**sites)
    tensors = _ones(proj, "proj_module.") | _ones(sites, "SAA_module.")
    saa = load_saa(tensors)
    assert (_shapes(saa.face_encoder), _shapes(saa.saa)) == (proj, sites)
    assert len(saa.saa.cross_sites) == len(saa.saa) // 2
    sizes = saa.face_encoder.sizes
    assert (sizes.tokens * sizes.width, sizes.hidden) == proj["proj.2.weight"]


@pytest.mark.parametrize(
    ("imr", "keypoints"),
    [
        ({"depth_out": 2, "depth_in": 2}, {}),
        ({"depth_out": 4, "depth_in": 4}, {"stages": ((8, 1), (16, 2), (32, 5))}),
        ({"depth_out": 1, "depth_in": 3}, {"head": 256, "out": 1024}),
        ({"depth_out": 3, "depth_in": 2, "width": 512, "latents": 7, "inner": 128}, {"stages": ((4, 1),)}),
        ({"token": 1024, "motion": 2048, "feed": 100}, {"out": 5}),
    ],
)
def test_sizes_of_the_imr_are_read_from_the_tensors(imr, keypoints):
    imr, keypoints = published.imr(**imr), published.key_point_encoder(**keypoints)
    motion = load_motion(_ones(imr, "IMR.") | _ones(keypoints, "key_point_encoder."))
    assert (_shapes(motion.reconfigurator), _shapes(motion.keypoint_encoder)) == (imr, keypoints)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)
def test_published_pickles_and_their_conversion(tmp_path, zipped, dtype):
    saa = _pickle(tmp_path / "SAA.bin", _nested(dtype), zipped)
    imr = _pickle(tmp_path / "IMR.bin", _imr(dtype), zipped)
    _pickle(tmp_path / "key_point_encoder.bin", _keypoints(dtype), zipped)
    _same(load_saa(saa).face_encoder.state_dict(), _nested(dtype)["proj_module"])
    _same(load_saa(saa).saa.state_dict(), _nested(dtype)["SAA_module"])
    _same(load_motion(imr).reconfigurator.state_dict(), _imr(dtype))
    _same(load_motion(imr).keypoint_encoder.state_dict(), _keypoints(dtype))

    written = convert([saa, imr], tmp_path / "new" / "folder")
    assert [path.name for path in written] == ["saa.safetensors", "imr.safetensors"]
    assert sorted(os.listdir(written[0].parent)) == ["imr.safetensors", "saa.safetensors"]
    _same(load_file(written[0]), published.small_saa(dtype))
    _same(load_file(written[1]), published.small_imr(dtype))
    assert load_file(written[1])["key_point_encoder.blocks.0.0.conv_block.1.num_batches_tracked"].dtype == torch.int64
    _same(load_saa(written[0]).face_encoder.state_dict(), _nested(dtype)["proj_module"])
    _same(load_motion(written[1]).keypoint_encoder.state_dict(), _keypoints(dtype))
    assert load_saa(written[0]).encoder_hash == load_saa(saa).encoder_hash


def test_convert_takes_files_in_any_order_and_writes_beside_them(tmp_path):
    keypoints = _pickle(tmp_path / "some other name.pt", _keypoints())
    imr = _pickle(tmp_path / "reconfigurator.pt", _imr())
    assert convert([keypoints, imr]) == [tmp_path / "imr.safetensors"]
    _same(load_file(tmp_path / "imr.safetensors"), published.small_imr())
    assert "imr.safetensors is one of the files that are read" in _refused(convert, [tmp_path / "imr.safetensors"])
    again = convert([tmp_path / "imr.safetensors"], tmp_path / "again")
    _same(load_file(*again), published.small_imr())


def test_convert_copes_with_tensors_that_share_memory(tmp_path):
    nested = _nested()
    nested["SAA_module"]["1.to_v_ip.weight"] = nested["SAA_module"]["1.to_k_ip.weight"]
    nested["SAA_module"]["3.to_k_ip.weight"] = nested["SAA_module"]["3.to_k_ip.weight"].T.contiguous().T
    (written,) = convert([_pickle(tmp_path / "SAA.bin", nested)])
    _same(read_checkpoint(written), read_checkpoint(tmp_path / "SAA.bin"))


def test_convert_refuses_before_it_writes(tmp_path):
    saa = _pickle(tmp_path / "SAA.bin", _nested())
    imr = _pickle(tmp_path / "IMR.bin", _imr())
    keypoints = _keypoints()
    del keypoints["blocks.1.0.conv_block.0.bias"]
    _pickle(tmp_path / "key_point_encoder.bin", keypoints)
    cases = {
        "blocks.1.0.conv_block.0.bias": [saa, imr],
        "LoRA": [saa, _pickle(tmp_path / "lora.pt", {"lora_unet_x.lora_down.weight": torch.ones(2, 2)})],
        "same kind": [saa, _pickle(tmp_path / "SAA2.bin", _nested())],
        "nothing to convert": [],
        "There is no file": [tmp_path / "none.bin"],
        "key point encoder": [tmp_path / "key_point_encoder.bin"],
        "not DynamicID's": [_pickle(tmp_path / "extra.bin", _nested() | {"optimizer": torch.ones(3)})],
    }
    for said, sources in cases.items():
        message = _refused(convert, sources, tmp_path / "out")
        assert said in message
        assert not sources or str(sources[-1]) in message
        assert not (tmp_path / "out").exists()


def test_an_unwritable_folder_is_named(tmp_path):
    saa = _pickle(tmp_path / "SAA.bin", _nested())
    assert f"{saa} could not be written: {saa} is a file" in _refused(convert, [saa], saa)
    (tmp_path / "saa.safetensors").mkdir()
    assert "saa.safetensors is a folder" in _refused(convert, [saa])
    assert sorted(os.listdir(tmp_path)) == ["SAA.bin", "saa.safetensors"]


@pytest.mark.parametrize(
    ("imr", "keypoints"),
    [
        ("IMR.bin", "key_point_encoder.bin"),
        ("IMR_v2.pt", "key_point_encoder_v2.pt"),
        ("x.pth", "key_point_encoder.bin"),
    ],
)
def test_key_point_encoder_is_found_beside(tmp_path, imr, keypoints):
    path = _pickle(tmp_path / imr, _imr())
    message = _refused(load_motion, path)
    assert str(path) in message and "key_point_encoder.bin" in message
    _pickle(tmp_path / keypoints, _keypoints())
    assert keypoint_file(path) == tmp_path / keypoints
    _same(load_motion(path).keypoint_encoder.state_dict(), _keypoints())


def test_a_wrong_file_beside_the_imr_is_named(tmp_path):
    path = _pickle(tmp_path / "IMR.bin", _imr())
    beside = _pickle(tmp_path / "key_point_encoder.bin", _nested())
    message = _refused(load_motion, path)
    assert str(beside) in message and "SAA" in message and str(path) in message
    beside.write_bytes(b"")
    assert str(beside) in _refused(load_motion, path)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_training_wrappers_are_dropped(tmp_path, wrapper):
    nested = {part: {wrapper + name: t for name, t in tensors.items()} for part, tensors in _nested().items()}
    _same(load_saa(_pickle(tmp_path / "SAA.bin", nested)).saa.state_dict(), _nested()["SAA_module"])
    imr = _pickle(tmp_path / "IMR.bin", {wrapper + name: t for name, t in _imr().items()})
    _pickle(tmp_path / "key_point_encoder.bin", _keypoints())
    _same(load_motion(imr).reconfigurator.state_dict(), _imr())


def test_what_training_leaves_besides_tensors_is_ignored(tmp_path):
    path = _pickle(tmp_path / "SAA.bin", _nested() | {"step": 7, "loss": 0.5, "notes": ["a", None]})
    _same(load_saa(path).face_encoder.state_dict(), _nested()["proj_module"])


def test_copying_gives_the_default_dtype_and_its_own_memory(tmp_path):
    tensors = published.small_saa(torch.float16)
    loaded = load_saa(tensors, assign=False)
    encoder = loaded.face_encoder.state_dict()
    assert {t.dtype for t in encoder.values()} == {torch.float32}
    assert all(torch.equal(t, tensors[f"proj_module.{name}"].float()) for name, t in encoder.items())
    before = encoder["norm.weight"].clone()
    tensors["proj_module.norm.weight"].add_(1)
    assert torch.equal(loaded.face_encoder.norm.weight, before)


def test_loaded_networks_run_and_do_not_train():
    saa, motion = load_saa(published.small_saa()), load_motion(published.small_imr())
    for module in (saa.face_encoder, saa.saa, motion.reconfigurator, motion.keypoint_encoder):
        assert not module.training
        assert not any(p.requires_grad or p.is_meta for p in module.parameters())
    tokens = saa.face_encoder(torch.ones(2, 6), torch.ones(2, 5, 9))
    features = motion.keypoint_encoder(torch.ones(3, 1, 96, 96))
    edited = motion.reconfigurator(tokens[:1], features[:1], features, features[:1], features)
    assert (tokens.shape, features.shape, edited.shape) == ((2, 3, 8), (3, 7), (3, 3, 8))
    assert torch.isfinite(edited).all()


def test_loading_under_inference_mode_is_usable_outside(tmp_path):
    path = _pickle(tmp_path / "SAA.bin", _nested())
    with torch.inference_mode():
        loaded = load_saa(path)
    assert torch.isfinite(loaded.face_encoder(torch.ones(1, 6), torch.ones(1, 5, 9))).all()


def test_layer_classes_are_injected():
    class Linear(torch.nn.Linear):
        pass

    operations = type("operations", (), {"Linear": Linear, "LayerNorm": torch.nn.LayerNorm, "Conv2d": torch.nn.Conv2d})
    loaded = load_saa(published.small_saa(), operations)
    assert type(loaded.face_encoder.perceiver_resampler.proj_in) is Linear
    motion = load_motion(published.small_imr(), operations)
    assert type(motion.reconfigurator.proj_in) is Linear


def test_encoder_hash_is_that_of_the_files_projection_weights():
    tensors = published.small_saa(torch.bfloat16)
    digest = hashlib.sha256()
    for name in sorted(published.SMALL_PROJ):
        value = tensors[f"proj_module.{name}"]
        digest.update(f"{name} torch.bfloat16 {tuple(value.shape)}".encode())
        digest.update(value.view(torch.int16).numpy().tobytes())
    assigned, copied = load_saa(tensors), load_saa(tensors, assign=False)
    assigned.face_encoder.double()  # a host casts and moves the network
    assert assigned.encoder_hash == copied.encoder_hash == digest.hexdigest()
    assert assigned.encoder_hash is assigned.encoder_hash  # computed once
    fresh = load_saa(tensors)
    assert SAACheckpoint(fresh.face_encoder, fresh.saa).encoder_hash == digest.hexdigest()
    tensors["proj_module.norm.bias"][0] += 1
    assert load_saa(tensors).encoder_hash != digest.hexdigest()


@pytest.mark.parametrize("name", ["saa.safetensors", "SAA.bin"])
def test_files_are_mapped_not_read(tmp_path, name):
    path = tmp_path / name
    _whole_file(str(path))
    loaded = load_saa(path)
    maps = Path("/proc/self/maps")
    if maps.exists():  # only Linux lists them
        assert str(path) in maps.read_text()
    assert torch.equal(loaded.saa[0].to_q_lora.up.weight, published.small_saa()["SAA_module.0.to_q_lora.up.weight"])


# --- files that are none ------------------------------------------------------------------------------------------

OTHERS = {
    "an IP-Adapter file": {"image_proj.proj.weight": (8, 4), "ip_adapter.1.to_k_ip.weight": (8, 8)},
    "a LoRA": {"lora_unet_down_blocks_0_attn1_to_q.lora_down.weight": (2, 8), "x.alpha": (1,)},
    "a complete checkpoint": {"model.diffusion_model.input_blocks.0.0.weight": (4, 4), "first_stage_model.x": (1,)},
    "a ControlNet": {"control_model.input_blocks.0.0.weight": (4, 4), "control_model.zero_convs.0.0.bias": (4,)},
    "a CLIP vision model": {"vision_model.embeddings.class_embedding": (8,), "visual_projection.weight": (8, 8)},
    "a diffusers UNet": {"down_blocks.0.attentions.0.proj_in.weight": (4, 4), "conv_in.bias": (4,)},
    "a text encoder": {"text_model.final_layer_norm.weight": (4,)},
    "a DynamicID face file": {"tokens": (1, 4, 8), "uncond_tokens": (1, 4, 8)},
    "something else": {"a": (1,), "b" * 500: (2,), "c": (3,), "d": (4,)},
    "a file without tensors": {},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_are_named(tmp_path, kind):
    tensors = published.tensors(OTHERS[kind])
    save_file(tensors, tmp_path / "a.safetensors")
    for path in (tmp_path / "a.safetensors", _pickle(tmp_path / "a.bin", tensors)):
        for load, expected in ((load_saa, "SAA.bin or saa.safetensors"), (load_motion, "IMR.bin or imr.safetensors")):
            message = _refused(load, path)
            assert str(path) in message and kind in message and expected in message
            assert len(message) - len(str(path)) < LONGEST
        assert kind in _refused(convert, [path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_diffusers_control_net_is_told_from_a_unet():
    assert describe(["controlnet_cond_embedding.conv_in.bias", "down_blocks.0.x"]) == "a ControlNet"


def test_each_kind_where_the_other_is_expected(tmp_path):
    save_file(published.small_saa(), tmp_path / "saa.safetensors")
    save_file(published.small_imr(), tmp_path / "imr.safetensors")
    saa, imr = _pickle(tmp_path / "SAA.bin", _nested()), _pickle(tmp_path / "IMR.bin", _imr())
    keypoints = _pickle(tmp_path / "key_point_encoder.bin", _keypoints())
    for path in (saa, tmp_path / "saa.safetensors"):
        message = _refused(load_motion, path)
        assert str(path) in message and "a DynamicID SAA file" in message and "IMR.bin or" in message
    for path in (imr, tmp_path / "imr.safetensors"):
        message = _refused(load_saa, path)
        assert str(path) in message and "a DynamicID IMR file" in message and "SAA.bin or" in message
    for load in (load_saa, load_motion):
        assert f"{keypoints} is a DynamicID key point encoder" in _refused(load, keypoints)


@pytest.mark.parametrize("half", ["proj_module", "SAA_module"])
def test_half_a_checkpoint_is_named(tmp_path, half):
    path = _pickle(tmp_path / "SAA.bin", {half: _nested()[half]})
    other = {"proj_module": "SAA_module", "SAA_module": "proj_module"}[half]
    assert f"{path} is a DynamicID SAA file without any tensor {other}.*" in _refused(load_saa, path)


def _whole_file(name: str, zipped: bool = True) -> bytes:
    path = Path(name)
    if path.suffix == ".safetensors":
        save_file(published.small_saa(), path)
    else:
        _pickle(path, _nested(), zipped)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["zip.bin", "legacy.bin", "header and data.safetensors"])
def test_truncated_downloads(tmp_path, kind):
    path = tmp_path / kind
    whole = _whole_file(str(path), kind != "legacy.bin")
    load_saa(path)
    for size in {16, 50, len(whole) // 3, len(whole) // 2, len(whole) - 9, len(whole) - 1}:
        path.write_bytes(whole[:size])
        message = _refused(load_saa, path)
        assert str(path) in message and f"truncated download ({size:,} bytes" in message and "SAA.bin or" in message
    for size in range(1, 9):
        path.write_bytes(whole[:size])
        assert str(path) in _refused(load_saa, path)


@pytest.mark.parametrize("load, tensors", [(load_saa, published.small_saa()), (load_motion, published.small_imr())])
@pytest.mark.parametrize("share", [0.99, 0.5, 0.2, 0.05])
def test_downloads_that_were_broken_off_in_a_file_of_full_size(tmp_path, load, tensors, share):
    """Space was set aside for all of it, and its end is zeros: it reads well, and would act as nothing."""
    path = tmp_path / "file.safetensors"
    save_file(tensors, path)
    whole = path.read_bytes()
    load(path)
    missing = int(share * sum(t.numel() * t.element_size() for t in tensors.values()))
    path.write_bytes(whole[:-missing] + bytes(missing))
    assert "nothing but zeros at the end of" in _refused(load, path)
    assert "nothing but zeros" in _refused(convert, [path], tmp_path / "out") and not (tmp_path / "out").exists()


def test_what_training_begins_with_loads(tmp_path):
    """LoRA that adds nothing yet, feed-forward layers that do not either, biases of zero."""
    tensors = published.small_saa() | published.small_imr()
    begun = {
        n: torch.zeros_like(t) if n.endswith(("lora.up.weight", ".bias", ".1.3.weight", ".2.3.weight")) else t
        for n, t in tensors.items()
    }
    assert sum(not t.any() for t in begun.values()) > 40
    for load, prefixes in ((load_saa, ("proj_module", "SAA_module")), (load_motion, ("IMR", "key_point_encoder"))):
        save_file({n: t for n, t in begun.items() if n.startswith(prefixes)}, tmp_path / "begun.safetensors")
        load(tmp_path / "begun.safetensors")


DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2)


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_files_of_any_float_type_compute_in_float32(tmp_path, dtype, ending):
    """As this host runs networks: what comes out is what the same numbers in float32 give."""
    from dynamicid_core.hosts.diffusers.photos import FloatNetwork

    def outputs(kind: str, change) -> list[torch.Tensor]:
        paths = []
        for name, tensors in (("saa", published.small_saa()), ("imr", published.small_imr())):
            made = {n: change(t) if t.is_floating_point() else t for n, t in tensors.items()}
            paths.append(tmp_path / f"{name}_{kind}{ending}")
            save_file(made, paths[-1]) if ending == ".safetensors" else torch.save(made, paths[-1])
        saa, motion = load_saa(paths[0]), load_motion(paths[1])
        before = saa.encoder_hash
        tokens = FloatNetwork(saa.face_encoder)(torch.ones(2, 6), torch.ones(2, 5, 9))
        features = FloatNetwork(motion.keypoint_encoder)(torch.ones(2, 1, 96, 96))
        edited = FloatNetwork(motion.reconfigurator)(tokens[:1], features[:1], features, features[:1], features)
        assert saa.encoder_hash == before
        return [tokens, features, edited]

    odd, full = outputs("odd", lambda t: t.to(dtype)), outputs("full", lambda t: t.to(dtype).float())
    for one, other in zip(odd, full, strict=True):
        assert one.dtype == torch.float32 and torch.isfinite(one).all() and torch.equal(one, other)


CONTENTS = {
    "empty": (b"", "the file is empty"),
    "web page": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "it is a web page"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "Git LFS pointer"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(300), "neither a PyTorch nor a safetensors file"),
    "zeros": (bytes(5000), "neither a PyTorch nor a safetensors file"),
}


@pytest.mark.parametrize("suffix", [".bin", ".safetensors", ".SFT", ".pt"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_files_that_hold_no_weights(tmp_path, kind, suffix):
    content, said = CONTENTS[kind]
    path = tmp_path / f"SAA{suffix}"
    path.write_bytes(content)
    for load in (load_saa, load_motion):
        message = _refused(load, path)
        assert str(path) in message and said in message and "Expected DynamicID's" in message


def test_formats_under_each_others_names(tmp_path):
    for zipped in FORMATS.values():
        _pickle(tmp_path / "a.safetensors", _nested(), zipped)
        assert "it is a PyTorch pickle, not a safetensors file" in _refused(load_saa, tmp_path / "a.safetensors")
    save_file(published.small_saa(), tmp_path / "a.bin")
    assert "rename it to .safetensors" in _refused(load_saa, tmp_path / "a.bin")


def test_folders_missing_files_archives_and_closed_files(tmp_path, monkeypatch):
    assert f"{tmp_path} is a folder" in _refused(load_saa, tmp_path)
    assert f"There is no file {tmp_path / 'none.bin'}" in _refused(load_motion, tmp_path / "none.bin")
    with zipfile.ZipFile(tmp_path / "a.bin", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "an archive, but not of PyTorch weights" in _refused(load_saa, tmp_path / "a.bin")

    def denied(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(torch, "load", denied)
    assert "permission" in _refused(load_saa, tmp_path / "a.bin")


class _Attack:
    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def _bits_flipped(content: bytes, places: Iterable[int]) -> Iterator[bytes]:
    for number, place in enumerate(places):
        flipped = bytearray(content)
        flipped[place] ^= 1 << number % 8
        yield bytes(flipped)


def test_a_damaged_pickle_is_not_called_code(tmp_path):
    """A bit that fell over changes names and operations; what the archive's checksum says of it decides."""
    path, tensors = tmp_path / "SAA.bin", {"proj_module": {"norm.weight": torch.ones(8)}}
    content = _pickle(path, tensors).read_bytes()
    said = []
    for flipped in _bits_flipped(content, range(60, 420, 3)):  # the pickle, behind the archive's first header
        path.write_bytes(flipped)
        said.append(_refused(load_saa, path))
    assert not any("code" in message for message in said)
    assert sum("its checksum is wrong, so it is damaged" in message for message in said) > 20
    content = _pickle(path, tensors, zipped=False).read_bytes()  # has no checksum
    said = []
    for flipped in _bits_flipped(content, range(20, 300, 3)):
        path.write_bytes(flipped)
        said += [message] if "code" in (message := _refused(load_saa, path)) else []
    assert said and all("holds Python objects besides tensors, or is damaged;" in message for message in said)


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("name", ["SAA.bin", "saa.safetensors", "SAA.ckpt"])
def test_pickles_never_execute_code(tmp_path, name, zipped):
    witness = tmp_path / "it ran"
    path = _pickle(tmp_path / name, _nested() | {"x": _Attack(f'echo 1 > "{witness}"')}, zipped)
    for load in (load_saa, load_motion, lambda p: convert([p])):
        message = _refused(load, path)
        assert str(path) in message
        assert ("so it was refused" in message) == (path.suffix != ".safetensors")
        assert len(message) - len(str(path)) < LONGEST
    assert not witness.exists()
    torch.load(path, weights_only=False)  # the attack is a real one
    assert witness.exists()


@pytest.mark.parametrize("value", [np.ones(3), Path("x"), torch.nn.Linear(2, 2), _Attack], ids=lambda v: str(type(v)))
def test_pickles_of_other_objects_are_refused(tmp_path, value):
    path = _pickle(tmp_path / "SAA.bin", _nested() | {"extra": value})
    message = _refused(load_saa, path)
    assert str(path) in message and "Python objects besides tensors" in message and "Expected" in message


# --- tensors that do not fit --------------------------------------------------------------------------------------


def _kinds():
    return ((load_saa, published.small_saa), (load_motion, published.small_imr))


@pytest.mark.parametrize(("load", "make"), _kinds())
def test_every_missing_tensor_is_named(load, make):
    for name in make():
        tensors = make()
        del tensors[name]
        assert name.split(".", 1)[1] in _refused(load, tensors)


@pytest.mark.parametrize(("load", "make"), _kinds())
def test_extra_tensors_are_named(load, make):
    prefix = next(iter(make())).split(".")[0]
    for name in (f"{prefix}.more.weight", f"{prefix}.0.more", "optimizer.state"):
        message = _refused(load, make() | {name: torch.ones(2)})
        assert name.removeprefix(f"{prefix}.") in message and "unknown" in message


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values_that_are_not_finite_are_named(broken, dtype):
    for load, make in _kinds():
        tensors = make(dtype)
        name = list(tensors)[-2]
        tensors[name].view(-1)[-1] = broken
        message = _refused(load, tensors)
        assert name.split(".", 1)[1] in message and "NaN" in message


def test_heads_that_do_not_come_out_even_are_named():
    proj = published.proj_module(inner=200)
    message = _refused(load_saa, _ones(proj, "proj_module.") | _ones(published.SMALL_SAA, "SAA_module."))
    assert "200" in message and "64" in message


def test_a_site_without_its_pair_is_named():
    tensors = {k: v for k, v in published.small_saa().items() if not k.startswith("SAA_module.5.")}
    assert "5 attention sites" in _refused(load_saa, tensors)


def test_a_long_list_of_problems_stays_short():
    tensors = _ones(published.proj_module(depth=12), "proj_module.") | _ones(published.saa_module(), "SAA_module.")
    cut = {k: v for k, v in tensors.items() if not k.endswith("up.weight")} | {
        f"SAA_module.{'x' * 300}{i}": tensors[k] for i, k in enumerate(list(tensors)[:50])
    }
    message = _refused(load_saa, cut)
    assert "lacks" in message and "unknown" in message and "more" in message
    assert len(message) < LONGEST


CHANGES = {
    "delete": lambda t: None,
    "an axis more": lambda t: t[None],
    "flat": lambda t: t.flatten(),
    "scalar": lambda t: t.flatten()[0] if t.numel() else t,
    "empty": lambda t: t.flatten()[:0],
    "no rows": lambda t: t[:0] if t.ndim else t,
    "twice": lambda t: torch.cat((t, t)) if t.ndim else t,
    "half": lambda t: t[: len(t) // 2] if t.ndim else t,
    "turned": lambda t: t.T if t.ndim == 2 else t,
    "whole numbers": lambda t: t.abs().long(),
    "complex": lambda t: t.to(torch.complex64),
    "sparse": lambda t: t.to_sparse() if t.ndim else t,
    "float8": lambda t: t.to(torch.float8_e4m3fn),
    "not finite": lambda t: t / 0 if t.is_floating_point() else t,
}


@pytest.mark.parametrize("kind", [0, 1], ids=["SAA", "IMR"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_checkpoints_never_raise_anything_else(kind, data):
    load, make = _kinds()[kind]
    tensors, originals = make(), make()
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(tensors)))
        change = data.draw(st.sampled_from([*sorted(CHANGES), "rename", "drop all below"]))
        if change == "rename":
            new = data.draw(st.sampled_from([name + "x", "x" + name, name.replace("0", "7"), name[5:]]))
            tensors[new] = tensors.pop(name)
        elif change == "drop all below":
            part = name[: data.draw(st.integers(1, len(name)))]
            tensors = {k: v for k, v in tensors.items() if not k.startswith(part)}
        elif (changed := CHANGES[change](originals.get(name, torch.ones(2)))) is not None:
            tensors[name] = changed
        else:
            del tensors[name]
        tensors = tensors or {"x": torch.ones(1)}
    assign = data.draw(st.booleans())
    try:
        loaded = load(tensors, assign=assign)
    except DynamicIDError as error:
        assert len(str(error)) < LONGEST
    else:  # what loads is whole: all of the tensors, nothing left without values
        modules = (loaded.face_encoder, loaded.saa) if kind == 0 else (loaded.reconfigurator, loaded.keypoint_encoder)
        assert sum(len(module.state_dict()) for module in modules) == len(tensors)
        assert not any(t.is_meta for module in modules for t in module.state_dict().values())


def test_loading_needs_no_network(tmp_path, monkeypatch):
    import socket
    import sys

    def forbidden(*_args, **_kwargs):
        raise AssertionError("loading opened a connection")

    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # importing it fails
    load_saa(_pickle(tmp_path / "SAA.bin", _nested()))
    _refused(load_motion, _pickle(tmp_path / "IMR.bin", _imr()))
    for name in HUB_FILES:
        _refused(load_saa, tmp_path / "none" / name)
