"""What every reader says of what it cannot mean: ``tests/data/bad_inputs.jsonl``, a case in each line, and each is run.

A line has ``reader`` (a function below, by its name), ``given`` (what it reads), and ``says`` (a part of the message). DEEP in
it stands for what is nested five thousand times, and LONG for a name of three hundred letters.
"""

from __future__ import annotations

import argparse
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import published
import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save, save_file

from dynamicid_core import checkpoints
from dynamicid_core.blending import blend_faces, parse_weights
from dynamicid_core.checkpoints import convert, load_motion, load_saa
from dynamicid_core.command_line import main, models
from dynamicid_core.command_line.settings import PersonSettings, Settings
from dynamicid_core.evaluation.cases import read_cases
from dynamicid_core.evaluation.results import read_run
from dynamicid_core.face_files import FACE_FORMAT, FACE_VERSION, load_face
from dynamicid_core.files import read_tensors
from dynamicid_core.layouts import parse_boxes
from dynamicid_core.outlines import outlined
from dynamicid_core.pictures import read_mask, to_rgb
from dynamicid_core.training.settings_file import load_settings
from dynamicid_core.types import DynamicIDError, Face, SAAOptions

TABLE = Path(__file__).resolve().parents[1] / "data" / "bad_inputs.jsonl"
LINES = TABLE.read_text(encoding="utf-8").replace("DEEP", "[" * 5000).replace("LONG", "x" * 300).splitlines()
ROWS = [json.loads(line) for line in LINES]
LONGEST = 700  # characters that fit a node's error box, besides names of files
# What Python says of values that code did not expect; no message for users has it.
RAW = ("Traceback", "object has no attribute", "NoneType", "invalid literal", "could not convert", "unhashable", "argument must be",
       "not supported between", "unexpected keyword", "list index", "not subscriptable", "RecursionError")  # fmt: skip

READERS: dict[str, Callable[[Any], object]] = {}


def reader(function: Callable[[Any], object]) -> Callable[[Any], object]:
    READERS[function.__name__] = function
    return function


# --- Files ----------------------------------------------------------------------------------------------------------


