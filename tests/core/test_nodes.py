"""What of the nodes needs no host: the host's boxes, and the hints for what is missing."""

from __future__ import annotations

import ast
import sys
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
def test_an_empty_models_folder_is_filled_once_unless_switched_off(monkeypatch, tmp_path, switch, known, made):
    from types import ModuleType

    filled, host = [], ModuleType("folder_paths")
    host.models_dir = str(tmp_path)
    host.get_filename_list = lambda folder: known
    monkeypatch.setitem(sys.modules, "folder_paths", host)
    monkeypatch.setenv("DYNAMICID_WORLD", switch)
    with nodes_pack() as load:
        monkeypatch.setattr(load("dynamicid_core.drawn.world"), "fill", filled.append)
        load("nodes.world").fill_empty_models()
    assert filled == [tmp_path] * made
