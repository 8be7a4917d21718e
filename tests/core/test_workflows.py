"""The workflow files without a host: whole, readable, laid out, and the same graph in both formats."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import graphs
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / "workflows"
NAMES = ["single_person", "two_people", "edited_expression", "blend", "three_people_masks"]
NOTE = "MarkdownNote"
ADDED_VALUES = {"fixed", "image"}  # of the widgets that the editor adds to seeds and to pictures


def ui(name: str) -> dict:
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def api(name: str) -> dict:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))


def widget_values(node: dict) -> dict:
    """Widget -> value, by the order of the node's inputs."""
    names = [entry["name"] for entry in node["inputs"] if "widget" in entry]
    added = {i + 1 for i, name in enumerate(names) if name in ("seed", "image")}
    values = list(node["widgets_values"])
    for place in sorted(added):
        assert values.pop(place) in ADDED_VALUES
    return dict(zip(names, values, strict=True))


def as_api(workflow: dict) -> dict:
    """The editor's format as the editor would send it to the host."""
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] == NOTE:
            continue
        values = {k: {"__value__": v} if isinstance(v, list) else v for k, v in widget_values(node).items()}
        linked = {entry["name"]: sources[entry["link"]] for entry in node["inputs"] if entry["link"] is not None}
        meta = {"title": node["title"]}
        prompt[str(node["id"])] = {"inputs": values | linked, "class_type": node["type"], "_meta": meta}
    return prompt


