"""What of the nodes needs no host: the host's boxes, and the hints for what is missing."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
from types import SimpleNamespace
from typing import get_args

import pytest
from without_host import ROOT, nodes_pack


@pytest.fixture(scope="module")
def pack():
    with nodes_pack() as load:
        yield load


BOX = {"x": 25, "y": 10, "width": 50, "height": 80}


@pytest.mark.parametrize(
    "bboxes, counts",
    [(BOX, [1]), ([BOX, BOX], [2]), ([[BOX], [BOX, BOX]], [1, 2]), ([], [0]), (None, [0]), ([[]], [0])],
)
def test_boxes_come_alone_in_a_list_or_for_each_frame(pack, bboxes, counts):
    frames = pack("nodes.boxes").to_frames(bboxes, 100, 200)
    assert [len(frame) for frame in frames] == counts
    assert {box for frame in frames for box in frame} <= {(0.05, 0.25, 0.45, 0.75)}


def test_boxes_are_cut_off_at_the_canvas_and_refused_outside(pack):
    boxes = pack("nodes.boxes")
    assert boxes.to_fractions({"x": -50, "y": 50, "width": 100, "height": 100}, 100, 100, 1) == (0.5, 0, 1, 0.5)
    assert boxes.to_fractions({"width": 10, "height": 20}, 100, 100, 1) == (0, 0, 0.2, 0.1)
    with pytest.raises(
        ValueError, match=r"Box 2 \(x 300, y 0, width 20, height 9\) has no area on a canvas of 200 x 100"
    ):
        boxes.to_frames([BOX, {"x": 300, "y": 0, "width": 20, "height": 9}], 200, 100)
    assert boxes.cells(1024, 512) == (64, 128) and boxes.cells(4, 4) == (1, 1)
    assert boxes.cells(16384, 4096) == (64, 256)


@pytest.mark.parametrize(
    "bboxes, said",
    [
        ("0,0,10,10", "bboxes holds '0,0,10,10' where a box belongs; a box has x, y, width and height in pixels."),
        (5, "bboxes holds 5 where a box belongs"),
        ([0, 0, 10, 10], "bboxes holds 0 where a box belongs"),
        ([[0, 0, 10, 10]], "bboxes holds 0 where a box belongs"),
        ([None, BOX], "bboxes holds None where a box belongs"),
        (["a", "b"], "bboxes holds 'a' where a box belongs"),
        ([BOX | {"x": "left"}], "Box 1 has 'left' as its x; give a number of pixels."),
        ([BOX, BOX | {"width": None}], "Box 2 has None as its width"),
        ([[BOX | {"y": [1, 2]}]], r"Box 1 has [1, 2] as its y"),
        (BOX | {"height": float("nan")}, "Box 1 has nan as its height"),
        (BOX | {"height": float("inf")}, "Box 1 has inf as its height"),
        (BOX | {"x": 10**400}, "as its x; give a number of pixels."),
        ("x" * 5000, "where a box belongs"),
    ],
)
def test_what_is_no_box_is_said_at_once(pack, bboxes, said):
    """Scripts give boxes as they like: one sentence, before anything is loaded."""
    node, types = pack("nodes.cast").DynamicIDPlaceFaces, pack("dynamicid_core.types")
    told = node.validate_inputs(bboxes)
    assert said in told and len(told) < 200
    with pytest.raises(types.DynamicIDError) as caught:
        pack("nodes.boxes").to_frames(bboxes, 100, 200)
    assert str(caught.value) == told
    assert node.validate_inputs() is True and node.validate_inputs([BOX]) is True


def test_a_part_of_the_schedule_has_its_start_before_its_end(pack):
    for node in (pack("nodes.apply").DynamicIDApply, pack("nodes.apply").DynamicIDGateMaps):
        assert "so faces would never act; let start_at come first" in node.validate_inputs(0.8, 0.2)
        assert "end_at is 7.0; it must lie between" in node.validate_inputs(0.0, 7.0)
        assert "start_at is nan" in node.validate_inputs(start_at=float("nan"))
        assert node.validate_inputs(0.3, 0.3) is node.validate_inputs() is node.validate_inputs(end_at=0.5) is True


@pytest.mark.parametrize("name", ["/etc", "..", "a/../../b", "~/packs", "C:\\packs", "\\\\server\\packs"])
def test_a_pack_is_a_name_below_the_hosts_folders(pack, name):
    node = pack("nodes.load").DynamicIDFaceAnalysis
    expected = f"model_pack is {name!r}; give the name of a folder in models/insightface/models."
    assert node.validate_inputs(name) == expected
    with pytest.raises(pack("dynamicid_core.types").DynamicIDError) as caught:
        node.execute(f" {name} ", "CPU")
    assert str(caught.value) == expected


def test_a_pack_that_is_not_there_has_an_address_only_if_it_is_published(pack):
    node = pack("nodes.load").DynamicIDFaceAnalysis
    told = node.validate_inputs("buffalo_s")
    assert "\n  models/insightface/models/buffalo_s\n" in told and "/opt" not in told
    assert "v0.7/buffalo_s.zip and unpack its .onnx files into models/insightface/models/buffalo_s." in told
    for name in ("sub/mine", "mine", "deep/er/mine (bgr)"):
        told = node.validate_inputs(name)
        assert ".zip" not in told and "put the .onnx files into models/insightface/models/mine." in told
        assert "/opt" not in told


def test_messages_name_no_folder_of_the_installation(pack):
    """They are copied into chats and issues. What lies below the host's folders is named from there on."""
    shorten = pack("nodes.folders").without_folders
    home = os.path.expanduser("~")
    for text, expected in (
        ("/opt/comfy/ComfyUI/models/dynamicid/a b.bin is a LoRA.", "models/dynamicid/a b.bin is a LoRA."),
        ("There is no file /big/weights/x.bin.", "There is no file dynamicid/x.bin."),
        ("/opt/comfy/ComfyUI/output/dynamicid/a could not be written", "output/dynamicid/a could not be written"),
        ("in /opt/comfy/ComfyUI.", "in ComfyUI."),
        (f"  {home}/.insightface/models/x: lacks", "  ~/.insightface/models/x: lacks"),
        (f"{ROOT}/dynamicid_core/drawn/weights", "comfyui-dynamicid/dynamicid_core/drawn/weights"),
        (
            "/opt/comfy/ComfyUI-2/x and /data/opt/comfy/ComfyUI/x",
            "/opt/comfy/ComfyUI-2/x and /data/opt/comfy/ComfyUI/x",
        ),
    ):
        assert shorten(text) == expected
    hints, types = pack("nodes.hints"), pack("dynamicid_core.types")

    @hints.hinted
    def execute():
        raise types.DynamicIDError("/opt/comfy/ComfyUI/models/x is damaged.")

    with pytest.raises(types.DynamicIDError, match="^models/x is damaged.$"):
        execute()


