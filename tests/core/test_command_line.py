"""The command line as a user types it: a few times as a process, else in this one."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
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
from safetensors.torch import save_file
from standins import pipeline as standins
from standins.drawn import write_drawn_weights
from standins.dynamicid import published_pickles
from standins.portraits import draw_portrait

from dynamicid_core import fetching, saving
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
    assert all(f"  {name} " in out for name in ("convert", "encode", "edit", "generate", "download"))


# --- encode -------------------------------------------------------------------------------------------------------


def test_encode(folder, capsys):
    assert run(capsys, "encode", "anna.png", "--stand-in")[0] == 0
    assert run(capsys, "encode", "anna.png", "ben.jpg", "--stand-in", "-o", "both.safetensors")[0] == 0
    assert run(capsys, "encode", "--each", "anna.png", "ben.jpg", "--stand-in", "-o", "faces")[0] == 0
    anna, both, ben = (load_face(p) for p in ("anna.safetensors", "both.safetensors", "faces/ben.safetensors"))
    torch.testing.assert_close(both.tokens, (anna.tokens + ben.tokens) / 2)
    assert torch.equal(load_face("faces/anna.safetensors").tokens, anna.tokens)
    assert len(list(Path("faces").iterdir())) == 2


def group_picture(*numbers: int) -> Image.Image:
    """Portraits side by side."""
    portraits = [draw_portrait(number) for number in numbers]
    width, height = portraits[0].size
    picture = Image.new("RGB", (width * len(portraits), height))
    for place, portrait in enumerate(portraits):
        picture.paste(portrait, (place * width, 0))
    return picture


def test_everybody_in_a_photo_becomes_a_face_file(folder, capsys):
    group_picture(0, 1).save("group.png")
    code, out, _ = run(
        capsys, "encode", "--group", "group.png", "--stand-in", "--names", "Anna, Ben/B.", "-o", "f", "--json"
    )
    anna, ben = json.loads(out)["written"]
    assert code == 0 and (anna["name"], ben["name"]) == ("Anna", "Ben/B.")
    assert [Path(one["face"]).name for one in (anna, ben)] == ["Anna.safetensors", "Ben_B.safetensors"]
    assert anna["box"][2] <= ben["box"][0] and anna["faces_found"] == [2]
    assert (
        run(
            capsys, "encode", "group.png", "--order", "left-right", "--index", 1, "--stand-in", "-o", "ben.safetensors"
        )[0]
        == 0
    )
    assert torch.equal(load_face("ben.safetensors").tokens, load_face(ben["face"]).tokens)
    code, out, err = run(capsys, "encode", "--group", "group.png", "--stand-in", "--names", "-")
    assert code == 0 and "2 faces were found, of which 1 is left out." in err
    assert out.startswith("wrote group 1.safetensors (--box ") and not Path("group 2.safetensors").exists()


def test_group_mistakes(folder, capsys):
    group_picture(0, 1).save("group.png")
    group = ("encode", "--group", "group.png", "--stand-in")
    assert "There are 2 people but 3 names" in failure(capsys, *group, "--names", "a,b,c")
    assert "Two people would become the file" in failure(capsys, *group, "--names", "anna,Anna")
    assert "--group takes one photo, not 2" in failure(capsys, *group[:3], "anna.png")
    assert "leave people out with - in --names" in failure(capsys, *group, "--index", 1)
    assert "give --group too" in failure(capsys, "encode", "anna.png", "--stand-in", "--names", "Anna")
    assert "There is no photo gone.png" in failure(capsys, "encode", "--group", "gone.png", "--stand-in")
    assert run_usage(capsys, *group, "--each") == 2


def run_usage(capsys, *words) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    capsys.readouterr()
    return ended.value.code


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


def test_one_bad_photo_does_not_end_the_others(folder, capsys):
    Image.new("RGB", (200, 200), (90, 90, 90)).save("empty.png")
    Path("text.jpg").write_text("no picture")
    Path("faces").mkdir()
    Path("faces/ben.safetensors").write_text("somebody's notes")
    photos = ["empty.png", "anna.png", "gone.png", "text.jpg", "ben.jpg", "."]
    code, out, err = run(capsys, "encode", "--each", *photos, "--stand-in", "-o", "faces", "--json")
    assert code == 1
    said = json.loads(out)
    assert [one["photos"] for one in said["written"]] == [["anna.png"]]
    assert {one["photo"] for one in said["failed"]} == {"empty.png", "gone.png", "text.jpg", "ben.jpg", "."}
    lines = err.splitlines()
    assert "error: No face was found in the photo (empty.png)." in err and "error: There is no photo gone.png." in err
    assert "error: ben.jpg: faces/ben.safetensors is there already and is not a face file" in err
    assert "error: . is a folder; name a photo in it." in lines and lines[-1] == "5 of 6 photos were not encoded."
    assert sorted(path.name for path in Path("faces").iterdir()) == ["anna.safetensors", "ben.safetensors"]
    assert Path("faces/ben.safetensors").read_text() == "somebody's notes"
    assert run(capsys, "encode", "--each", "anna.png", "--stand-in", "-o", "faces")[0] == 0, "face files are replaced"


def test_nothing_but_face_files_is_replaced(folder, capsys, monkeypatch):
    """What is no place for a face is said before models are loaded, and stays."""
    monkeypatch.setattr(models, "load_photo_encoder", lambda options: pytest.fail("models were loaded"))
    draw_portrait(0).save("mymodel.png")
    weights = saving.write_safetensors("mymodel.safetensors", {"decoder.x": torch.ones(3)}, {})
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert "mymodel.safetensors is there already and is not a face file" in failure(capsys, "encode", "mymodel.png")
    for output, said in (
        ("anna.png", "is one of the files that are read for this"),
        ("ben.jpg", "is not a face file"),
        (weights, "is not a face file"),
        (".", "is a folder"),
        ("ben.jpg/face.safetensors", "could not be written: Not a directory"),
        ("/dev/null", "a device"),
    ):
        assert said in failure(capsys, "encode", "anna.png", "-o", output)
    assert "could not be written" in failure(capsys, "encode", "--each", "anna.png", "ben.jpg", "-o", "anna.png")
    for photo in (".", "..", "/"):
        assert f"{photo} is a folder; name a photo in it." in failure(capsys, "encode", photo)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_no_picture_but_our_own_is_replaced(folder, capsys, monkeypatch):
    monkeypatch.setattr(models, "load_dynamicid", lambda *a, **k: pytest.fail("models were loaded"))
    write_png(Path("cafe.png"), draw_portrait(2, 64), Settings(people=(PersonSettings(("anna.png",)),)))
    draw_portrait(3).save("cafe_regions.png")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for words, said in (
        (["--face", "anna.png", "-o", "anna.png"], "anna.png is one of the files that are read for this"),
        (["--face", "anna.png", "--mask", "ben.jpg", "-o", "ben.jpg"], "ben.jpg is one of the files that are read"),
        (["anna.png", "-o", "ben.jpg"], "ben.jpg is there already and is not a picture that DynamicID made"),
        (["--from", "cafe.png", "-o", "cafe.png"], "cafe.png is one of the files that are read for this"),
        (["anna.png", "--explain", "-o", "cafe.png"], "cafe_regions.png is there already"),
        (["anna.png", "--picture", "ben.jpg", "-o", "ben.jpg"], "ben.jpg is one of the files that are read for this"),
        (["anna.png", "--picture", "none.png"], "There is no picture none.png"),
        (["anna.png", "--picture", "ben.jpg", "--no-refine"], "leave out --no-refine"),
        (["anna.png", "-o", "/dev/null"], "a device"),
        (["anna.png", "-o", "anna.png/x.png"], "could not be written: Not a directory"),
    ):
        assert said in failure(capsys, "generate", *words, "--stand-in")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_seeds_have_64_bits_and_numbers_are_numbers(folder, capsys, monkeypatch):
    monkeypatch.setattr(models, "load_dynamicid", lambda *a, **k: pytest.fail("models were loaded"))
    for seed in (2**64, -(2**63) - 1, 10**30):
        said = failure(capsys, "generate", "anna.png", "--stand-in", "--seed", seed)
        assert said == f"error: --seed {seed} is too large; it may have 64 bits."
    for factor in ("nan", "-1", "inf", "101"):
        for command in ("generate", "encode"):
            said = failure(capsys, command, "anna.png", "--stand-in", f"--crop-factor={factor}")
            assert "The crop factor is" in said and "0 for the whole photo" in said
    said = failure(capsys, "generate", "anna.png", "--stand-in", "--start-at", "0.8", "--end-at", "0.2")
    assert said == "error: start_at is 0.8 and end_at 0.2, so faces would never act; let start_at come first."
    said = failure(capsys, "generate", ".", "--stand-in")
    assert said == "error: . is a folder; name a file in it (person 1)."


def test_encode_mistakes(folder, capsys):
    Image.new("RGB", (200, 200), (90, 90, 90)).save("empty.png")
    assert "No face was found in the photo (empty.png). " in failure(capsys, "encode", "empty.png", "--stand-in")
    assert not Path("empty.safetensors").exists()
    Path("text.jpg").write_text("no picture")
    assert "cannot be read" in failure(capsys, "encode", "text.jpg", "--stand-in")
    assert "Several photos would become" in failure(capsys, "encode", "--each", "anna.png", "x/anna.jpg", "-o", "f")
    code, _, err = run(capsys, "encode", "anna.png", "empty.png", "--stand-in", "--on-no-face", "skip photo")
    assert code == 0 and "No face was found in photo 2 of 2 (empty.png): left out." in err
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
    assert settings["people"][1]["weight"] == 0.8 and settings["models"]["saa"] == str(stand_ins["saa"])
    picture = Image.open("one.png")
    assert json.loads(picture.info["dynamicid"])["seed"] == 7

    def again(*words) -> tuple[int, str, str]:
        return run(capsys, "generate", "--from", "one.png", *given, *words, "--quiet", "--device", "cpu")

    code, _, err = again("-o", "two.png")
    assert code == 0 and "The people of one.png: anna.png, ben" in err and "is made with" not in err
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()
    assert again("--seed", 8, "-o", "three.png")[0] == 0
    assert (np.asarray(Image.open("three.png")) != np.asarray(picture)).any()
    assert read_png(Path("three.png")).people == read_png(Path("one.png")).people
    other = stand_ins["saa"].with_name("other.safetensors")
    other.symlink_to(stand_ins["saa"])
    code, _, err = again("--saa", other, "-o", "four.png")
    assert code == 0 and "one.png was made with saa.safetensors, and is made with other.safetensors now" in err
    Path("right.png").unlink()
    assert "one.png was made with right.png, which is neither in this folder" in again()[2]


def test_a_picture_names_files_without_folders_and_holds_no_checksums(folder, capsys):
    """Pictures are passed on: whoever gets one learns neither where files lie nor, by comparing, what is in them."""
    (folder / "holiday").mkdir()
    for name in ("anna.png", "ben.jpg"):
        Path(name).rename(folder / "holiday" / name)
    draw_portrait(2).save("holiday/pose.png")
    Image.new("L", (64, 64), 255).save("holiday/mask.png")
    words = ["--face", folder / "holiday/anna.png", "--mask", folder / "holiday/mask.png", "--face", "holiday/ben.jpg"]
    assert run(capsys, "generate", *words, "--stand-in", *SMALL, "--seed", 3, "--explain")[0] == 0
    for name in ("dynamicid.png", "dynamicid_regions.png", "dynamicid_activation.png"):
        content = Path(name).read_bytes()
        sums = [hashlib.sha256(path.read_bytes()).hexdigest().encode() for path in (folder / "holiday").iterdir()]
        assert not any(told in content for told in (b"holiday", str(folder).encode(), *sums))
    kept = read_png(Path("dynamicid.png"))
    assert [person.files for person in kept.people] == [("anna.png",), ("ben.jpg",)]
    assert kept.people[0].mask == "mask.png" and kept.models == {"stand_in": True}

    again = ["generate", "--from", "dynamicid.png", "--stand-in", "-o", "again.png", "--quiet"]
    assert "made with anna.png, which is neither in this folder nor beside the picture. Name the folder" in failure(
        capsys, *again
    )
    assert run(capsys, *again, "--people", "holiday")[0] == 0
    assert run(capsys, *again, "--people", ".")[0] == 0, "in the folders there too"
    assert Path("again.png").read_bytes() == Path("dynamicid.png").read_bytes()
    draw_portrait(3).save("anna.png")
    assert "several of that name (anna.png, holiday/anna.png)" in failure(capsys, *again, "--people", ".")


def test_files_of_one_name_are_not_taken_for_each_other():
    people = tuple(PersonSettings((file,)) for file in ("anna/1.png", "ben/1.png", "anna/1.png", "2.png"))
    files = [person.files[0] for person in Settings(people=people).shared().people]
    assert files == ["1.png (1 of 2)", "1.png (2 of 2)", "1.png (1 of 2)", "2.png"]
    assert Settings(people=people).shared() == Settings(people=people).shared().shared()


def test_a_film_as_one_picture_that_is_animated(folder, capsys):
    moves = ["--face", "anna.png", "--keyframes", "0: as in the photo; 2: very happy", "--face", "ben.jpg"]
    words = ["generate", *moves, "--stand-in", *SMALL, "--seed", 3, "--fps", 4, "-o", "film.webp"]
    code, out, _ = run(capsys, *words, "--explain", "--json")
    assert code == 0 and json.loads(out)["picture"] == "film.webp" and "activation" not in json.loads(out)
    with Image.open("film.webp") as film:
        assert (film.format, film.n_frames, film.info["loop"]) == ("WEBP", 3, 0)
        frames = []
        for number in range(3):
            film.seek(number)
            frames.append(np.asarray(film.convert("RGB"), dtype=int))
            assert film.info["duration"] == 250
    assert np.abs(frames[0] - frames[2]).max() > 3
    first = ["generate", "anna.png", "ben.jpg", "--stand-in", *SMALL, "--seed", 3, "-o", "first.png"]
    assert run(capsys, *first)[0] == 0  # with faces that do not move
    with Image.open("first.png") as picture:
        assert np.array_equal(np.asarray(picture.convert("RGB")), frames[0])
    assert run(capsys, "generate", "--from", "film.webp", "--stand-in", "--quiet", "-o", "again.webp")[0] == 0
    assert Path("again.webp").read_bytes() == Path("film.webp").read_bytes()
    assert run(capsys, *words, "--no-metadata")[0] == 0
    with Image.open("film.webp") as film:
        assert not film.getexif()
    assert "film.webp" in failure(capsys, *words)  # nothing says any more that it may be replaced


def test_a_film_as_numbered_pictures(folder, capsys):
    assert run(capsys, "encode", "anna.png", "--stand-in")[0] == 0
    driven = ["edit", "anna.safetensors", "--driving", "ben.jpg", "anna.png", "--stand-in", "-o", "film.safetensors"]
    code, out, _ = run(capsys, *driven, "--json")
    assert code == 0 and json.loads(out) == {"face": "film.safetensors", "frames": 2}
    words = ["generate", "film.safetensors", "--stand-in", *SMALL, "--seed", 3, "-o", "film.png"]
    code, out, _ = run(capsys, *words, "--frames", 3)
    assert code == 0 and out.startswith("saved film_0000.png to film_0002.png\nseed 3")
    pictures = [Path(f"film_{number:04}.png").read_bytes() for number in range(3)]
    assert read_png(Path("film_0001.png")).frames == 3 and not Path("film.png").exists()
    assert pictures[0] != pictures[1] == pictures[2]
    Image.new("RGB", (8, 8)).save("film_0001.png")
    assert "film_0001.png" in failure(capsys, *words)  # somebody's picture; nothing is made
    assert Path("film_0000.png").read_bytes() == pictures[0]


def test_edit_writes_a_face_with_another_expression(folder, capsys):
    assert run(capsys, "encode", "anna.png", "--stand-in")[0] == 0
    before = load_face("anna.safetensors")
    words = ["edit", "anna.safetensors", "--stand-in", "-o", "new.safetensors"]
    code, out, _ = run(capsys, *words, "--expression", "very surprised", "--strength", 0.5)
    assert code == 0 and out == "wrote new.safetensors\n"
    half = load_face("new.safetensors")
    assert run(capsys, *words, "--keyframes", "0: very surprised; 9: neutral", "--easing", "linear")[0] == 0
    film = load_face("new.safetensors")
    assert film.frames == 10 and torch.equal(film.identity, before.identity)
    assert torch.allclose(torch.lerp(before.tokens[0], film.tokens[0], 0.5), half.tokens[0], atol=1e-5)

    assert "Nothing is asked for" in failure(capsys, *words)
    assert "give one kind" in failure(capsys, *words, "--keyframes", "0: happy", "--expression", "sad")
    assert "'happy' is no keyframe" in failure(capsys, *words, "--keyframes", "happy")
    assert "There is no picture gone.png" in failure(capsys, *words, "--driving", "gone.png")
    assert "moves already" in failure(
        capsys, "edit", "new.safetensors", "--expression", "sad", "--stand-in", "-o", "x.safetensors"
    )
    assert "anna.safetensors" in failure(capsys, *words[:-1], "anna.safetensors", "--expression", "sad")


def test_mistakes_about_films(folder, capsys):
    def said(*words: object) -> str:
        return failure(capsys, "generate", *words, "--stand-in", *SMALL)

    moves = ["--face", "anna.png", "--keyframes", "0: happy; 1: sad"]
    assert "--frames is 5000" in said("anna.png", "--frames", 5000)
    assert "--fps is 0.0" in said(*moves, "--fps", 0)
    assert "give one kind" in said(*moves, "--expression", "sad")
    assert "is one picture" in said(*moves, "--picture", "ben.jpg")


def test_without_metadata_there_is_none(folder, capsys):
    words = ["generate", "anna.png", "--stand-in", *SMALL, "--seed", 3, "--explain", "--no-metadata"]
    assert run(capsys, *words)[0] == 0
    for name in ("dynamicid.png", "dynamicid_regions.png", "dynamicid_activation.png"):
        with Image.open(name) as picture:
            assert not picture.info and not picture.getexif()
    assert "dynamicid.png is there already and is not a picture that DynamicID made" in failure(capsys, *words)
    assert run(capsys, *words[:-1], "-o", "told.png")[0] == 0
    assert (np.asarray(Image.open("told.png")) == np.asarray(Image.open("dynamicid.png"))).all()


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
    assert made["settings"]["picture"] == "finished.png"
    assert made["settings"]["refine"]["options"]["denoise"] == 0.3
    (anna,) = made["refined"]
    assert anna["name"] == "1 Anna" and anna["before"] > 0.9 and anna["tries"] == 1
    assert made["report"].startswith(f"1 Anna: {anna['before']:.2f} before, ")
    before, after = (np.asarray(Image.open(name).resize((128, 128))) for name in ("finished.png", "one.png"))
    assert (np.abs(before[:, :8].astype(int) - after[:, :8]) < 40).all(), "enlarged, but as it was"
    assert run(capsys, "generate", "--from", "one.png", "--stand-in", "-o", "two.png", "--quiet")[0] == 0
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()
    assert "finished.png, which is neither in this folder nor beside the picture" in _without(capsys, "finished.png")


def _without(capsys, name: str) -> str:
    Path(name).unlink()
    return failure(capsys, "generate", "--from", "one.png", "--stand-in", "--quiet")


def test_a_new_picture_gets_a_second_pass_where_asked_for(folder, capsys):
    code, out, _ = run(capsys, "generate", "anna.png", "--stand-in", *SMALL, "--refine", "--seed", 1)
    assert code == 0 and "1 anna: " in out
    kept = read_png(Path("dynamicid.png"))
    assert kept.refine == world.refine_defaults() and kept.refine.options.size == 128
    plain = run(
        capsys, "generate", "--from", "dynamicid.png", "--stand-in", "--no-refine", "--quiet", "-o", "plain.png"
    )
    assert plain[0] == 0 and plain[1].count("\n") == 2, plain
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
    save_face("ben.safetensors", Face(torch.ones(1, 4, 768), torch.ones(1, 4, 768), "test"))
    assert "one face file or several photos" in mistake("--face", "ben.safetensors", "anna.png", *SMALL)
    blank = mistake("--face", "ben.safetensors", "--expression", "happy", *SMALL)
    assert blank.endswith(
        "ben has no landmarks, so its expression cannot be edited. Encode a photo in which the face is visible."
    )
    assert "no DynamicID settings" in mistake("--from", "anna.png")
    assert "--from: There is no picture gone.png" in mistake("--from", "gone.png")
    assert "There is no picture gone.png" in mistake("anna.png", "--picture", "gone.png")
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
        models={"saa": "saa.safetensors", "stand_in": True},
        seed=2**40,
        picture="group.jpg",
        refine=RefineSettings("a face", 7, RefineOptions(which="unlike", tries=3, mend=True)),
    )
    path = write_png(tmp_path / "x" / "a.png", Image.new("RGB", (8, 8)), settings)
    assert read_png(path) == settings
    away = dataclasses.replace(settings, picture="/somewhere/group.jpg")
    assert Settings.from_json(away.to_json()) == settings and "somewhere" not in away.to_json()
    two = dataclasses.replace(settings, picture="/somewhere/a.png").shared()
    assert (two.picture, two.people[0].files[0]) == ("a.png (1 of 2)", "a.png (2 of 2)"), (
        "neither is taken for the other"
    )
    for old, new in (('"tries": 3', '"tries": 0'), ('"steps": 7', '"steps": "7"'), ('"mend": true', '"mend": 1')):
        assert old in settings.to_json()
        with pytest.raises(DynamicIDError, match="cannot be read"):
            Settings.from_json(settings.to_json().replace(old, new))
    older = (
        settings.to_json()
        .replace('"a.png"', '"/somewhere/a.png"')
        .replace('"prompt": "caf', '"checksums": {"a.png": "0"}, "prompt": "caf')
    )
    assert Settings.from_json(older) == settings, "what older pictures tell of folders is passed over"
    for text in ("[]", "{}", "nonsense", settings.to_json().replace('"version": 1', '"version": 99')):
        with pytest.raises(DynamicIDError, match="cannot be read"):
            Settings.from_json(text)


def test_a_picture_decides_numbers_and_words_alone(folder, stand_ins, capsys, tmp_path):
    """Models, options and places that somebody else's picture names are not taken; its files are looked for by bare names."""
    secret = tmp_path / "elsewhere" / "secret.png"
    secret.parent.mkdir()
    draw_portrait(3).save(secret)
    named = {name: str(stand_ins[name]) for name in ("model", "saa", "imr", "clip_vision", "detector")}

    def made(*files: str, **changed) -> list[str]:
        settings = Settings(people=(PersonSettings(files, **changed),), seed=5, models=named | {"stand_in": True})
        write_png(tmp_path / "theirs.png", Image.new("RGB", (8, 8)), settings)
        return ["generate", "--from", "theirs.png", *SMALL]

    assert "Missing: a Stable Diffusion 1.5 model" in failure(capsys, *made("anna.png"), "--device", "cpu")
    code, _, err = run(capsys, *made("anna.png"), "--stand-in", "-o", "mine.png")
    assert code == 0 and read_png(Path("mine.png")).models == {"stand_in": True}
    assert "theirs.png was made with model, saa.safetensors, imr.safetensors" in err
    assert str(stand_ins["saa"].parent) not in err and "The people of theirs.png: anna.png." in err
    for photos, changed in (
        ((str(secret),), {}),
        (("elsewhere/secret.png",), {}),
        (("anna.png",), {"pose_image": str(secret)}),
    ):
        message = failure(capsys, *made(*photos, **changed), "--stand-in")
        assert "secret.png, which is neither in this folder nor beside the picture" in message
    absolute = str((tmp_path / "other" / "anna.png").absolute())  # is not there, and one of that name is here
    assert run(capsys, *made(absolute), "--stand-in", "-o", "again.png")[0] == 0
    assert Path("again.png").read_bytes() == Path("mine.png").read_bytes()
    given = ["--face", str(secret)]  # who is typed is nobody's guess
    assert run(capsys, *made("gone.png"), *given, "--stand-in", "-o", "typed.png")[0] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e5m2, torch.float64], ids=str)
