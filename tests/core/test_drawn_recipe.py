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
    words = ["drawn", "train", "--all", "--output", str(tmp_path), "--precision", "no"]
    finish = recipe.carry_faces

    def cut(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "carry_faces", cut)
    assert command_line.main(words) == 130
    told = capsys.readouterr().out
    assert "takes about 3 hours" in told and all(f"{part}: done; about " in told for part in recipe.PARTS)
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


def test_what_is_left_is_told_at_the_pace_of_whole_parts(monkeypatch) -> None:
    monkeypatch.setattr(recipe, "PARTS", {"first": 10, "second": 20, "third": 30})
    told, clock = [], iter((0.0, 5.0, 5.0 + 60 * 40))
    pace = recipe.Pace(told.append, lambda: next(clock))
    pace.done("first", whole=False)  # it was there already, or half of it
    pace.done("second")
    assert told[1:] == [
        "first: done; about 50 minutes are left at this pace.",
        "second: done; about 60 minutes are left at this pace.",  # twice as slow
    ]


def test_the_recipe_takes_no_settings(tmp_path, capsys) -> None:
    assert command_line.main(["drawn", "train", "--all", "--output", str(tmp_path), "--pictures", "8"]) == 1
    assert "leave --pictures" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command_line.main(["drawn", "train", "--output", str(tmp_path)])