def test_tracebacks_in_the_browser_name_no_folder_either(tmp_path):
    if (node := shutil.which("node")) is None:
        pytest.skip("needs node")
    (tmp_path / "folders.mjs").write_bytes((ROOT / "web/js/folders.js").read_bytes())
    lines = [
        '  File "/srv/a b/ComfyUI/execution.py", line 534, in execute\n    x = "File \'a/b/c\'"\n',
        '  File "C:\\Users\\a\\comfyui-dynamicid\\nodes\\hints.py", line 4, in told\n',
        '  File "<string>", line 1\n',
    ]
    code = "import { withoutFolders } from './folders.mjs'\n"
    code += "console.log(JSON.stringify(withoutFolders(JSON.parse(process.argv[1]))))"
    command = [node, "--input-type=module", "-e", code, json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    first, second, third = json.loads(done.stdout)
    assert first.startswith('  File "ComfyUI/execution.py", line 534') and "'a/b/c'" in first and third == lines[2]
    assert "Users" not in second and "hints.py" in second
    page = (ROOT / "web/js/messages.js").read_text(encoding="utf-8")
    assert page.index("withoutFolders(detail.traceback") < page.index("export function showErrors"), (
        "before the host's own"
    )


def test_boxes_reach_the_cast_as_fractions_and_as_masks_where_they_move(pack):
    import torch

    types, node = pack("dynamicid_core.types"), pack("nodes.cast").DynamicIDPlaceFaces
    faces = {f"face{i}": types.Face(torch.zeros(1, 4, 8), torch.zeros(1, 4, 8), "x") for i in (1, 0)}
    moved = BOX | {"x": 50}
    (cast,) = node.execute(faces, [[BOX, BOX], [BOX, moved]], 100, 200, weight=0.5)
    still, moving = (person.region for person in cast.people)
    assert still.box == (0.05, 0.25, 0.45, 0.75)
    assert moving.mask.shape == (2, 25, 12) and moving.mask[0].sum() == moving.mask[1].sum() > 0


def test_people_stand_where_boxes_layout_or_numbers_say(pack):
    import torch

    types, node = pack("dynamicid_core.types"), pack("nodes.cast").DynamicIDPlaceFaces
    faces = {f"face{i}": types.Face(torch.zeros(1, 4, 8), torch.zeros(1, 4, 8), "x") for i in range(2)}

    def boxes(**inputs):
        (cast,) = node.execute(faces, width=100, height=200, **inputs)
        return [person.region.box for person in cast.people]

    assert boxes(bboxes=[BOX, BOX], layout="rows") == [(0.05, 0.25, 0.45, 0.75)] * 2
    assert [box[1] for box in boxes()] == [0.02, 0.52] and [box[0] for box in boxes(layout="rows")] == [0.02, 0.52]
    drawn = boxes(layout="drawn", drawn_boxes="0.1,0.2,0.3,0.4; 0.5 0.6 0.7 0.8")
    assert drawn == [(0.2, 0.1, 0.4, 0.3), (0.6, 0.5, 0.8, 0.7)]
    with pytest.raises(ValueError, match="There are 2 faces and 0 boxes: too few boxes. Box 1 belongs to person 1"):
        boxes(layout="drawn")


def test_a_place_is_a_mask_an_outline_or_what_others_leave():
    import torch

    pictures = SimpleNamespace(to_mask=torch.Tensor.float)
    with nodes_pack(nodes__pictures=pictures) as load:
        types, node = load("dynamicid_core.types"), load("nodes.cast").DynamicIDPlaceFace
        face, outline = types.Face(torch.zeros(1, 4, 8), torch.zeros(1, 4, 8), "x"), "0,0 0.5,0 0.5,1 0,1"

        def region(**inputs):
            (cast,) = node.execute(face, **inputs)
            return cast.people[0].region

        assert region() is None
        drawn, painted = region(outline=outline), region(outline=outline, mask=torch.ones(3, 5))
        assert drawn.any_shape and drawn.mask[0, 100, 10] == 1 and drawn.mask[0, 100, -10] == 0
        assert not painted.any_shape and painted.mask.shape == (1, 3, 5)
        assert node.validate_inputs(outline) is True and node.validate_inputs() is True
        assert node.validate_inputs("0,0 1,1").startswith("Outline 1 has 2 different points")


def test_errors_have_a_name_without_the_folders_of_the_installation(pack):
    hints, types = pack("nodes.hints"), pack("dynamicid_core.types")

    @hints.hinted
    def execute():
        raise types.Missing("face detector", "It lacks.")

    with pytest.raises(types.DynamicIDError, match="^It lacks. Connect Load Face Analysis.$") as caught:
        execute()
    assert (type(caught.value).__module__, type(caught.value).__qualname__) == ("builtins", "DynamicIDError")


def test_every_node_names_its_errors_so():
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "nodes").glob("*.py")]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    executes = [[ast.unparse(one) for one in f.decorator_list] for f in functions if f.name == "execute"]
    assert len(executes) >= 15 and all(names == ["classmethod", "hinted"] for names in executes)


def test_whatever_may_be_missing_has_a_hint_in_every_front_end(pack):
    from dynamicid_core import command_line
    from dynamicid_core.types import Part

    parts = set(get_args(Part))
    assert set(pack("nodes.hints").HINTS) == set(command_line.HINTS) == parts
    diffusers = pytest.importorskip("dynamicid_core.hosts.diffusers")
    assert set(diffusers.HINTS) == parts


@pytest.mark.parametrize("switch, known, made", [("1", [], True), ("0", [], False), ("1", ["saa.safetensors"], False)])
def test_an_empty_models_folder_is_filled_once_unless_switched_off(pack, monkeypatch, tmp_path, switch, known, made):
    from types import ModuleType

    filled, host = [], ModuleType("folder_paths")
    host.models_dir = str(tmp_path)
    host.get_filename_list = lambda folder: known
    monkeypatch.setenv("DYNAMICID_WORLD", switch)
    for module in ("nodes.folders", "nodes.world"):
        monkeypatch.setattr(pack(module), "folder_paths", host)
    monkeypatch.setattr(pack("dynamicid_core.drawn.world"), "fill", filled.append)
    pack("nodes.world").fill_empty_models()
    assert filled == [tmp_path] * made