def changed(tensors: dict[str, torch.Tensor], changes: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Tensors with changes by name: null leaves one out; ``fill`` sets all values, ``tail`` the last so many, to zero; ``one``
    sets the first; ``shape`` and ``dtype`` make another."""
    made = dict(tensors)
    for name, change in changes.items():
        tensor = made.pop(name, torch.ones(1))
        if change is None:
            continue
        tensor = torch.ones(change["shape"]) if "shape" in change else tensor.clone()
        if "fill" in change:
            tensor.fill_(float(change["fill"]))
        if "one" in change:
            tensor.view(-1)[0] = float(change["one"])
        if "tail" in change:
            tensor.view(-1)[-change["tail"] :] = 0
        made[name] = tensor.to(getattr(torch, change.get("dtype", "float32")))
    return made


@reader
def face(given: dict[str, Any]) -> object:
    """A face file with changed tensors or metadata, or with these bytes."""
    path = Path("anna.safetensors")
    if "bytes" in given:
        path.write_bytes(bytes_of(given["bytes"], save({"tokens": torch.ones(1, 4, 768)})))
        return load_face(path)
    identity, landmarks = torch.zeros(512), torch.rand(106, 2)
    identity[0] = 1
    whole = {"tokens": torch.ones(1, 4, 768), "uncond_tokens": torch.ones(1, 4, 768), "identity": identity, "landmarks": landmarks,
             "pose": torch.zeros(3)}  # fmt: skip
    metadata = {"format": FACE_FORMAT, "version": FACE_VERSION, "encoder": "abc", **given.get("metadata", {})}
    save_file(changed(whole, given.get("tensors", {})), path, {n: v for n, v in metadata.items() if v is not None})
    return load_face(path)


@reader
def checkpoint(given: dict[str, Any]) -> object:
    """An SAA or IMR file with changed tensors or metadata, or with these bytes; ``convert`` refuses it too."""
    part = given["part"]
    tensors = published.small_saa() if part == "saa" else published.small_imr()
    path = Path(f"{part}{given.get('ending', '.safetensors')}")
    if "bytes" in given:
        path.write_bytes(bytes_of(given["bytes"], save(tensors)))
    elif path.suffix == ".bin":
        torch.save(changed(tensors, given["tensors"]), path)
    else:
        save_file(changed(tensors, given.get("tensors", {})), path, given.get("metadata"))
    with pytest.raises(DynamicIDError):
        convert([path], "converted")
    assert not Path("converted").exists()
    return (load_saa if part == "saa" else load_motion)(path)


def bytes_of(how: dict[str, Any], whole: bytes) -> bytes:
    """The first ``first`` or all but the last ``without`` bytes of a file; or a text, its beginning, or numbers."""
    if "text" in how:
        return how["text"].encode()
    if "times" in how:
        return how["of"].encode("latin-1") * how["times"]
    return whole[: how["first"]] if "first" in how else whole[: -how["without"]]


@reader
def pickle(given: str) -> object:
    """A pickle of a thing that is more than plain tensors, or less."""
    things = {
        "code": lambda: {"a": argparse.Namespace(b=1)},
        "function": lambda: {"a": os.getcwd},
        "numpy": lambda: {"a": np.ones(2)},
        "tower": lambda: _tower(),
        "vast": lambda: {"x": torch.ones(1).expand(10**6, 10**6)},
    }
    torch.save(things[given](), "a.bin")
    return read_tensors("a.bin")


def _tower() -> dict:
    tower: dict = {"a": torch.ones(1)}
    for _ in range(14):
        tower = dict.fromkeys("abcdefgh", tower)
    return tower


# --- Pictures -------------------------------------------------------------------------------------------------------


def picture_file(given: dict[str, Any]) -> Path:
    path = Path(given.get("name", "a.png"))
    kind = given["kind"]
    if kind == "text":
        path.write_text(given.get("text", "no picture"))
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path) if hasattr(os, "mkfifo") else path.mkdir()
    elif kind == "picture":
        color = given.get("color", 0)
        color = tuple(color) if isinstance(color, list) else float(color) if isinstance(color, str) else color
        Image.new(given.get("mode", "RGB"), given.get("size", [64, 64]), color).save(path)
    elif kind == "cut":
        Image.effect_noise((64, 64), 90).save(path)
        path.write_bytes(path.read_bytes()[: given["bytes"]])
    elif kind == "bomb":  # a header that claims more pixels than any photo has
        chunks = (b"IHDR" + b"\0\1\0\0" * 2 + b"\x08\x02\0\0\0", b"IDAT" + zlib.compress(bytes(99)), b"IEND")
        sized = ((len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") for chunk in chunks)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(sized))
    return path


@reader
def photo(given: dict[str, Any]) -> object:
    if "array" in given:
        array = np.full(given["array"], float(given.get("fill", 0)))
        return to_rgb(array.astype(given.get("dtype", "float32")))
    return to_rgb(picture_file(given))


@reader
def mask(given: dict[str, Any]) -> object:
    """A mask as ``--mask`` takes it: what can be read must show something."""
    from dynamicid_core.types import Region

    return Region(mask=read_mask(picture_file(given)))


# --- Text -----------------------------------------------------------------------------------------------------------


@reader
def boxes(given: str) -> object:
    return parse_boxes(given)


@reader
def outline(given: str) -> object:
    """Outlines as a cast takes them: what they enclose must be something."""
    from dynamicid_core.types import Region

    return Region(mask=outlined(given))


@reader
def blend(given: list[Any]) -> object:
    weights, mode = given
    faces = [Face(torch.ones(1, 4, 8), torch.ones(1, 4, 8), "x") for _ in range(2)]
    return blend_faces(faces, parse_weights(weights), mode)


@reader
def mix(given: list[Any]) -> object:
    return Face(torch.ones(1, 8, 8), torch.ones(1, 8, 8), "x", mix=tuple(map(float, given)))


@reader
def acting(given: dict[str, Any]) -> object:
    return SAAOptions(**{name: float(value) if name != "outside" else value for name, value in given.items()})


@reader
def training(given: Any) -> object:
    """A configuration, as TOML, or changes as they are typed."""
    if isinstance(given, list):
        return load_settings(None, given)
    Path("run.toml").write_text(given, encoding="utf-8")
    return load_settings(Path("run.toml"))


@reader
def asked(given: list[Any]) -> object:
    """A list for ``evaluate``: the name and what is in it."""
    name, text = given
    Path(name).write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return read_cases(Path(name))


@reader
def results(given: Any) -> object:
    Path("results.json").write_text(given if isinstance(given, str) else json.dumps(given), encoding="utf-8")
    return read_run(Path("results.json"))


# --- Commands -------------------------------------------------------------------------------------------------------


@reader
def command(given: Any) -> object:
    """A command as it is typed, in a folder with a photo and an empty folder; ``files`` are more. No model is loaded."""
    words = given if isinstance(given, list) else given["words"]
    for name, text in ({} if isinstance(given, list) else given["files"]).items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
    return typed(words)


def typed(words: list[str]) -> object:
    Image.new("RGB", (64, 64)).save("anna.png")
    Path("nothing").mkdir(exist_ok=True)
    code = main(words)
    assert code == 1
    return None


SETTINGS = json.loads(Settings(people=(PersonSettings(("anna.png",)),), seed=1).to_json())


@reader
def remembered(given: Any) -> object:
    """A picture whose settings somebody changed: by a dotted name and a value, to a text, or in its PNG."""
    information = PngImagePlugin.PngInfo()
    if isinstance(given, list):
        values: Any = json.loads(json.dumps(SETTINGS))
        for name, value in zip(given[::2], given[1::2], strict=True):
            *sections, last = name.split(".")
            place = values
            for section in sections:
                place = place[int(section) if section.isdecimal() else section]
            place[last] = value
        information.add_itxt("dynamicid", json.dumps(values))
    elif "text" in given:
        information.add_itxt("dynamicid", given["text"] * given.get("times", 1))
    elif "bomb" in given:
        information.add_itxt("dynamicid", " " * given["bomb"], zip=True)
    elif "file" in given:
        Path("cafe.png").write_bytes(given["file"].encode("latin-1"))
    if isinstance(given, list) or "file" not in given:
        Image.new("RGB", (64, 64)).save("cafe.png", pnginfo=information)
    return typed(["generate", "--from", "cafe.png", "--quiet"])


# --- The table ------------------------------------------------------------------------------------------------------


def name_of(row: dict[str, Any]) -> str:
    return f"{row['reader']} {json.dumps(row['given'])}"[:70]


@pytest.fixture
def somewhere(tmp_path, monkeypatch) -> Path:
    """An empty current folder, without models; whoever loads one fails."""
    monkeypatch.chdir(tmp_path)
    for name in ("DYNAMICID_MODELS", "COMFYUI_PATH"):
        monkeypatch.delenv(name, raising=False)
    for place, name in ((models, "load_pipeline"), (models, "load_detector"), (checkpoints, "load_saa")):
        monkeypatch.setattr(place, name, lambda *_, **__: pytest.fail("models were loaded"))
    return tmp_path


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_what_nobody_can_mean_is_a_sentence(row, somewhere, capsys):
    message = said(row, capsys).replace(f"{somewhere}{os.sep}", "")
    assert row["says"] in message, message
    assert not [raw for raw in RAW if raw in message], message
    assert len(message) < LONGEST and "\n" not in message.strip(), message


def said(row: dict[str, Any], capsys) -> str:
    """What a reader says of a row: the text of its error, or of the command's on stderr."""
    try:
        READERS[row["reader"]](row["given"])
    except DynamicIDError as error:
        return str(error)
    except SystemExit as stop:  # wrong usage, as argparse says it
        assert stop.code == 2
        return capsys.readouterr().err.splitlines()[-1]
    except argparse.ArgumentTypeError as error:
        return str(error)
    out, err = capsys.readouterr()
    assert out == "", out
    return err.splitlines()[-1]


def test_the_table_is_large_and_has_no_case_twice():
    assert len(ROWS) >= 200
    assert {row["reader"] for row in ROWS} == set(READERS)
    cases = [json.dumps([row["reader"], row["given"]], sort_keys=True) for row in ROWS]
    assert sorted(cases) == sorted(set(cases))
    assert all(row.keys() == {"reader", "given", "says"} and len(row["says"]) > 8 for row in ROWS)
