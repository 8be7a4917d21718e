"""Readers on input that nobody thought of: whatever comes, they read it or say a sentence, and raise nothing else.

The same few examples each time, about ten seconds in all; ``DYNAMICID_FUZZ=60`` takes sixty times as many, others in each run,
which is ten minutes.
"""

from __future__ import annotations

import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import published
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from dynamicid_core.checkpoints import load_motion, load_saa
from dynamicid_core.command_line.settings import PersonSettings, RefineSettings, Settings, read_png, write_png
from dynamicid_core.evaluation.cases import parse_box, read_cases
from dynamicid_core.evaluation.results import Run, read_run
from dynamicid_core.face_files import load_face, save_face
from dynamicid_core.files import read_tensors
from dynamicid_core.layouts import parse_boxes
from dynamicid_core.outlines import outlined
from dynamicid_core.pictures import read_mask, to_rgb
from dynamicid_core.plain import LONGEST, build, one_line
from dynamicid_core.saving import SETTINGS_KEY
from dynamicid_core.training.settings_file import load_settings
from dynamicid_core.types import LARGEST, DynamicIDError, Face, SAAOptions

TIMES = int(os.environ.get("DYNAMICID_FUZZ", "1"))
LETTERS = st.text(st.characters(codec="utf-8"), max_size=20)
FOLDER = Path(tempfile.mkdtemp(prefix="dynamicid-any-"))


