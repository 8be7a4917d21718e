"""The workflow files without a host: whole, readable, laid out, and the same graph in both formats."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import graphs
import pytest
from build_blueprints import SHORT
from building.recipes import FRAMES, TITLES
from PIL import Image

from dynamicid_core.catalogue import model_file
from dynamicid_core.drawn.text import caption_ids

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / "workflows"
NAMES = list(TITLES)
ALL = [SHORT, *TITLES.values()]
FILMS = [TITLES["short_film"]]  # their pictures move
NOTE = "MarkdownNote"
SHOWS_CAST = ("DynamicIDPreviewCast", "DynamicIDCast")  # in the shape of what is sampled
ADDED_VALUES = {"fixed", "image"}  # of the widgets that the editor adds to seeds and to pictures


def template(title: str) -> dict:
    return json.loads((WORKFLOWS / f"{title}.json").read_text(encoding="utf-8"))


def ui(name: str) -> dict:
    return template(TITLES[name])


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
        prompt[str(node["id"])] = {"inputs": values | linked, "class_type": node["type"]}
    return prompt


def for_photos(workflow: dict) -> dict:
    """A template's graph after the button for photos, with photos in the place of drawn people, as scripts have it."""
    prompt = as_api(workflow)
    for number, values in workflow["extra"]["dynamicid"]["for_photos"].items():
        assert values.keys() <= prompt[number]["inputs"].keys()
        prompt[number]["inputs"] |= values
    for node in prompt.values():
        if node["class_type"] == "DynamicIDDrawnPerson":
            node |= {"class_type": "LoadImage", "inputs": {"image": "example.png"}}
    (enlarge,) = [number for number, node in prompt.items() if node["class_type"] == "ImageScaleBy"]
    assert prompt[enlarge]["inputs"]["scale_by"] == 1  # does nothing, and scripts lack it
    made = prompt.pop(enlarge)["inputs"]["image"]
    for node in prompt.values():
        node["inputs"] = {name: made if value == [enlarge, 0] else value for name, value in node["inputs"].items()}
    return prompt


