"""Training sets as a user makes them: what is printed, cells filled by a function, the report, mistakes explained."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import planted_photos
import pytest
from coded_faces import CodedFaces
from planted_photos import files

from dynamicid_core.command_line import main
from dynamicid_core.datasets.build import Means, build
from dynamicid_core.datasets.checks import REASONS
from dynamicid_core.datasets.fill import filled_sources
from dynamicid_core.datasets.manifest import Manifest
from dynamicid_core.datasets.settings import DetectorChoice, Settings, read_settings
from dynamicid_core.types import DynamicIDError

for package in ("pyarrow", "jinja2", "scipy"):
    pytest.importorskip(package)

DETECTOR = DetectorChoice(function="coded_faces:CodedFaces")
QUIET = Means(progress=False)
NAMED = ["--detector", "coded_faces:CodedFaces"]
ALLOWED = ["--allow", "coded_faces:CodedFaces"]  # since dataset.json names it


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Two people with a few photos each, one of them blurred; the current folder is the one that holds them."""
    planted_photos.plant_few(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def run(capsys, *words) -> tuple[int, str, str]:
    code = main(["dataset", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def failure(capsys, *words) -> str:
    code, out, err = run(capsys, *words)
    assert code == 1 and out == "" and err.splitlines()[-1].startswith("error: ")
    return err.splitlines()[-1]


# --- filling ------------------------------------------------------------------------------------------------------


def test_fill_makes_every_missing_cell_once(photos, capsys):
    assert run(capsys, "build", "photos", "-o", "set", *NAMED, "-q")[0] == 0
    code, out, _ = run(capsys, "fill", "set", *ALLOWED, "--with", "planted_photos:perfect", "-q", "--json")
    result = json.loads(out)
    assert code == 0 and (result["cells"], result["filled"], result["left_out"]) == (70, 62, {"blurred": 1})
    manifest = Manifest.read("set")
    made = [p for p in manifest.taken if p.collection == "filled"]
    assert {(p.person, p.expression, p.pose) for p in made} & {("anna", "neutral", "front view")} == set()
    assert all(p.caption.startswith("a photo of a person, the expression is") for p in made)
    assert manifest.open(made[0]).shape == (176, 160, 3)
    before = files(Path("set"))
    assert run(capsys, "fill", "set", *ALLOWED, "--with", "planted_photos:perfect", "-q")[0] == 0
    assert run(capsys, "build", "photos", "-o", "set", *NAMED, "-q")[0] == 0  # keeps what was filled
    after = files(Path("set"))
    assert after["manifest.parquet"] == before["manifest.parquet"] and after.keys() == before.keys()


def test_what_is_made_passes_the_same_checks(photos, capsys):
    assert run(capsys, "build", "photos", "-o", "set", *NAMED, "-q")[0] == 0
    assert run(capsys, "fill", "set", *ALLOWED, "--with", "planted_photos:mistaken", "-q")[0] == 0
    made = [p for p in Manifest.read("set").photos if p.collection == "filled"]
    wanted = {source.name: source.labels for source in filled_sources(Path("set"))}
    expected = {"happy": "other person", "sad": "wrong expression", "fear": "wrong pose", "disgust": "blurred"}
    for photo in made:
        asked = wanted[photo.source]
        assert photo.reason == (None if asked.pose == "front view" else expected[asked.expression]), photo.detail
    details = {p.reason: p.detail for p in made}
    assert details["wrong expression"] == "seen: anger; wanted: sad" and details["wrong pose"].startswith("seen: ")
    assert "looks like" in details["other person"] or "similarity" in details["other person"]
    assert len(made) < 62  # the function gave none for the others
    assert run(capsys, "fill", "set", *ALLOWED, "--with", "planted_photos:mistaken", "--attempts", 2, "-q")[0] == 0
    second = Manifest.read("set")
    assert {name: len({(p.expression, p.pose) for p in shown}) for name, shown in second.people().items()} == {
        "anna": 35, "ben": 35,
    }  # fmt: skip


def test_a_function_that_fails_loses_nothing(photos, capsys):
    assert run(capsys, "build", "photos", "-o", "set", *NAMED, "-q")[0] == 0
    said = failure(capsys, "fill", "set", *ALLOWED, "--with", "planted_photos:failing", "-q")
    assert "RuntimeError: out of memory" in said and "the same command continues" in said
    assert len(Manifest.read("set").taken) == 8


def test_functions_that_somebody_else_named_are_not_run(photos, capsys):
    """Not even imported, since a module runs when it is."""
    trap = photos.parent / "trap.py"
    trap.write_text("open('sprung', 'w')\ndef describe(photo, labels): return 'a person'\n")
    assert run(capsys, "build", "photos", "-o", "set", *NAMED, "-q")[0] == 0
    settings, found = read_settings("set")
    replace(settings, captioner=f"{trap}:describe").write(Path("set"), found)
    words = ["fill", "set", "--with", "planted_photos:perfect", "-q"]
    said = failure(capsys, *words)
    assert f"dataset.json names coded_faces:CodedFaces and {trap}:describe, which would be run." in said
    assert f"allow it: --allow coded_faces:CodedFaces --allow {trap}:describe" in said
    assert f"names {trap}:describe, which" in failure(capsys, *words, *ALLOWED)
    assert not Path("sprung").exists()
    assert run(capsys, *words, *ALLOWED, "--allow", "trap.py:describe")[0] == 0 and Path("sprung").exists()


# --- the report ---------------------------------------------------------------------------------------------------


def test_the_report_shows_every_reason_with_a_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planted_photos.plant_people(tmp_path / "photos")
    assert run(capsys, "build", "photos", "-o", "set", *NAMED, "-q")[0] == 0
    page = Path("set/report.html").read_text(encoding="utf-8")
    found = {p.reason for p in Manifest.read("set").photos if p.reason}
    assert found > {"blurred", "occluded", "two people", "other person"}
    for reason in found:
        part = re.search(rf"<h3>{reason}</h3>(.*?)</div>\s*</div>", page, re.DOTALL)[1]
        assert REASONS[reason].split("'")[0][:40] in part
        assert ("data:image/jpeg;base64," in part) == (reason != "unreadable"), reason
    assert "\u00c9lodie: \u540d?" in page and "D\u00f3ra B." in page and "similarity 0." in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # one file, nothing from elsewhere
    before = Path("set/report.html").read_bytes()
    Path("set/report.html").unlink()
    shutil.rmtree("photos")  # the set stands by itself
    assert run(capsys, "report", "set", "-q")[0] == 0
    assert Path("set/report.html").read_bytes() == before


# --- what a user types --------------------------------------------------------------------------------------------


def test_build_says_what_it_did(photos, capsys):
    code, out, err = run(capsys, "build", "photos", "--output", "set", *NAMED, "--quiet", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "folder": "set", "report": str(Path("set/report.html")), "photos": 9, "taken": 8, "filled": 0, "people": 2,
        "cells": 8, "left_out": {"blurred": 1},
    }  # fmt: skip
    code, out, err = run(capsys, "build", "photos", "--output", "set", *NAMED)
    assert out.splitlines()[:3] == ["8 of 9 photos taken, of 2 people", "8 of 70 cells covered", "left out: 1 blurred"]
    settings, _ = read_settings("set")
    assert settings == Settings((str(photos),), DETECTOR)


def test_help_of_actions(capsys):
    for words in (["dataset"], *(["dataset", action] for action in ("build", "fill", "report"))):
        with pytest.raises(SystemExit) as stop:
            main([*words, "--help"])
        out = capsys.readouterr().out
        assert stop.value.code == 0 and "examples:" in out and f"dynamicid_core {' '.join(words)} " in out
    with pytest.raises(SystemExit) as stop:
        main(["dataset"])
    assert stop.value.code == 2


def test_mistakes_are_explained(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))

    def mistake(*words, named=NAMED) -> str:
        return failure(capsys, "build", *words, *named, "-q")

    assert "nowhere. Check the name." in mistake("nowhere", "-o", "set")
    (tmp_path / "empty").mkdir()
    assert "No photo was found in" in mistake("empty", "-o", "set")
    assert "nobody knows whose they are" in mistake("photos/anna", "-o", "set")
    assert "is one photo" in mistake("photos/anna/0.png", "-o", "set")
    assert "lies in" in mistake("photos", "-o", "photos/set")
    assert "holds other things" in mistake("photos", "-o", str(tmp_path))
    (tmp_path / "file").write_text("")
    assert "file is a file" in mistake("photos", "-o", "file")
    assert "is no shard" in mistake("file", "-o", "set")
    assert "face model pack 'buffalo_l' was not found" in mistake("photos", "-o", "set", named=[])
    assert "there is no function Nobody" in mistake("photos", "-o", "set", named=["--detector", "coded_faces:Nobody"])
    assert "cannot be loaded" in mistake("photos", "-o", "set", named=["--detector", "no_module:f"])
    assert "score is 3.0; it must lie between 0 and 1" in mistake("photos", "-o", "set", "--score", 3)
    assert "--jobs is 0" in mistake("photos", "-o", "set", "--jobs", 0)
    assert "share of people for validation" in mistake("photos", "-o", "set", "--validation", 2)
    assert "may name {prompt}" in mistake("photos", "-o", "set", "--caption", "{name}")
    assert "None of the 9 photos can be taken (9 small); set" in mistake("photos", "-o", "set", "--smallest-face", 500)
    assert "small" in Path("set/report.html").read_text(encoding="utf-8")
    assert "There is no training set in photos" in failure(capsys, "report", "photos")
    assert "`dataset build` made" in failure(capsys, "fill", "photos", "--with", "x:y")
    assert "names no function" in failure(capsys, "fill", "set", *ALLOWED, "--with", "editor")


def test_a_detector_that_fails_names_the_photo(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(CodedFaces, "detect", lambda self, image: 1 / 0)
    with pytest.raises(DynamicIDError, match=r"failed on anna/0.png \(ZeroDivisionError"):
        build(tmp_path / "set", Settings((str(photos),), DETECTOR), QUIET)
