"""The command line as a user types it: a few times as a process, else in this one."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from standins import pipeline as standins
from standins.drawn import write_drawn_weights
from standins.dynamicid import published_pickles
from standins.portraits import draw_portrait

from dynamicid_core import files
from dynamicid_core.checkpoints import load_saa
from dynamicid_core.command_line import main, models, parser, world
from dynamicid_core.command_line.generate import settings_of
from dynamicid_core.command_line.settings import PersonSettings, RefineSettings, Settings, read_png, write_png
from dynamicid_core.face_files import load_face, save_face
from dynamicid_core.files import read_tensors
from dynamicid_core.refining import RefineOptions
from dynamicid_core.types import DynamicIDError, Face, SAAOptions

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--size", "64", "--steps", "2", "--quiet"]

pytest.importorskip("diffusers")
pytest.importorskip("insightface")


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory) -> dict[str, Path]:
    """Model files."""
    return standins.write_files(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def made_once():
    """Random stand-ins in the place of the drawn world's networks, each made once."""
    return SimpleNamespace(
        saa=functools.cache(lambda: load_saa(standins.saa_tensors())),
        clip_vision=functools.cache(standins.make_clip_vision),
        detector=functools.cache(standins.make_detector),
        drawn_dynamicid=functools.cache(standins.make_dynamicid),
    )


@pytest.fixture
def folder(tmp_path, monkeypatch, made_once) -> Path:
    """An empty current folder with two photos, and no models anywhere; stand-ins are made once for all tests."""
    monkeypatch.setattr(models, "stand_ins", lambda: made_once)
    pipe = made_once.drawn_dynamicid().pipe
    monkeypatch.setattr(pipe, "scheduler", pipe.scheduler)  # whichever a test puts there, this one comes back
    monkeypatch.chdir(tmp_path)
    for name in ("DYNAMICID_MODELS", "COMFYUI_PATH"):
        monkeypatch.delenv(name, raising=False)
    draw_portrait(0).save("anna.png")
    draw_portrait(1).save("ben.jpg")
    return tmp_path


def type_in(*words, **variables) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-m", "dynamicid_core", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, encoding="utf-8")


def run(capsys, *words) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def failure(capsys, *words) -> str:
    """The line that a mistake prints."""
    code, out, err = run(capsys, *words)
    assert code == 1 and out == ""
    *_, line = err.splitlines()
    assert line.startswith("error: ")
    return line


# --- as processes -------------------------------------------------------------------------------------------------


def test_main_job_offline(folder):
    """What the README's main command does without ComfyUI: three pictures, from nothing."""
    weights = str(write_drawn_weights(folder / "weights"))
    words = ("generate", "--stand-in", "--explain", "-o", "out/two.png", "--seed", 5, "--steps", 2)
    done = type_in(*words, DYNAMICID_DRAWN_WEIGHTS=weights)
    assert done.returncode == 0, done.stderr
    assert "two drawn people" in done.stderr and "2/2" in done.stderr  # progress
    pictures = [folder / "out" / f"two{end}.png" for end in ("", "_regions", "_activation")]
    assert done.stdout.splitlines() == [*(f"saved {p.relative_to(folder)}" for p in pictures), "seed 5"]
    assert [Image.open(p).size for p in pictures] == [(768, 512), (768, 512), (2304, 512)]
    assert read_png(pictures[0]).width == 192, "enlarged four times"


def test_errors_are_one_line_and_stdout_is_json(folder, capsys):
    done = type_in("convert", "nothing.bin", "--json")
    error = "There is no file nothing.bin. Expected one of SAA.bin, IMR.bin, key_point_encoder.bin."
    assert (done.returncode, done.stderr) == (1, f"error: {error}\n")
    assert json.loads(done.stdout) == {"error": error}
    code, out, err = run(capsys, "encode", "nobody.jpg", "--stand-in", "--json")
    assert code == 1 and "Traceback" not in err
    assert err.splitlines()[-1] == "error: There is no photo nobody.jpg. Check the name and the folder."
    assert json.loads(out) == {"error": "There is no photo nobody.jpg. Check the name and the folder."}
    code, out, _ = run(capsys, "encode", "anna.png", "--stand-in", "--json")
    assert code == 0 and json.loads(out)["written"][0]["face"] == "anna.safetensors"


