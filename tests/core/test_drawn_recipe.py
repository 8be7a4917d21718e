"""The world from nothing by one command: every step of the recipe, each for a moment, and that it goes on where it was cut."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("diffusers")
pytest.importorskip("onnxruntime")

from dynamicid_core import command_line
from dynamicid_core.checkpoints import load_motion, load_saa
from dynamicid_core.drawn import carried, face_lessons, face_pictures, latents, recipe
from dynamicid_core.drawn.pipeline import drawn_dynamicid
from dynamicid_core.drawn.train_autoencoder import AutoencoderOptions
from dynamicid_core.drawn.train_unet import UNetOptions


@pytest.fixture
def small(monkeypatch):
    """A recipe of a few pictures and steps."""
    monkeypatch.setattr(recipe, "AutoencoderOptions", partial(AutoencoderOptions, pictures=32))
    monkeypatch.setattr(recipe, "UNetOptions", partial(UNetOptions, pictures=8))
    for name, kind in latents.KINDS.items():
        monkeypatch.setitem(latents.KINDS, name, dataclasses.replace(kind, scenes=4, batch=2))
    monkeypatch.setattr(face_pictures, "make_pictures", partial(face_pictures.make_pictures, 24, 6, 4))
    for name, lesson in face_lessons.LESSONS.items():
        monkeypatch.setitem(face_lessons.LESSONS, name, dataclasses.replace(lesson, steps=1, size=4))
    monkeypatch.setattr(recipe, "ANCHOR_PEOPLE", range(24, 27))
    monkeypatch.setattr(recipe, "MOTION_PEOPLE", range(1))
    monkeypatch.setattr(recipe, "teach", partial(recipe.teach, steps=2))
    few = {"steps": 2, "batch": 2, "warmup": 1, "save_every": 1}
    monkeypatch.setattr(recipe, "ANCHOR", recipe.ANCHOR | few)
    monkeypatch.setattr(recipe, "RECONFIGURE", recipe.RECONFIGURE | few)
    monkeypatch.setattr(recipe, "FINISH", recipe.FINISH | few)


def test_one_command_trains_the_world_and_goes_on_where_it_was(small, tmp_path, capsys, monkeypatch) -> None:
    words = ["drawn", "train", "world", "--output", str(tmp_path), "--precision", "no"]
    finish = recipe.carry_faces

    def cut(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "carry_faces", cut)
    assert command_line.main(words) == 130
    assert not (tmp_path / "weights" / carried.SAA).exists()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/manifest.parquet")}
    assert len(before) == 2
    monkeypatch.setattr(recipe, "carry_faces", finish)
    assert command_line.main(words) == 0, capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing is drawn twice

    weights = tmp_path / "weights"
    assert {path.name for path in weights.iterdir()} == {path.name for path in carried.WEIGHTS.iterdir()}
    saa, imr = load_saa(weights / carried.SAA), load_motion(weights / carried.IMR)
    assert imr.origin.encoder == saa.encoder_hash and saa.origin.recogniser == "drawn"
    shipped = load_file(carried.path_of(carried.SAA))
    assert {k: v.shape for k, v in load_file(weights / carried.SAA).items()} == {k: v.shape for k, v in shipped.items()}
    did = drawn_dynamicid(weights)
    assert did.saa.encoder_hash == saa.encoder_hash
    assert all(torch.isfinite(tensor).all() for tensor in load_file(weights / carried.SAA).values())