def examples(count: int) -> Callable[[Callable], Callable]:
    return settings(
        max_examples=count * TIMES,
        deadline=None,
        derandomize=TIMES == 1,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


def read_or_said(read: Callable[[Any], Any], what: Any) -> Any:
    """What was read, None where a sentence was said instead. Any other error is the test's failure."""
    try:
        return read(what)
    except DynamicIDError as error:
        assert str(error)
        return None


def setup_module() -> None:
    os.chdir(FOLDER)


# --- What may come --------------------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | LETTERS
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(LETTERS, inner, max_size=4), max_leaves=8
)
NUMBERS = st.floats().map(repr) | st.sampled_from(["0", "1", ".5", "nan", "inf", "-0", "1e400", "", "x", "0x1"])


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with bytes changed, left out, put in, or broken off; most often in its first part, which says what it is."""
    made = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        most = len(made) if draw(st.booleans()) else min(len(made), 300)
        place = draw(st.integers(0, max(most - 1, 0)))
        how = draw(st.sampled_from(["change", "cut", "drop", "insert", "zeros"]))
        if how == "change" and made:
            made[place] = draw(st.integers(0, 255))
        elif how == "cut":
            del made[place:]
        elif how == "drop":
            del made[place : place + draw(st.integers(1, 40))]
        elif how == "insert":
            made[place:place] = draw(st.binary(max_size=20))
        else:
            made[place:] = bytes(len(made) - place)
    return bytes(made)


def paths_of(value: Any, so_far: tuple = ()) -> Iterator[tuple]:
    """Every place in plain JSON."""
    yield so_far
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from paths_of(inner, (*so_far, key))


@st.composite
def changed(draw: st.DrawFn, whole: Any) -> Any:
    """Plain JSON with other values in a few places, or with one more."""
    value = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(paths_of(value))))
        if not path:
            continue
        place = value
        for key in path[:-1]:
            place = place[key]
        key = path[-1]
        if isinstance(place, dict) and draw(st.booleans()):
            key = draw(LETTERS)
        place[key] = draw(JSON)
    return value


# --- Files ----------------------------------------------------------------------------------------------------------


def face_bytes() -> bytes:
    identity = torch.nn.functional.normalize(torch.ones(512), dim=0)
    face = Face(
        torch.ones(1, 4, 8),
        torch.ones(1, 4, 8),
        "abc",
        identity,
        torch.rand(106, 2),
        torch.zeros(3),
        expression="happy",
    )
    return save_face(FOLDER / "whole.safetensors", face).read_bytes()


FACE = face_bytes()
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        name: st.tuples(
            st.lists(st.integers(0, 5), max_size=4) | st.sampled_from([[1, 4, 8], [512], [106, 2], [3]]),
            st.floats(width=32) | st.sampled_from([0.0, 1.0, 3e38, 512**-0.5]),
            st.sampled_from(
                [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.float8_e4m3fn]
            ),
        )
        for name in ("tokens", "uncond_tokens", "identity", "landmarks", "pose", "portrait", "else")
    },
)


def check_face(face: Face | None) -> None:
    if face is not None:
        numbers = [(getattr(face, name), most) for name, most in LARGEST.items()]
        assert all(value is None or bool((value.abs() <= most).all()) for value, most in numbers)
        assert face.name == one_line(face.name) and all(abs(factor) <= 10 for factor in face.mix)


@examples(300)
@given(damaged(FACE) | st.binary(max_size=200))
def test_face_files_of_any_bytes(data: bytes) -> None:
    path = FOLDER / "any.safetensors"
    path.write_bytes(data)
    check_face(read_or_said(load_face, path))


@examples(200)
@given(
    TENSORS,
    st.dictionaries(
        st.sampled_from(["mix", "encoder", "expression", "recogniser", "version"]), LETTERS | JSON.map(json.dumps)
    ),
)
def test_face_files_of_any_tensors_and_metadata(tensors, metadata) -> None:
    path = FOLDER / "any.safetensors"
    made = {}
    for name, (shape, value, dtype) in tensors.items():
        value = value if dtype.is_floating_point else min(abs(value), 9) if math.isfinite(value) else 0
        made[name] = torch.full(shape, value).to(dtype)
    path.write_bytes(save(made, {"format": "dynamicid-face", "version": "1", **metadata}))
    check_face(read_or_said(load_face, path))


def pickled(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


SAA, IMR = save(published.small_saa()), save(published.small_imr(), {"base": "{}"})
PICKLE = pickled({"proj_module": published.tensors(published.SMALL_PROJ)})


@examples(80)
@given(damaged(SAA) | damaged(IMR), st.sampled_from([load_saa, load_motion]))
def test_checkpoints_of_any_bytes(data: bytes, load) -> None:
    path = FOLDER / "any.safetensors"
    path.write_bytes(data)
    made = read_or_said(load, path)
    if made is not None and load is load_saa:
        assert all(torch.isfinite(weight.float()).all() for weight in made.saa.parameters())


@examples(100)
@given(damaged(PICKLE) | st.binary(max_size=100).map(lambda data: b"\x80\x02" + data))
def test_pickles_of_any_bytes(data: bytes) -> None:
    path = FOLDER / "any.bin"
    path.write_bytes(data)
    read_or_said(read_tensors, path)


@st.composite
def wrong_tensors(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """An SAA file's tensors of which a few are other ones."""
    tensors = published.small_saa()
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(tensors)))
        shape = draw(st.sampled_from([tuple(tensors[name].shape)]) | st.lists(st.integers(0, 9), max_size=3).map(tuple))
        value = draw(st.floats(width=32))
        tensors[draw(st.sampled_from([name, name + "x"]))] = torch.full(shape, value)
    return tensors


@examples(60)
@given(wrong_tensors())
def test_checkpoints_of_any_tensors(tensors) -> None:
    read_or_said(load_saa, tensors)


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(20 * 20 * 3, dtype=np.uint8).reshape(20, 20, 3)).save(file, "PNG")
    return file.getvalue()


def other(kind: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (20, 20), 7 if mode != "RGB" else (1, 2, 3)).save(file, kind)
    return file.getvalue()


@examples(120)
@given(
    damaged(png())
    | damaged(other("JPEG"))
    | damaged(other("TIFF", "F"))
    | damaged(other("GIF", "L"))
    | damaged(other("BMP"))
)
def test_pictures_of_any_bytes(data: bytes) -> None:
    path = FOLDER / "any.png"
    path.write_bytes(data)
    photo, mask = read_or_said(to_rgb, path), read_or_said(read_mask, path)
    assert photo is None or photo.dtype == np.uint8
    assert mask is None or (mask.min() >= 0 and mask.max() <= 1)


# --- Text -----------------------------------------------------------------------------------------------------------


@examples(300)
@given(st.lists(NUMBERS, max_size=9).map(",".join) | st.text("0123456789.,; -e\nn", max_size=30) | LETTERS)
def test_boxes_of_any_text(text: str) -> None:
    for read in (parse_boxes, parse_box):
        found = read_or_said(read, text)
        boxes = [] if found is None else found if isinstance(found, list) else [found]
        assert all(0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1 for box in boxes)


