"""Prompts x people x seeds: the pictures that `evaluate` makes before it judges them, with stand-in models."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from evaluating import failure, run
from standins import pipeline as standins
from standins.portraits import draw_portrait

from dynamicid_core.command_line import models, parser
from dynamicid_core.command_line.samples import samples
from dynamicid_core.command_line.settings import read_png
from dynamicid_core.evaluation.results import read_run
from dynamicid_core.origins import Origin
from dynamicid_core.saving import write_safetensors

pytest.importorskip("diffusers")
pytest.importorskip("insightface")


@pytest.fixture(scope="module")
def made_once():
    return functools.cache(standins.make_dynamicid), functools.cache(standins.make_detector)


@pytest.fixture
def stand_ins(tmp_path, monkeypatch, made_once):
    """A folder with photos of two people, and stand-in models, made once for all tests; the maker counts its calls."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("anna", "ben")):
        draw_portrait(number, 128).save(f"{name}.png")
    calls = []
    parts = SimpleNamespace(drawn_dynamicid=lambda: calls.append(1) or made_once[0](), detector=made_once[1])
    monkeypatch.setattr(models, "stand_ins", lambda: parts)
    pipe = made_once[0]().pipe
    monkeypatch.setattr(pipe, "scheduler", pipe.scheduler)
    return calls


def test_prompts_times_people_are_made_once_and_judged(stand_ins, capsys):
    Path("faces").mkdir()
    for name in ("anna", "ben"):
        Path(f"{name}.png").rename(f"faces/{name}.png")
    Path("prompts.jsonl").write_text(
        '{"prompt": "{people} at a cafe"}\n'
        '{"id": "sad", "prompt": "a duel", "people": ["ben", "anna"], "expressions": ["sad"],'
        ' "boxes": ["0,0,0.5,1", "0.5,0,1,1"]}\n'
    )
    words = ["--prompts", "prompts.jsonl", "--people", "faces", "--together", 1, 2, "--seeds", 4, 5, "--baseline"]
    words += ["--stand-in", "--size", 64, "--steps", 1, "--recognisers", "drawn", "-o", "out", "--json"]
    code, out, err = run(capsys, *words)
    assert code == 0, err
    # each alone and both together at the cafe, and one duel, with two seeds each
    assert json.loads(out)["pictures"] == 8 and len(stand_ins) == 1
    names = {path.stem for path in Path("out/pictures").iterdir()}
    assert names == {f"{who}-{seed}" for who in ("1-anna", "1-ben", "1-anna-ben", "sad-ben-anna") for seed in (4, 5)}
    assert len(list(Path("out/baselines").iterdir())) == 6  # one person, two people, a duel; two seeds
    duel = read_png(Path("out/pictures/sad-ben-anna-5.png"))
    assert (
        duel.seed == 5
        and [p.expression for p in duel.people] == ["the expression is sad"] * 2
        and duel.people[1].box == (0.5, 0, 1, 1)
    )
    assert read_png(Path("out/pictures/1-anna-ben-4.png")).prompt == "two people at a cafe"
    judged = read_run(Path("out"))
    assert {p.asked for p in judged.pictures} == {1, 2} and all(
        p.values["outside"] > 0 for p in judged.pictures if not p.people[0].box
    )

    Path("out/pictures/1-anna-ben-4.png").unlink()
    before = {path: path.stat().st_mtime_ns for path in Path("out/pictures").iterdir()}
    assert run(capsys, *words)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before  # only what lacked was made
    assert read_run(Path("out")) == judged  # ... as it had been
    draw_portrait(5, 128).save(
        "faces/anna.png"
    )  # another photo under the same name: no picture tells, the folder knows
    assert run(capsys, *words)[0] == 0
    made = {path.stem for path in before if path.stat().st_mtime_ns != before[path]}
    assert {name for name in names if "anna" in name} - {"1-anna-ben-4"} == made
    assert b"faces" not in Path("out/pictures/1-anna-4.png").read_bytes()


def test_prompts_that_cannot_be_made(stand_ins, capsys):
    Path("faces").mkdir()
    Path("anna.png").rename("faces/anna.png")
    Path("prompts.txt").write_text("# nothing but this\n\na cafe\n")
    common = ["--prompts", "prompts.txt", "--stand-in", "--recognisers", "drawn"]
    assert "needs --people" in failure(capsys, *common)
    message = failure(capsys, *common, "--people", "faces", "--together", 2)
    assert message == "Prompt 1 of prompts.txt: 2 people are asked for, and the folder holds 1."
    Path("prompts.txt").rename("prompts.csv")
    Path("prompts.csv").write_text("prompt,people\na cafe,anna; zoe\n")
    assert "nobody called zoe" in failure(capsys, "--prompts", "prompts.csv", "--people", "faces", *common[2:])
    assert stand_ins == []


@pytest.mark.parametrize("base, side", [("Stable Diffusion XL", 1024), ("Stable Diffusion 1.5", 768)])
def test_pictures_have_the_size_of_the_weights_base(stand_ins, base, side):
    write_safetensors(Path("saa.safetensors"), {"any": torch.zeros(1)}, Origin(base=base).to_metadata())
    Path("faces").mkdir()
    Path("anna.png").rename("faces/anna.png")
    Path("prompts.txt").write_text("a cafe\n")
    words = ["evaluate", "--prompts", "prompts.txt", "--people", "faces", "--saa", "saa.safetensors"]
    (sample,) = samples(parser().parse_args(words))
    assert (sample.settings.width, sample.settings.height) == (side, side)
    (sample,) = samples(parser().parse_args([*words, "--size", "512"]))
    assert sample.settings.width == 512