def test_exactly_these_templates_are_listed():
    assert {path.stem for path in WORKFLOWS.glob("*.json")} == {path.stem for path in WORKFLOWS.glob("*.jpg")}
    assert {path.stem for path in WORKFLOWS.glob("*.json")} == {SHORT, *TITLES.values()}
    assert {path.stem for path in (WORKFLOWS / "api").glob("*.json")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_both_formats_are_the_same_graph(name):
    scripts = api(name)
    titles = {number: node["_meta"]["title"] for number, node in scripts.items()}
    same = {number: {key: node[key] for key in ("inputs", "class_type")} for number, node in scripts.items()}
    assert renumbered(for_photos(ui(name))) == renumbered(same)
    assert len(set(titles.values())) == len(titles)


def renumbered(prompt: dict) -> list:
    """Nodes in their order, links by the place of the node they come from."""
    place = {number: i for i, number in enumerate(prompt)}
    return [
        (node["class_type"], {k: [place[v[0]], v[1]] if isinstance(v, list) else v for k, v in node["inputs"].items()})
        for node in prompt.values()
    ]


@pytest.mark.parametrize("name", NAMES)
def test_links_agree_with_the_sockets_at_both_ends(name):
    workflow = ui(name)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert sorted(nodes) == list(range(1, workflow["last_node_id"] + 1))
    for link, source, slot, target, place, kind in workflow["links"]:
        assert link in nodes[source]["outputs"][slot]["links"]
        assert nodes[target]["inputs"][place]["link"] == link
        assert nodes[source]["outputs"][slot]["type"] == kind in nodes[target]["inputs"][place]["type"].split(",")
    numbers = [link[0] for link in workflow["links"]]
    assert sorted(numbers) == list(range(1, workflow["last_link_id"] + 1))
    used = [entry["link"] for node in nodes.values() for entry in node["inputs"] if entry["link"] is not None]
    assert sorted(used) == sorted(numbers)


@pytest.mark.parametrize("picture", sorted(WORKFLOWS.glob("*.jpg")), ids=lambda file: file.stem)
def test_pictures_are_small(picture):
    assert picture.stat().st_size < 300_000
    with Image.open(picture) as opened:
        if picture.stem in FILMS:  # of that name because the host's gallery asks for no other
            assert opened.format == "WEBP" and opened.height == 256
            assert 1 < opened.n_frames <= FRAMES  # equal ones are one, shown longer
        else:
            assert opened.format == "JPEG" and opened.height == 512


@pytest.mark.parametrize("name", ALL)
def test_notes_tell_what_to_do_first_and_where_models_come_from(name):
    notes = [node["widgets_values"][0] for node in template(name)["nodes"] if node["type"] == NOTE]
    assert notes[0].startswith("Press **Run**.") and max(len(re.sub(r"\(.*?\)", "", note)) for note in notes) < 330
    if name != SHORT:
        keys = ("saa", "checkpoint", "vae", "clip_vision", "face_pack")
        assert all(f"]({model_file(key).page})" in notes[1] for key in keys)
        assert model_file("clip_vision").name in notes[1]


@pytest.mark.parametrize("name", ALL)
def test_titles_and_notes_are_known_to_every_language(name):
    workflow = template(name)
    known = json.loads((ROOT / "locales/en/main.json").read_text(encoding="utf-8"))
    titles = {node["title"] for node in workflow["nodes"] if "title" in node} | {g["title"] for g in workflow["groups"]}
    notes = {node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == NOTE}
    assert titles | notes <= known["dynamicidTemplates"].keys() | known["dynamicidBlueprints"].keys()


@pytest.mark.parametrize("file", sorted((ROOT / "subgraphs").glob("*.json")), ids=lambda file: file.stem)
def test_what_blueprints_show_is_known_to_every_language(file):
    known = json.loads((ROOT / "locales/en/main.json").read_text(encoding="utf-8"))
    (inside,) = json.loads(file.read_text(encoding="utf-8"))["definitions"]["subgraphs"]
    titles = {one["title"] for one in (*inside["nodes"], *inside["groups"]) if "title" in one}
    sockets = {one["name"] for one in (*inside["inputs"], *inside["outputs"])}
    assert sockets | {inside["name"]} <= known["dynamicidBlueprints"].keys()
    assert titles <= known["dynamicidTemplates"].keys() | known["dynamicidBlueprints"].keys()


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
def test_models_can_be_downloaded_by_the_host_after_the_button_for_photos(name):
    loaders = {"CheckpointLoaderSimple": ["checkpoints"], "VAELoader": ["vae"], "CLIPVisionLoader": ["clip_vision"]}
    loaders["DynamicIDLoadModels"] = ["checkpoints", "vae", "clip_vision"]
    nodes = [node for node in ui(name)["nodes"] if node["type"] in loaders]
    folders = [folder for node in nodes for folder in loaders[node["type"]]]
    assert sorted(folders) == sorted(loaders["DynamicIDLoadModels"])
    for node in nodes:
        values = ui(name)["extra"]["dynamicid"]["for_photos"][str(node["id"])].values()
        for model, folder in zip(node["properties"]["models"], loaders[node["type"]], strict=True):
            assert model["directory"] == folder
            assert model["name"] in values, "the host offers the file only if the widget names it"
            assert model["url"].startswith("https://huggingface.co/") and model["url"].endswith(".safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_scripts_have_the_published_settings(name):
    by_type = {node["class_type"]: node["inputs"] for node in api(name).values()}
    sampler, apply = by_type["KSampler"], by_type["DynamicIDApply"]
    assert (sampler["sampler_name"], sampler["steps"], sampler["cfg"], sampler["denoise"]) == ("ddim", 50, 5, 1)
    assert (apply["weight"], apply["layout_end"], apply["layout_strength"]) == (1, 0.24, 2)
    size = 1024 if name in ("three_people_masks", "found_places", "group_photo") else 768
    assert (by_type["EmptyLatentImage"]["width"], by_type["EmptyLatentImage"]["height"]) == (size, size)
    assert (by_type.get("DynamicIDLoader") or by_type["DynamicIDLoadModels"])["imr_file"] == "auto"


@pytest.mark.parametrize("name", NAMES)
def test_templates_are_the_drawn_worlds(name):
    """No file from elsewhere, people that training never saw, sizes that it saw, and words that it knows."""
    nodes = as_api(ui(name)).values()
    by_type = {node["class_type"]: node["inputs"] for node in nodes}
    files = [v for node in nodes for v in node["inputs"].values() if str(v).endswith(".safetensors")]
    assert len(files) == 4 and all(file.startswith("drawn_world") for file in files)
    drawn = [node["inputs"] for node in nodes if node["class_type"] == "DynamicIDDrawnPerson"]
    people = [inputs["seed"] + i for inputs in drawn for i in range(inputs["people"])]
    assert min(people) >= 10000 and len(set(people)) == len(people)
    size = {1: 128, 2: 128 if name == "blend" else 192, 3: 256}[len(people)]
    assert (by_type["EmptyLatentImage"]["width"], by_type["EmptyLatentImage"]["height"]) == (size, 128)
    prompts = [node["inputs"]["text"] for node in nodes if node["class_type"] == "CLIPTextEncode"]
    assert all(caption_ids(prompt) for prompt in prompts)


@pytest.mark.parametrize("name", NAMES)
def test_the_size_is_typed_once(name):
    """But for masks, which have one of their own."""
    sized = [n["class_type"] for n in as_api(ui(name)).values() if isinstance(n["inputs"].get("width"), int)]
    linked = [n["inputs"] for n in as_api(ui(name)).values() if n["class_type"] in SHOWS_CAST]
    assert set(sized) <= {
        "EmptyLatentImage",
        "SolidMask",
        "DynamicIDPlaceFaces",
        "DynamicIDPreviewCast",
        "DynamicIDCast",
    }
    assert all(isinstance(inputs["latent"], list) for inputs in linked)


def test_two_people_take_twelve_nodes_at_most_and_each_further_one_a_photo_more():
    """From the loader to the saved picture."""
    nodes = [node for node in ui("few_nodes")["nodes"] if node["type"] != NOTE]
    photos = [node for node in nodes if node["type"] == "DynamicIDDrawnPerson"]
    (cast,) = [node for node in nodes if node["type"] == "DynamicIDCast"]
    linked = [entry for entry in cast["inputs"] if entry["name"].startswith("photos.") and entry["link"] is not None]
    assert len(nodes) <= 12 and len(photos) == len(linked) == 2


# --- the tool that writes them --------------------------------------------------------------------------------------


TOY_INFO = {
    "Source": {
        "input": {"required": {"size": ["INT", {"default": 3}], "kind": [["a", "b"], {}]}},
        "input_order": {"required": ["size", "kind"]},
        "output": ["THING"],
        "output_name": ["thing"],
        "display_name": "Source",
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
        "display_name": "to",
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
    sent = {
        number: {k: node[k] for k in ("inputs", "class_type")}
        for number, node in graphs.to_api(graph, TOY_INFO).items()
    }
    assert as_api(graphs.to_ui(graph, TOY_INFO)) == sent
    assert [node.get("title") for node in graphs.to_ui(graph, TOY_INFO)["nodes"]] == ["from", None]


def test_tool_refuses_what_the_host_does_not_know():
    with pytest.raises(KeyError, match="no inputs"):
        graphs.to_api(toy(wrong=1), TOY_INFO)
    with pytest.raises(KeyError, match="no node titled"):
        graphs.to_api(toy(more=graphs.Link("nobody", "thing")), TOY_INFO)