def test_exactly_these_templates_are_listed():
    assert {path.stem for path in WORKFLOWS.glob("*.json")} == set(NAMES)
    assert {path.stem for path in (WORKFLOWS / "api").glob("*.json")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_both_formats_are_the_same_graph(name):
    assert as_api(ui(name)) == api(name)


@pytest.mark.parametrize("name", NAMES)
def test_links_agree_with_the_sockets_at_both_ends(name):
    workflow = ui(name)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert sorted(nodes) == list(range(1, workflow["last_node_id"] + 1))
    for link, source, slot, target, place, kind in workflow["links"]:
        assert link in nodes[source]["outputs"][slot]["links"]
        assert nodes[target]["inputs"][place]["link"] == link
        assert nodes[source]["outputs"][slot]["type"] == kind == nodes[target]["inputs"][place]["type"]
    numbers = [link[0] for link in workflow["links"]]
    assert sorted(numbers) == list(range(1, workflow["last_link_id"] + 1))
    used = [entry["link"] for node in nodes.values() for entry in node["inputs"] if entry["link"] is not None]
    assert sorted(used) == sorted(numbers)


@pytest.mark.parametrize("name", NAMES)
def test_picture_shows_the_graph(name):
    path = WORKFLOWS / f"{name}.jpg"
    assert path.stat().st_size < 300_000
    with Image.open(path) as picture:
        assert picture.format == "JPEG"
        width, height = picture.size
    frames = [group["bounding"] for group in ui(name)["groups"]]
    shape = (max(x + w for x, _, w, _ in frames) - min(f[0] for f in frames)) / (
        max(y + h for _, y, _, h in frames) - min(f[1] for f in frames)
    )
    assert width >= 1500 and abs(width / height / shape - 1) < 0.05, "take the picture anew: it has another shape"


@pytest.mark.parametrize("name", NAMES)
def test_a_note_tells_in_three_sentences_what_to_do_and_where_models_go(name):
    (note,) = [node for node in ui(name)["nodes"] if node["type"] == NOTE]
    (text,) = note["widgets_values"]
    assert len(re.findall(r"[a-z*]\.(?: |$)", text)) == 3, text
    for words in ("photo", "**Run**", "*models/dynamicid*", "*models/insightface/models/buffalo_l*"):
        assert words in text


@pytest.mark.parametrize("name", NAMES)
def test_nodes_lie_apart_and_each_in_a_group(name):
    workflow = ui(name)
    boxes = [(*node["pos"], *node["size"]) for node in workflow["nodes"]]
    for (x, y, w, h), (u, v, a, b) in itertools.combinations(boxes, 2):
        assert x + w <= u or u + a <= x or y + h + 30 <= v or v + b + 30 <= y  # 30: the title above a node
    frames = [group["bounding"] for group in workflow["groups"]]
    for x, y, w, h in boxes:
        assert sum(u <= x and v <= y - 30 and x + w <= u + a and y + h <= v + b for u, v, a, b in frames) == 1
    assert all(group["title"] for group in workflow["groups"])


@pytest.mark.parametrize("name", NAMES)
def test_nodes_are_the_hosts_or_ours(name):
    for node in ui(name)["nodes"]:
        if node["type"] != NOTE:
            publisher = "comfyui-dynamicid" if node["type"].startswith("DynamicID") else "comfy-core"
            assert node["properties"]["cnr_id"] == publisher and node["properties"]["ver"]


@pytest.mark.parametrize("name", NAMES)
def test_models_can_be_downloaded_by_the_host(name):
    loaders = {"CheckpointLoaderSimple": "checkpoints", "VAELoader": "vae", "CLIPVisionLoader": "clip_vision"}
    nodes = {node["type"]: node for node in ui(name)["nodes"] if node["type"] in loaders}
    assert set(nodes) == set(loaders)
    for kind, node in nodes.items():
        (model,) = node["properties"]["models"]
        assert model["directory"] == loaders[kind]
        assert [model["name"]] == node["widgets_values"], "the host offers the file only if the widget names it"
        assert model["url"].startswith("https://huggingface.co/") and model["url"].endswith(".safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_the_published_ones(name):
    graph = api(name)
    by_type = {node["class_type"]: node["inputs"] for node in graph.values()}
    sampler, apply = by_type["KSampler"], by_type["DynamicIDApply"]
    assert (sampler["sampler_name"], sampler["steps"], sampler["cfg"], sampler["denoise"]) == ("ddim", 50, 5, 1)
    assert (apply["weight"], apply["layout_end"], apply["layout_strength"]) == (1, 0.24, 2)
    size = 1024 if name == "three_people_masks" else 768
    assert (by_type["EmptyLatentImage"]["width"], by_type["EmptyLatentImage"]["height"]) == (size, size)
    assert (by_type["DynamicIDLoader"]["imr_file"] == "none") is (name != "edited_expression")


def test_boxes_refer_to_the_canvas_that_they_are_drawn_on():
    for name in ("two_people", "edited_expression"):
        by_title = {node["_meta"]["title"]: node["inputs"] for node in api(name).values()}
        editor, place = by_title["Boxes"], by_title["Place Faces in Boxes"]
        assert (editor["width"], editor["height"]) == (place["width"], place["height"])
        boxes = editor["editor_state"]["__value__"]
        assert len(boxes) == sum(key.startswith("faces.") for key in place) == 2
        assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"], "person 1 is on the left"


# --- the tool that writes them --------------------------------------------------------------------------------------


TOY_INFO = {
    "Source": {
        "input": {"required": {"size": ["INT", {"default": 3}], "kind": [["a", "b"], {}]}},
        "input_order": {"required": ["size", "kind"]},
        "output": ["THING"],
        "output_name": ["thing"],
    },
    "Sink": {
        "input": {
            "required": {
                "text": ["STRING", {"default": "x"}],
                "things": [
                    "COMFY_AUTOGROW_V3",
                    {"template": {"input": {"required": {"t": ["THING", {}]}}, "prefix": "t", "min": 1, "max": 2}},
                ],
                "seed": ["INT", {"default": 0, "control_after_generate": True}],
            },
            "optional": {"more": ["THING", {}]},
        },
        "input_order": {"required": ["text", "things", "seed"], "optional": ["more"]},
        "output": [],
        "output_name": [],
    },
}


def toy(**inputs):
    nodes = (graphs.Node("Source", "from", {"kind": "b"}), graphs.Node("Sink", "to", inputs))
    return graphs.Graph("toy", (graphs.Group("all", (nodes,)),))


def test_tool_takes_defaults_grows_lists_and_counts_added_widgets():
    graph = toy(**{"things.t0": graphs.Link("from", "thing"), "seed": 7})
    assert graphs.to_api(graph, TOY_INFO)["2"]["inputs"] == {"text": "x", "things.t0": ["1", 0], "seed": 7}
    assert graphs.to_api(graph, TOY_INFO)["1"]["inputs"] == {"size": 3, "kind": "b"}
    sink = graphs.to_ui(graph, TOY_INFO)["nodes"][1]
    assert [entry["name"] for entry in sink["inputs"]] == ["things.t0", "things.t1", "more", "text", "seed"]
    assert sink["widgets_values"] == ["x", 7, "fixed"]
    assert as_api(graphs.to_ui(graph, TOY_INFO)) == graphs.to_api(graph, TOY_INFO)


def test_tool_refuses_what_the_host_does_not_know():
    with pytest.raises(KeyError, match="no inputs"):
        graphs.to_api(toy(wrong=1), TOY_INFO)
    with pytest.raises(KeyError, match="no node titled"):
        graphs.to_api(toy(more=graphs.Link("nobody", "thing")), TOY_INFO)
