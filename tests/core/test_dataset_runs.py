"""How training sets are made: again, interrupted, in processes, on Ray; and what is written."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import coded_faces
import numpy as np
import planted_photos
import pytest
from coded_faces import CodedFaces, portrait, save
from planted_photos import ANNA, BEN, files

from dynamicid_core.command_line import main
from dynamicid_core.datasets.analysis import Analyser, Analysis
from dynamicid_core.datasets.build import Means, build
from dynamicid_core.datasets.manifest import Manifest, Photo
from dynamicid_core.datasets.settings import DetectorChoice, Settings
from dynamicid_core.datasets.sources import list_sources
from dynamicid_core.datasets.store import Store
from dynamicid_core.datasets.workers import look_at_all
from dynamicid_core.types import DynamicIDError

for package in ("jinja2", "scipy"):
    pytest.importorskip(package)
pyarrow = pytest.importorskip("pyarrow")

ROOT = Path(__file__).resolve().parents[2]
PATHS = os.pathsep.join(str(ROOT / folder) for folder in (".", "tests/core", "devtools"))
DETECTOR = DetectorChoice(function="coded_faces:CodedFaces")
QUIET = Means(progress=False)
NAMED = ["--detector", "coded_faces:CodedFaces"]


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Two people with a few photos each, one of them blurred; the current folder is the one that holds them."""
    planted_photos.plant_few(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", PATHS)  # for processes that are started
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "photos"


@pytest.fixture
def looked(monkeypatch) -> list[int]:
    """Grows with every picture that the detector looks at."""
    seen: list[int] = []
    detect = CodedFaces.detect
    monkeypatch.setattr(CodedFaces, "detect", lambda self, image: (seen.append(1), detect(self, image))[1])
    return seen


def run(capsys, *words) -> tuple[int, str, str]:
    code = main(["dataset", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


# --- again, interrupted, in processes -----------------------------------------------------------------------------


def test_a_second_run_looks_at_nothing_and_changes_no_byte(photos, capsys, looked):
    words = ["build", "photos", "-o", "set", *NAMED, "-q"]
    assert run(capsys, *words)[0] == 0
    before, count = files(Path("set")), len(looked)
    assert count == 9
    changed = {path: path.stat().st_mtime_ns for path in Path("set/photos").rglob("*")}
    assert run(capsys, *words)[0] == 0
    assert files(Path("set")) == before and len(looked) == count
    assert {path: path.stat().st_mtime_ns for path in Path("set/photos").rglob("*")} == changed


def test_only_new_photos_are_looked_at(photos, tmp_path, looked):
    settings = Settings((str(photos),), DETECTOR)
    build(tmp_path / "set", settings, QUIET)
    looked.clear()
    save(portrait(BEN, "fear", 0, texture=9), photos / "ben/new.png")
    (photos / "ben/0.png").unlink()
    shutil.copytree(photos / "anna", photos / "annas")  # the same photos under another name are not looked at again
    manifest = build(tmp_path / "set", settings, QUIET)
    assert len(looked) == 1
    assert {p.source: p.reason for p in manifest.photos if p.person == "ben"} == {
        "ben/1.png": None, "ben/2.png": None, "ben/3.png": None, "ben/new.png": None,
    }  # fmt: skip
    assert {p.reason for p in manifest.photos if p.source.startswith("annas/")} == {"duplicate", "blurred"}
    assert files(tmp_path / "set").keys() >= {p.path for p in manifest.taken}
    assert len(list((tmp_path / "set/photos").rglob("*.png"))) == len(manifest.taken)
    fresh = build(tmp_path / "fresh", settings, QUIET)
    assert files(tmp_path / "set")["manifest.parquet"] == files(tmp_path / "fresh")["manifest.parquet"]
    assert len(fresh.photos) == len(manifest.photos)


def test_a_photo_that_was_changed_is_looked_at_again(photos, tmp_path, looked):
    settings = Settings((str(photos),), DETECTOR, copy=True)
    first = build(tmp_path / "set", settings, QUIET)
    looked.clear()
    save(portrait(ANNA, "disgust", 0, texture=60), photos / "anna/0.png")
    os.utime(photos / "anna/0.png", ns=(1, 10**18))
    second = build(tmp_path / "set", settings, QUIET)
    assert len(looked) == 1
    ids = [{p.source: p.id for p in m.photos}["anna/0.png"] for m in (first, second)]
    assert ids[0] != ids[1]
    assert {p.source: p.expression for p in second.photos}["anna/0.png"] == "disgust"


def test_a_killed_build_continues(photos, tmp_path, looked):
    """The process is killed while it looks at the photos, without a chance to tidy up."""
    slow = "import time, coded_faces\nclass Slow(coded_faces.CodedFaces):\n    def detect(self, image):\n"
    slow += "        time.sleep(0.5)\n        return super().detect(image)\n"
    (tmp_path / "slow.py").write_text(slow)
    settings = Settings((str(photos),), DetectorChoice(function=f"{tmp_path / 'slow.py'}:Slow"))
    command = [sys.executable, "-m", "dynamicid_core", "dataset", "build", "photos", "-o", "set", "-q"]
    command += ["--detector", "slow.py:Slow"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE)
    try:
        for _ in range(300):
            time.sleep(0.1)
            assert process.poll() is None, process.stderr.read()
            if (tmp_path / "set/seen.sqlite").is_file():
                with Store(tmp_path / "set") as store:
                    if 0 < len(store.seen(settings.analysis_key())) < 9:
                        break
        else:
            pytest.fail("nothing was kept while the build ran")
    finally:
        process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        process.wait()
        process.stderr.close()
    assert not (tmp_path / "set/manifest.parquet").exists()
    with Store(tmp_path / "set") as store:
        kept = len(store.seen(settings.analysis_key()))
    assert build(tmp_path / "set", settings, QUIET).people().keys() == {"anna", "ben"}
    assert 0 < kept < 9 and len(looked) == 9 - kept
    build(tmp_path / "whole", settings, QUIET)
    assert files(tmp_path / "set") == files(tmp_path / "whole")


def test_an_interruption_says_that_the_command_continues(photos, capsys, monkeypatch):
    detect, seen = CodedFaces.detect, []

    def interrupted(self, image):
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(1)
        return detect(self, image)

    monkeypatch.setattr(CodedFaces, "detect", interrupted)
    code, out, err = run(capsys, "build", "photos", "-o", "set", *NAMED, "-q")
    assert (code, out) == (130, "")
    assert err == "What was done is kept in set; the same command continues there.\ninterrupted\n"
    monkeypatch.setattr(CodedFaces, "detect", detect)
    with Store(Path("set")) as store:
        assert len(store.seen(Settings(("photos",), DETECTOR).analysis_key())) == 4
    assert run(capsys, "build", "photos", "-o", "set", *NAMED, "-q")[0] == 0


def test_two_processes_make_the_same_bytes_as_one(photos, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)  # processes get this path, and shall find the core of this tree
    save(portrait(BEN, "fear", 75, texture=20), photos / "ben/more.png")  # more than one chunk
    settings = Settings((str(photos),), DETECTOR)
    build(tmp_path / "one", settings, QUIET)
    build(tmp_path / "two", settings, Means(jobs=2, progress=False))
    assert files(tmp_path / "one") == files(tmp_path / "two")


class OneActor:
    """Ray Data's part that is used, in this process: rows in Arrow tables, one actor that came as a pickle."""

    def __init__(self, rows):
        self.rows = rows

    def from_items(self, items):
        return OneActor(items)

    def map_batches(self, kind, fn_constructor_args, batch_size, concurrency, batch_format):
        assert batch_format == "numpy" and concurrency == 3
        actor = pickle.loads(pickle.dumps(kind))(*pickle.loads(pickle.dumps(fn_constructor_args)))
        done = []
        for start in range(0, len(self.rows), batch_size):
            rows = pickle.loads(pickle.dumps(self.rows[start : start + batch_size]))
            batch = {name: np.array([row[name] for row in rows], dtype=object) for name in rows[0]}
            done += pyarrow.table(actor(batch)).to_pylist()
        return OneActor(done)

    def iter_rows(self):
        return iter(self.rows[::-1])


def test_ray_makes_the_same_analyses(photos, monkeypatch):
    """A real Ray takes a minute to start beside other tests; this holds what it is given and what it gives back."""
    started = []
    ray = types.ModuleType("ray")
    ray.data, ray.exceptions = OneActor([]), types.SimpleNamespace(RayError=RuntimeError)
    ray.is_initialized, ray.shutdown = lambda: False, lambda: started.append("shut down")
    ray.init = lambda address, **options: started.append((address, options["num_cpus"]))
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", ray.data)
    sources = list_sources([photos]).sources
    analyser = Settings((str(photos),), DETECTOR).analyser()
    here = {source.name: (photo, value) for source, photo, value in look_at_all(analyser, sources)}
    there = {source.name: (photo, value) for source, photo, value in look_at_all(analyser, sources, 3, "auto")}
    assert len(here) == 9 and there == here and started == [("auto", None), "shut down"]
    monkeypatch.setattr(OneActor, "iter_rows", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(look_at_all(analyser, sources, 3, ""))
    assert started[2:] == [(None, 4), "shut down"]
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DynamicIDError, match="comfyui-dynamicid\\[cluster\\]"):
        list(look_at_all(analyser, sources, 3, ""))


# --- analyses -----------------------------------------------------------------------------------------------------


def test_an_analysis_survives_as_bytes():
    content = planted_photos.png_bytes(ANNA, 3)
    seen = Analyser(CodedFaces).analyse(content)
    again = Analysis.from_bytes(seen.to_bytes())
    assert again.to_bytes() == seen.to_bytes() and again.angles == (3.0, 0.0, 1.0) and again.size == (176, 160)
    np.testing.assert_array_equal(again.identity, coded_faces.identity_vector(ANNA, 3))
    broken = Analysis.from_bytes(Analyser(CodedFaces).analyse(content[:500]).to_bytes())
    assert broken.problem and broken.landmarks is None and broken.angles is None


def test_a_manifest_says_what_it_was_told(tmp_path):
    landmarks, identity = np.random.default_rng(0).random((106, 2)).astype(np.float32), np.eye(512, dtype=np.float32)[3]
    full = Photo(
        "ab", "photos/a.png", "A", "fear", "front view", (1.5, -2.0, 0.0), landmarks, identity, (0.0, 0.25, 0.5, 1.0), (20, 10),
        "c", "drawn", "validation", None, "d", "s", 0.5,
    )  # fmt: skip
    path = Manifest((full, Photo("cd", "", "B", reason="no face")), "antelopev2 (bgr)").write(tmp_path)
    read = Manifest.read(tmp_path)
    assert (read.recogniser, len(read.taken)) == ("antelopev2 (bgr)", 1)
    for name in Photo.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(read.photos[0], name), getattr(full, name))
    assert read.photos[1].landmarks is None and read.photos[1].angles is None and read.photos[1].reason == "no face"
    before = path.read_bytes()
    read.write(tmp_path)
    assert path.read_bytes() == before
    for wrong in ({"expression": "joy"}, {"pose": ""}, {"collection": "web"}, {"split": "test"}, {"path": ""}):
        with pytest.raises(DynamicIDError):
            Manifest((Photo(**{**vars(full), **wrong}),)).write(tmp_path)
    path.write_bytes(b"x")
    with pytest.raises(DynamicIDError, match="cannot be read"):
        Manifest.read(tmp_path)
    with pytest.raises(DynamicIDError, match="no training set in"):
        Manifest.read(tmp_path.parent)