def test_wrong_usage(capsys):
    for words in ([], ["paint"], ["encode"], ["convert"], ["generate", "--size", "big"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        out, err = capsys.readouterr()
        assert "usage:" in err and out == ""


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in ("convert", "encode", "generate", "download"))


# --- encode -------------------------------------------------------------------------------------------------------


def test_encode(folder, capsys):
    assert run(capsys, "encode", "anna.png", "--stand-in")[0] == 0
    assert run(capsys, "encode", "anna.png", "ben.jpg", "--stand-in", "-o", "both.safetensors")[0] == 0
    assert run(capsys, "encode", "--each", "anna.png", "ben.jpg", "--stand-in", "-o", "faces")[0] == 0
    anna, both, ben = (load_face(p) for p in ("anna.safetensors", "both.safetensors", "faces/ben.safetensors"))
    torch.testing.assert_close(both.tokens, (anna.tokens + ben.tokens) / 2)
    assert torch.equal(load_face("faces/anna.safetensors").tokens, anna.tokens)
    assert len(list(Path("faces").iterdir())) == 2


def test_encode_finds_models_where_artists_have_them(folder, stand_ins, capsys, monkeypatch):
    for source, place in (("saa", "dynamicid"), ("clip_vision", "clip_vision"), ("detector", "insightface/models")):
        target = folder / "models" / place
        target.mkdir(parents=True)
        name = {"clip_vision": "CLIP-ViT-H-14", "detector": "buffalo_l", "saa": "saa.safetensors"}[source]
        (target / name).symlink_to(stand_ins[source], target_is_directory=stand_ins[source].is_dir())
    monkeypatch.setenv("HOME", str(folder))
    assert run(capsys, "encode", "anna.png", "--device", "cpu")[0] == 0
    from_folder = load_face("anna.safetensors")
    Path("models").rename("elsewhere")
    assert "Looked in" in failure(capsys, "encode", "anna.png", "--device", "cpu")
    assert (
        run(capsys, "encode", "anna.png", "--device", "cpu", "--models", "elsewhere", "-o", "again.safetensors")[0] == 0
    )
    assert torch.equal(load_face("again.safetensors").tokens, from_folder.tokens)


def test_encode_mistakes(folder, capsys):
    Image.new("RGB", (200, 200), (90, 90, 90)).save("empty.png")
    assert "No face was found in the photo. " in failure(capsys, "encode", "empty.png", "--stand-in")
    assert not Path("empty.safetensors").exists()
    Path("text.jpg").write_text("no picture")
    assert "cannot be read" in failure(capsys, "encode", "text.jpg", "--stand-in")
    assert "Several photos would become" in failure(capsys, "encode", "--each", "anna.png", "x/anna.jpg", "-o", "f")
    code, _, err = run(capsys, "encode", "anna.png", "empty.png", "--stand-in", "--on-no-face", "skip photo")
    assert code == 0 and "photo 2" in err
    assert "python -m dynamicid_core download" in failure(capsys, "encode", "anna.png", "--device", "cpu")
    assert "--device warp" in failure(capsys, "encode", "anna.png", "--device", "warp")


# --- generate -----------------------------------------------------------------------------------------------------


def test_generate_from_model_files_and_again_from_the_picture(folder, stand_ins, capsys):
    names = {
        "--model": "model",
        "--saa": "saa",
        "--imr": "imr",
        "--clip-vision": "clip_vision",
        "--detector": "detector",
    }
    given = [word for flag, name in names.items() for word in (flag, stand_ins[name])]
    assert run(capsys, "encode", "ben.jpg", *given[2:4], *given[6:], "--device", "cpu")[0] == 0
    Image.fromarray((np.arange(64, dtype=np.uint8) * 4)[None].repeat(64, 0)).save("right.png")
    people = [
        "--face", "anna.png", "--box", "0,0.1,0.5,1", "--expression", "a very surprised expression, front view", "--name", "A",
        "--face", "ben.safetensors", "--mask", "right.png", "--weight", "0.8",
    ]  # fmt: skip
    words = [*people, *given, *SMALL, "--seed", 7, "--prompt", "zwei L\u00f6wen", "--cfg", 3, "--layout-end", 0.5]
    code, out, _ = run(capsys, "generate", *words, "--sampler", "euler", "--device", "cpu", "-o", "one.png", "--json")
    assert code == 0
    settings = json.loads(out)["settings"]
    assert settings["prompt"] == "zwei L\u00f6wen" and settings["options"]["layout_end"] == 0.5
    assert settings["people"][1]["weight"] == 0.8 and len(settings["checksums"]) == 3
    picture = Image.open("one.png")
    assert json.loads(picture.info["dynamicid"])["seed"] == 7
    assert run(capsys, "generate", "--from", "one.png", "-o", "two.png", "--quiet", "--device", "cpu")[0] == 0
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()
    assert (
        run(capsys, "generate", "--from", "two.png", "--seed", 8, "-o", "three.png", "--quiet", "--device", "cpu")[0]
        == 0
    )
    assert (np.asarray(Image.open("three.png")) != np.asarray(picture)).any()
    assert read_png(Path("three.png")).people == read_png(Path("one.png")).people
    draw_portrait(2).save("anna.png")
    code, _, err = run(capsys, "generate", "--from", "one.png", "-o", "four.png", "--quiet", "--device", "cpu")
    assert code == 0 and "anna.png has changed" in err
    Path("right.png").unlink()
    assert "right.png" in failure(capsys, "generate", "--from", "one.png", "--device", "cpu")


def test_every_setting_reaches_the_picture(folder, capsys):
    """Each of these makes another picture than without it; the same twice makes the same."""

    def picture(*words) -> bytes:
        words = [*people, "--stand-in", *SMALL, "--seed", "1", "--layout-end", "0.9", *words]
        assert run(capsys, "generate", *words)[0] == 0
        return np.asarray(Image.open("dynamicid.png")).tobytes()

    assert run(capsys, "encode", "ben.jpg", "--stand-in")[0] == 0
    people = ["--face", "ben.safetensors", "--box", "0.5,0,1,1", "--face", "anna.png", "--box", "0,0,0.5,1"]
    plain = picture()
    assert picture() == plain
    changed = {
        words: picture(*words)
        for words in (
            ("--weight", "0.5"), ("--expression", "a happy expression"), ("--prompt", "a lake"), ("--negative", "trees"),
            ("--cfg", "2"), ("--steps", "3"), ("--seed", "2"), ("--sampler", "heun"), ("--face-weight", "0.5"),
            ("--start-at", "0.7"), ("--end-at", "0.6"), ("--layout-strength", "0"), ("--gate-threshold", "0.6"),
            ("--lora-strength", "0"), ("--crop-factor", "1.2"),
        )
    }  # fmt: skip
    assert [words for words, made in changed.items() if made == plain] == []
    assert len(set(changed.values())) == len(changed)


def test_without_boxes_people_stand_side_by_side(folder, capsys):
    assert run(capsys, "generate", "anna.png", "ben.jpg", "--stand-in", *SMALL, "--seed", 1)[0] == 0
    strips = np.asarray(Image.open("dynamicid.png"))
    boxed = ["--face", "anna.png", "--box", "0,0,0.5,1", "--face", "ben.jpg", "--box", "0.5,0,1,1"]
    assert run(capsys, "generate", *boxed, "--stand-in", *SMALL, "--seed", 1)[0] == 0
    assert (np.asarray(Image.open("dynamicid.png")) == strips).all()


def test_drawn_people_are_shown_only_where_asked(folder, capsys):
    assert "Missing: a Stable Diffusion 1.5 model" in failure(capsys, "generate", "anna.png", "--device", "cpu")
    code, out, err = run(capsys, "generate", "--stand-in", *SMALL)
    assert code == 0 and "drawn world" in err and "two drawn people" in err
    assert out.startswith("saved dynamicid.png\nseed ")
    kept = read_png(Path("dynamicid.png"))
    assert kept.people == () and kept.prompt.startswith("a drawing of two people")
    assert Image.open("dynamicid.png").size == (512, 512), "64 px, enlarged"


def test_a_given_picture_is_refined_and_refined_again_from_its_settings(folder, capsys):
    draw_portrait(0, 128).save("finished.png")
    words = ["--face", "anna.png", "--name", "Anna", "--picture", "finished.png", "--stand-in", "--quiet", "--seed", 4]
    quick = ["--refine-steps", 1, "--refine-size", 64, "--refine-denoise", 0.3, "--refine-padding", 0.2]
    code, out, _ = run(capsys, "generate", *words, *quick, "-o", "one.png", "--json")
    assert code == 0
    made = json.loads(out)
    assert made["settings"]["picture"] == "finished.png" and set(made["settings"]["checksums"]) == {
        "anna.png",
        "finished.png",
    }
    assert made["settings"]["refine"]["options"]["denoise"] == 0.3
    (anna,) = made["refined"]
    assert anna["name"] == "1 Anna" and anna["before"] > 0.9 and anna["tries"] == 1
    assert made["report"].startswith(f"1 Anna: {anna['before']:.2f} before, ")
    before, after = (np.asarray(Image.open(name).resize((128, 128))) for name in ("finished.png", "one.png"))
    assert (np.abs(before[:, :8].astype(int) - after[:, :8]) < 40).all(), "enlarged, but as it was"
    assert run(capsys, "generate", "--from", "one.png", "-o", "two.png", "--quiet")[0] == 0
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()
    assert "finished.png, which is not there; give it anew with --picture" in _without(capsys, "finished.png")


def _without(capsys, name: str) -> str:
    Path(name).unlink()
    return failure(capsys, "generate", "--from", "one.png", "--quiet")


def test_a_new_picture_gets_a_second_pass_where_asked_for(folder, capsys):
    code, out, _ = run(capsys, "generate", "anna.png", "--stand-in", *SMALL, "--refine", "--seed", 1)
    assert code == 0 and "1 anna: " in out
    kept = read_png(Path("dynamicid.png"))
    assert kept.refine == world.refine_defaults() and kept.refine.options.size == 128
    assert (
        run(capsys, "generate", "--from", "dynamicid.png", "--no-refine", "--quiet", "-o", "plain.png")[1].count("\n")
        == 2
    )
    assert read_png(Path("plain.png")).refine is None
    typed = parser().parse_args(
        ["generate", "anna.png", "--mend", "--refine-which", "unlike", "--refine-prompt", "a face"]
    )
    asked = settings_of(typed).refine
    assert asked.options == RefineOptions(mend=True, which="unlike") and (asked.prompt, asked.steps) == ("a face", 20)
    assert settings_of(parser().parse_args(["generate", "anna.png"])).refine is None


def test_generate_mistakes(folder, capsys, stand_ins):
    def mistake(*words) -> str:
        return failure(capsys, "generate", "--stand-in", *words)

    assert "no file nobody.png (person 2)" in mistake("anna.png", "nobody.png")
    assert "a box and a mask" in mistake("--face", "anna.png", "--box", "0,0,1,1", "--mask", "ben.jpg")
    assert "multiple of 8" in mistake("anna.png", "--size", "100x64")
    assert "--cfg 0.5" in mistake("anna.png", "--cfg", "0.5")
    assert "--steps 0" in mistake("anna.png", "--steps", "0")
    assert "layout_end is 2.0" in mistake("anna.png", "--layout-end", "2")
    assert "1 face was found" in mistake("anna.png", "--index", "4", *SMALL)
    save_face("ben.safetensors", Face(torch.zeros(1, 4, 768), torch.zeros(1, 4, 768), "test"))
    assert "one face file or several photos" in mistake("--face", "ben.safetensors", "anna.png", *SMALL)
    blank = mistake("--face", "ben.safetensors", "--expression", "happy", *SMALL)
    assert blank.endswith(
        "ben has no landmarks, so its expression cannot be edited. Encode a photo in which the face is visible."
    )
    assert "no DynamicID settings" in mistake("--from", "anna.png")
    assert "cannot be read as a picture" in mistake("--from", "gone.png")
    assert "--picture: there is no file gone.png" in mistake("anna.png", "--picture", "gone.png")
    assert "tries is 0; it must lie between 1 and 100" in mistake("anna.png", "--refine-tries", "0")
    assert "--refine-steps 0" in mistake("anna.png", "--refine-steps", "0")
    Image.new("L", (8, 8)).save("black.png")
    assert "mask is empty" in mistake("--face", "anna.png", "--mask", "black.png", *SMALL)
    other = ["--saa", stand_ins["imr"], "--clip-vision", stand_ins["clip_vision"], "--model", stand_ins["model"]]
    other += ["--detector", stand_ins["detector"], "--device", "cpu"]
    assert "is a DynamicID IMR file" in failure(capsys, "generate", "anna.png", *other)
    for words in (["--box", "0,0,1,1"], ["--face", "anna.png", "--box", "0.5,0,0.2,1"], ["anna.png", "--sampler", "x"]):
        with pytest.raises(SystemExit) as stop:
            main(["generate", *words])
        assert stop.value.code == 2


def test_broken_model_folder_is_named(folder, stand_ins, capsys):
    Path("model").mkdir()
    given = ["--saa", stand_ins["saa"], "--clip-vision", stand_ins["clip_vision"], "--detector", stand_ins["detector"]]
    assert "The model model cannot be loaded" in failure(capsys, "generate", "anna.png", "--model", "model", *given)
    single = ["--model", stand_ins["saa"], "--config", stand_ins["model"]]
    assert "saa.safetensors cannot be loaded" in failure(capsys, "generate", "anna.png", *single, *given)


def test_settings_survive_the_png(tmp_path):
    settings = Settings(
        prompt="caf\u00e9 \u4eba",
        people=(PersonSettings(("a.png", "b.png"), (0.0, 0.1, 0.5, 1.0), None, 0.5, "Anna", 1, "happy", 0.7, "c.png"),),
        options=SAAOptions(weight=0.5, outside="nobody"),
        photos={"order": "left-right"},
        picture="b.png",
        refine=RefineSettings("a face", 7, RefineOptions(which="small", mend=True)),
        checksums={"a.png": "00"},
        seed=2**40,
    )
    path = write_png(tmp_path / "x" / "a.png", Image.new("RGB", (8, 8)), settings)
    assert read_png(path) == settings
    for text in ("[]", "{}", "nonsense", settings.to_json().replace('"version": 1', '"version": 99')):
        with pytest.raises(DynamicIDError, match="cannot be read"):
            Settings.from_json(text)


def test_defaults_are_the_published_settings():
    settings = settings_of(parser().parse_args(["generate"]))
    assert (settings.width, settings.height, settings.steps, settings.cfg, settings.sampler) == (
        768,
        768,
        50,
        5.0,
        "ddim",
    )
    assert settings.options == SAAOptions()
    assert settings.seed != settings_of(parser().parse_args(["generate"])).seed


def test_face_files_of_another_encoder_are_noted(folder, capsys):
    face = Face(torch.randn(1, 4, 768), torch.randn(1, 4, 768), "0123456789abcdef")
    save_face("other.safetensors", face)
    code, _, err = run(capsys, "generate", "other.safetensors", "--stand-in", *SMALL)
    assert code == 0 and "0123456789ab" in err


# --- convert and download -----------------------------------------------------------------------------------------


def test_convert(tmp_path, capsys):
    published = published_pickles(tmp_path / "published")
    code, out, _ = run(capsys, "convert", published["SAA.bin"], published["IMR.bin"], "-o", tmp_path / "out", "--json")
    written = [Path(path) for path in json.loads(out)["written"]]
    assert code == 0 and [path.name for path in written] == ["saa.safetensors", "imr.safetensors"]
    pickled, converted = read_tensors(published["SAA.bin"]), read_tensors(written[0])
    assert pickled.keys() == converted.keys()
    assert all(torch.equal(pickled[name], converted[name]) for name in pickled)
    (tmp_path / "x.bin").write_bytes(b"")
    assert "empty" in failure(capsys, "convert", tmp_path / "x.bin")


def test_download(tmp_path, capsys, monkeypatch):
    """The hub is not asked here; what the command makes of its answers is."""
    monkeypatch.setattr(files, "download", lambda folder: list(published_pickles(folder).values()))
    code, out, _ = run(capsys, "download", tmp_path / "weights", "--convert")
    assert code == 0 and len(out.splitlines()) == 5
    assert (tmp_path / "weights" / "imr.safetensors").is_file()

    def unreachable(folder):
        raise DynamicIDError("The weights could not be fetched (no network).")

    monkeypatch.setattr(files, "download", unreachable)
    assert "could not be fetched" in failure(capsys, "download", tmp_path / "weights")


def test_missing_packages_are_named(folder, capsys, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "diffusers" else find(name, *a))
    assert "pip install" in failure(capsys, "generate", "anna.png", "--stand-in")


def test_interrupted(folder, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "load_photo_encoder", interrupt)
    assert run(capsys, "encode", "anna.png") == (130, "", "interrupted\n")