def test_encode_takes_weights_of_any_float_type(folder, stand_ins, capsys, dtype):
    tensors = {name: t.to(dtype) for name, t in read_tensors(stand_ins["saa"]).items()}
    save_file(tensors, "odd.safetensors")
    save_file({name: t.float() for name, t in tensors.items()}, "full.safetensors")
    others = ["--clip-vision", stand_ins["clip_vision"], "--detector", stand_ins["detector"], "--device", "cpu"]
    for kind in ("odd", "full"):
        assert (
            run(
                capsys, "encode", "anna.png", "--saa", f"{kind}.safetensors", *others, "-o", f"face_{kind}.safetensors"
            )[0]
            == 0
        )
    assert torch.equal(load_face("face_odd.safetensors").tokens, load_face("face_full.safetensors").tokens)


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
    before = written[0].read_bytes()
    assert "saa.safetensors is one of the files that are read for this" in failure(capsys, "convert", written[0])
    assert run(capsys, "convert", published["SAA.bin"], "-o", tmp_path / "out")[0] == 0, "its own kind is replaced"
    assert written[0].read_bytes() == before
    written[0].write_text("somebody's")
    assert "is not DynamicID weights" in failure(capsys, "convert", published["SAA.bin"], "-o", tmp_path / "out")
    assert written[0].read_text() == "somebody's"
    said = failure(capsys, "convert", tmp_path / "x.bin", "-o", written[0])
    assert "saa.safetensors is a file, not a folder" in said, "said before anything is read"


def test_download(tmp_path, capsys, monkeypatch):
    """The hub is not asked here; what the command makes of its answers is."""
    monkeypatch.setattr(fetching, "fetch_weights", lambda folder, _: list(published_pickles(folder).values()))
    code, out, _ = run(capsys, "download", tmp_path / "weights", "--convert")
    assert code == 0 and len(out.splitlines()) == 5
    assert (tmp_path / "weights" / "imr.safetensors").is_file()

    def unreachable(folder, _):
        raise DynamicIDError("The weights could not be fetched (no network).")

    monkeypatch.setattr(fetching, "fetch_weights", unreachable)
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
