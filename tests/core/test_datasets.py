"""Training sets from photos: every planted defect is found with its reason, nothing good is thrown out, nothing is lost."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import planted_photos
import pytest
from coded_faces import identity_vector, portrait, save
from PIL import Image
from planted_photos import ANNA, BEN

from dynamicid_core.datasets import analysis
from dynamicid_core.datasets.build import Means, build
from dynamicid_core.datasets.checks import REASONS, CheckOptions
from dynamicid_core.datasets.curation import wanted_likeness
from dynamicid_core.datasets.identity import find_merges, judge_folder
from dynamicid_core.datasets.labels import CELLS, FRONT, FULL_LEFT, pose_of, read_kdef_name, read_text
from dynamicid_core.datasets.manifest import Manifest, need_pyarrow
from dynamicid_core.datasets.settings import DetectorChoice, Settings
from dynamicid_core.datasets.storage import safe_names
from dynamicid_core.landmarks import EXPRESSIONS
from dynamicid_core.prompts import GRID_POSES, GRID_PROMPTS
from dynamicid_core.types import DynamicIDError

for package in ("pyarrow", "jinja2", "scipy"):
    pytest.importorskip(package)

DETECTOR = DetectorChoice(function="coded_faces:CodedFaces")
QUIET = Means(progress=False)


def settings_for(*sources: Path, **options) -> Settings:
    checks = {name: options.pop(name) for name in list(options) if name in CheckOptions.__dataclass_fields__}
    return Settings(tuple(map(str, sources)), DETECTOR, checks=CheckOptions(**checks), **options)


def reasons(manifest: Manifest) -> dict[str, str | None]:
    return {photo.source: photo.reason for photo in manifest.photos}


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> tuple[Path, dict]:
    root = tmp_path_factory.mktemp("photos")
    return root, planted_photos.plant_people(root)


@pytest.fixture(scope="module")
def built(planted, tmp_path_factory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("sets") / "people"
    return folder, build(folder, settings_for(planted[0]), QUIET)


@pytest.fixture
def small(tmp_path) -> Path:
    """Three people with some photos each."""
    for person, identity in (("anna", ANNA), ("ben", BEN), ("cleo", 0x71)):
        for n in range(3):
            save(portrait(identity, "neutral", (0, 30, -30)[n], texture=n), tmp_path / "photos" / person / f"{n}.png")
    return tmp_path / "photos"


# --- every defect -------------------------------------------------------------------------------------------------


def test_every_planted_defect_is_found_and_nothing_good_is_thrown_out(planted, built):
    folder, manifest = built
    assert reasons(manifest) == planted[1]
    assert {photo.reason for photo in manifest.photos if photo.reason} <= set(REASONS)
    assert Manifest.read(folder).people().keys() == {"anna", "ben", "con", "D\u00f3ra B.", "\u00c9lodie: \u540d?"}


def test_reasons_say_what_was_measured(built):
    details = {photo.source: photo.detail for photo in built[1].photos}
    assert re.fullmatch(r"sharpness \d+; wanted 60", details["anna/blurred.png"])
    assert details["anna/small.png"] == "48 px; wanted 80"
    assert details["anna/hand.png"] == "detector's confidence 0.30; wanted 0.6"
    assert details["anna/mask.png"].startswith("landmarks disagree by 0.")
    assert details["anna/edge.png"] == "42% of the face outside the photo"
    assert details["anna/with ben.png"].startswith("2 faces, the second has 6")
    assert details["ben/text.jpg"] == "no picture" and details["ben/cut.jpg"].startswith("damaged")
    assert details["ben/the same.png"] == "of ben/original.png"
    assert details["ben/original.png"].startswith("of ben/larger.jpg: ")
    assert "looks like anna (0." in details["dora/misfiled.png"]
    assert details["dora/stranger.png"].endswith("with 1 more of the same person")
    assert details["cleo/0.png"] == "4 and 4 photos of two people under one name"
    assert details["dora/0.png"] == "under the name dora"


def test_photos_taken_are_labelled_and_can_be_opened(planted, built):
    folder = built[0]
    manifest = Manifest.read(folder)
    photo = next(p for p in manifest.taken if p.source == "anna/fear 4.png")
    assert (photo.expression, photo.pose, photo.angles) == ("fear", "fully turned to the right", (3.0, 75.0, 1.0))
    assert photo.caption == "a photo of a person, the expression is afraid, the face is fully turned to the right"
    original = planted[0] / photo.source
    assert (manifest.open(photo) == np.asarray(Image.open(original))).all()
    assert photo.id == analysis.photo_id(original.read_bytes()) and photo.size == (176, 160)
    np.testing.assert_allclose(photo.box, (24 / 160, 30 / 176, 136 / 160, 142 / 176), atol=0.02)
    assert photo.landmarks.shape == (106, 2) and 0.2 < photo.landmarks.mean() < 0.8
    np.testing.assert_array_equal(photo.identity, identity_vector(ANNA, EXPRESSIONS.index("fear")))
    assert {(p.expression, p.pose) for p in manifest.people()["anna"]} == {(c.expression, c.pose) for c in CELLS}
    left_out = next(p for p in manifest.photos if p.reason == "blurred")
    with pytest.raises(DynamicIDError, match=r"anna/blurred.png was left out \(blurred\)"):
        manifest.open(left_out)
    assert {p.suffix for p in (folder / "photos").rglob("*.*")} == {".png", ".jpg"}  # by content, not by name


def test_names_of_files_are_allowed_everywhere(built):
    folder = built[0]
    names = {path.name for path in (folder / "photos").iterdir()}
    assert names == {"anna", "ben", "_con", "D\u00f3ra B", "\u00c9lodie_ \u540d_"}
    many = safe_names(["A", "a", "a/b", "a:b", "..", "nul.txt", "x" * 300, ""])
    assert len({name.casefold() for name in many.values()}) == 8
    for name in many.values():
        assert name and len(name) < 100 and not re.search(r'[<>:"/\\|?*]|[. ]$', name)


def test_photos_are_linked_or_copied_and_the_sources_stay(small, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    linked = build(tmp_path / "linked", settings_for(small), QUIET)
    copied = build(tmp_path / "copied", settings_for(small, copy=True), QUIET)
    assert all((tmp_path / "linked" / p.path).stat().st_nlink == 2 for p in linked.taken)
    assert all((tmp_path / "copied" / p.path).stat().st_nlink == 1 for p in copied.taken)
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


# --- layouts ------------------------------------------------------------------------------------------------------


def test_kdef(tmp_path):
    expected = planted_photos.plant_kdef(tmp_path / "photos")
    manifest = build(tmp_path / "set", settings_for(tmp_path / "photos", per_cell=2), QUIET)
    assert reasons(manifest) == expected
    people = manifest.people()
    assert {name: len(photos) for name, photos in people.items()} == {"KDEF F01": 42, "KDEF M02": 2}
    assert {(p.expression, p.pose) for p in people["KDEF F01"]} == {(c.expression, c.pose) for c in CELLS}
    labels = {Path(p.source).stem: (p.expression, p.pose, p.collection) for p in manifest.taken}
    assert labels["AF01ANFL"] == ("anger", FULL_LEFT, "kdef")
    assert labels["AM02HAHL"] == ("happy", "slightly turned to the left", "kdef")
    assert read_kdef_name("AF01XXS") is None and read_kdef_name("bm35suhr").person == "KDEF M35"


def test_published_layout(tmp_path):
    expected = planted_photos.plant_published(tmp_path / "photos")
    manifest = build(tmp_path / "set", settings_for(tmp_path / "photos"), QUIET)
    assert reasons(manifest) == expected
    first, second = manifest.people()["p0"]
    assert (first.expression, first.pose) == ("fear", FULL_LEFT)  # the prompt knows better than the detector
    assert first.caption == f"a photo of a person, {read_text_prompt('fear', FULL_LEFT)}"
    assert (second.expression, second.pose, second.caption) == ("happy", FRONT, "She laughs.")


def read_text_prompt(expression: str, pose: str) -> str:
    return next(cell.prompt for cell in CELLS if (cell.expression, cell.pose) == (expression, pose))


def test_shards(tmp_path):
    expected = planted_photos.plant_shards(tmp_path / "shards")
    manifest = build(tmp_path / "set", settings_for(tmp_path / "shards"), QUIET)
    assert reasons(manifest) == expected
    assert {name: len(photos) for name, photos in manifest.people().items()} == {"eva": 2, "finn": 2}
    assert [p.caption for p in manifest.people()["eva"]][1] == "Eva at sea"
    assert [p.expression for p in manifest.people()["finn"]] == ["neutral", "happy"]
    assert (manifest.open(manifest.taken[0]) == np.asarray(portrait(0x17, texture=0))).all()
    single = build(tmp_path / "one", settings_for(tmp_path / "shards" / "000.tar"), QUIET)
    assert single.people().keys() == {"eva", "finn"}


def test_shards_as_webdataset_writes_them(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for n in range(2):
            image = np.asarray(portrait(ANNA, texture=n))
            writer.write({"__key__": f"{n:04d}", "png": image, "json": {"person": "anna", "caption": "Anna."}})
    manifest = build(tmp_path / "set", settings_for(tmp_path / "a.tar"), QUIET)
    assert [(p.person, p.caption, p.reason) for p in manifest.photos] == [("anna", "Anna.", None)] * 2


def test_several_sources_become_one_set(small, tmp_path):
    planted_photos.plant_kdef(tmp_path / "KDEF")
    manifest = build(tmp_path / "set", settings_for(small, tmp_path / "KDEF", per_cell=1), QUIET)
    assert {p.collection for p in manifest.taken} == {"photos", "kdef"}
    assert {p.source.split("/")[0] for p in manifest.photos} == {"photos", "KDEF"}
    assert len(manifest.people()) == 5


def test_labels():
    assert [pose_of(yaw) for yaw in (-60, -20, 14.9, 20, 60)] == [
        GRID_POSES[0], GRID_POSES[2], GRID_POSES[4], GRID_POSES[3], GRID_POSES[1],
    ]  # fmt: skip
    assert {cell.prompt for cell in CELLS} == set(GRID_PROMPTS)
    for cell in CELLS:
        read = read_text(f" {cell.prompt.capitalize()}. \n")
        assert (read.expression, read.pose, read.caption) == (cell.expression, cell.pose, "")


# --- options ------------------------------------------------------------------------------------------------------


def test_options_decide_what_is_left_out(planted, built, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(built[0], folder)  # with what was seen
    loose = settings_for(
        planted[0], smallest_face=20, sharpness=0, score=0, disagreement=1, cut=1, rival=1, near_duplicate=-1,
        same_person=-1, same_people=1, split_folders=True, per_cell=99,
    )  # fmt: skip
    kinds = {reason for reason in reasons(build(folder, loose, QUIET)).values() if reason}
    assert kinds == {"unreadable", "no face", "no person", "duplicate"}
    split = reasons(build(folder, settings_for(planted[0], split_folders=True, merge=False), QUIET))
    assert not [name for name, reason in split.items() if reason == "two people"]
    people = Manifest.read(folder).people()
    assert {"cleo", "cleo (2)", "dora", "D\u00f3ra B."} <= set(people) and len(people["cleo (2)"]) == 4
    strict = build(folder, settings_for(planted[0], per_cell=1, per_person=10, fewest=5), QUIET)
    assert {name: len(photos) for name, photos in strict.people().items()} == {"anna": 10, "D\u00f3ra B.": 8}
    assert len({(p.expression, p.pose) for p in strict.people()["anna"]}) == 10
    assert {"cell full", "person full", "too few photos"} <= set(reasons(strict).values())
    assert {p.reason for p in strict.photos if p.person == "con"} == {"too few photos"}
    kept = {p.path for p in strict.taken}
    assert {p.relative_to(folder).as_posix() for p in (folder / "photos").rglob("*.*") if p.is_file()} == kept


def test_the_best_photo_of_a_cell_is_taken(tmp_path):
    for n, side in enumerate((90, 120, 100)):
        save(portrait(ANNA, "neutral", 0, texture=n, side=side), tmp_path / f"photos/anna/{n}.png")
    manifest = build(tmp_path / "set", settings_for(tmp_path / "photos", per_cell=1), QUIET)
    assert reasons(manifest) == {"anna/0.png": "cell full", "anna/1.png": None, "anna/2.png": "cell full"}


def test_validation_people_are_apart(small, tmp_path):
    manifest = build(tmp_path / "set", settings_for(small, validation=0.3), QUIET)
    train, validation = manifest.people("train"), manifest.people("validation")
    assert len(validation) == 1 and len(train) == 2 and not set(train) & set(validation)
    again = build(tmp_path / "again", settings_for(small, validation=0.3), QUIET)
    assert again.people("validation").keys() == validation.keys()
    none = build(tmp_path / "none", settings_for(small), QUIET)
    assert len(none.people("train")) == 3
    with pytest.raises(DynamicIDError, match="no part 'test'"):
        none.people("test")


def test_captions(small, tmp_path):
    (small / "anna" / "0.txt").write_text("Anna\n at home")
    options = {"caption": "{person}: {expression}, {pose}", "captioner": ""}
    manifest = build(tmp_path / "set", settings_for(small, **options), QUIET)
    assert [p.caption for p in manifest.people()["anna"]][:2] == [
        "Anna at home",
        "anna: neutral, slightly turned to the right",
    ]
    options["captioner"] = "planted_photos:drawn_caption"
    manifest = build(tmp_path / "set", settings_for(small, **options), QUIET)
    captions = [p.caption for p in manifest.people()["anna"]]
    assert captions[0] == "Anna at home" and captions[1].startswith("anna the expression is neutral, the face is sl")
    assert captions[1].endswith("160x176")
    with pytest.raises(DynamicIDError, match="cannot be filled in"):
        settings_for(small, caption="{name}")


def test_a_classifier_that_the_user_names(small, tmp_path):
    """HSEmotion's form: the brightest of eight stripes of the face says which class."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 3, 1, 1], [1.0, 1.0, 1.0])
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["grey"]),
        helper.make_node("AveragePool", ["grey"], ["bands"], kernel_shape=[28, 224], strides=[28, 224]),
        helper.make_node("Flatten", ["bands"], ["output"]),
    ]
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 224, 224])
    made = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 8])
    graph = helper.make_graph(nodes, "bands", [given], [made], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(tmp_path / "bands.onnx"))
    manifest = build(tmp_path / "set", settings_for(small, classifier=str(tmp_path / "bands.onnx")), QUIET)
    image = np.asarray(Image.open(small / "ben/1.png"), np.float64)[30:142, 24:136]
    light = ((image / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).sum(2).reshape(8, 14 * 112).mean(1)
    light[1] = -np.inf  # contempt is none of the seven
    names = ["anger", "", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
    read = next(p for p in manifest.photos if p.source == "ben/1.png").expression
    assert read == names[int(light.argmax())]
    with pytest.raises(DynamicIDError, match="has 8 outputs, which fit no known order"):
        build(tmp_path / "x", settings_for(small, classifier=str(tmp_path / "bands.onnx"), classes=("a", "b")), QUIET)
    (tmp_path / "broken.onnx").write_bytes(b"x")
    for name, said in (("none.onnx", "no classifier"), ("broken.onnx", "cannot be loaded")):
        with pytest.raises(DynamicIDError, match=said):
            build(tmp_path / "y", settings_for(small, classifier=str(tmp_path / name)), QUIET)


def test_a_profile_needs_less_likeness():
    options = CheckOptions(same_person=0.3)
    assert [wanted_likeness(pose, options) for pose in (FRONT, FULL_LEFT)] == [0.3, 0.2]
    assert wanted_likeness(FULL_LEFT, CheckOptions(same_person=-1)) == -1
    person, other = np.eye(8)[:2]
    profile = 0.25 * person + np.sqrt(1 - 0.25**2) * other
    rows = np.stack([person] * 4 + [profile])
    kept = [v.reason for v in judge_folder("anna", rows, np.array([0.3] * 4 + [0.2]))]
    left = [v.reason for v in judge_folder("anna", rows, np.full(5, 0.3))]
    assert kept == [""] * 5 and left == [""] * 4 + ["other person"]


def test_names_of_one_person_are_joined_through_others():
    a, b = np.eye(4)[:2]
    between = (a + b) / np.sqrt(2)
    (merge,) = find_merges({"x": a, "y": between, "z": b, "w": np.eye(4)[3]}, {"x": 2, "y": 3, "z": 3, "w": 9}, 0.6)
    assert (merge.names, merge.name) == (("x", "y", "z"), "y") and merge.similarity == pytest.approx(0.7071, abs=1e-4)


def test_a_pyarrow_that_does_not_go_with_numpy_says_why(tmp_path, monkeypatch):
    (tmp_path / "pyarrow.py").write_text("raise ImportError('pyarrow requires NumPy 2.0 or newer')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pyarrow", raising=False)
    with pytest.raises(DynamicIDError, match=r"pyarrow \(pyarrow requires NumPy 2.0 or newer\).*pip install"):
        need_pyarrow()