@examples(100)
@given(st.lists(NUMBERS, max_size=9).map(",".join) | st.text("01.,; -e\nn", max_size=60) | LETTERS)
def test_outlines_of_any_text(text: str) -> None:
    mask = read_or_said(outlined, text)
    assert mask is None or (mask.min() >= 0 and mask.max() <= 1)


@examples(150)
@given(JSON)
def test_boxes_of_any_json(value) -> None:
    read_or_said(parse_box, value)


PEOPLE = (
    PersonSettings(("anna.png",), (0.0, 0.0, 0.5, 1.0), name="Anna"),
    PersonSettings(("ben.png",), mask="ben_mask.png"),
)
REMEMBERED = json.loads(
    Settings(
        people=PEOPLE,
        photos={"order": "left-right", "index": 1},
        models={"model": "x", "stand_in": True},
        picture="group.png",
        refine=RefineSettings("a face"),
    ).to_json()
)


@examples(300)
@given(changed(REMEMBERED).map(json.dumps) | JSON.map(json.dumps) | LETTERS)
def test_what_a_picture_remembers_in_any_json(text: str) -> None:
    found = read_or_said(Settings.from_json, text)
    assert found is None or Settings.from_json(found.to_json()) == found


REMEMBERING = write_png(FOLDER / "remembering.png", Image.new("RGB", (8, 8)), Settings(people=PEOPLE)).read_bytes()


@examples(150)
@given(damaged(REMEMBERING))
def test_what_a_picture_remembers_in_any_bytes(data: bytes) -> None:
    assert SETTINGS_KEY.encode() in REMEMBERING
    path = FOLDER / "any.png"
    path.write_bytes(data)
    read_or_said(read_png, path)


RUN = {
    "version": 1, "name": "a", "recognisers": ["r"], "gallery": 1, "tools": {"clip": "c"},
    "pictures": [{
        "id": "a", "picture": "a.png", "asked": 1, "prompt": "", "values": {"count": 1.0},
        "recognisers": {"r": {"values": {}, "faces": [{"box": [0, 0, 1, 1], "person": 0, "similarity": 0.5}],
                              "people": [{"name": "A", "face": 0, "similarity": 0.5}]}},
        "people": [{"name": "A", "photos": ["a.png"], "face": None}],
    }],
}  # fmt: skip


@examples(150)
@given(changed(RUN).map(json.dumps) | LETTERS)
def test_results_of_any_json(text: str) -> None:
    path = FOLDER / "results.json"
    path.write_text(text, encoding="utf-8")
    found = read_or_said(read_run, path)
    assert found is None or isinstance(found, Run)


ROW = {
    "picture": "any.png",
    "people": ["any.png", {"photos": ["any.png"], "box": [0, 0, 1, 1], "index": 0}],
    "prompt": "two",
}


@examples(150)
@given(
    changed(ROW).map(json.dumps) | LETTERS,
    st.sampled_from(["list.jsonl", "list.json", "list.csv", "list.toml", "list.txt"]),
)
def test_lists_of_any_text(text: str, name: str) -> None:
    (FOLDER / "any.png").touch()
    (FOLDER / name).write_text(text, encoding="utf-8")
    read_or_said(read_cases, FOLDER / name)


SETTING = st.sampled_from(
    ["anchor.steps", "anchor.learning_rate", "seed", "base.model", "anchor.validation.seeds", "reconfigure", "a.b"]
)


@examples(150)
@given(st.lists(st.tuples(SETTING | LETTERS, NUMBERS | JSON.map(json.dumps) | LETTERS).map("=".join), max_size=3))
def test_settings_of_training_of_any_text(changes: list[str]) -> None:
    read_or_said(lambda given: load_settings(None, given), changes)


@examples(200)
@given(JSON)
def test_options_of_any_json(value) -> None:
    found = read_or_said(lambda given: build(SAAOptions, given, "options"), value)
    assert found is None or abs(found.weight) <= 10


@examples(200)
@given(st.text(max_size=400))
def test_names_of_any_text_fit_one_line(text: str) -> None:
    line = one_line(text)
    assert line.isprintable() and len(line) <= LONGEST and one_line(line) == line
    line.encode()
