"""The workflows in a real ComfyUI: what the tool writes, accepted in both formats, and run to the end with stand-ins."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from urllib.parse import quote

import graphs
import pytest
import torch
import two_people
from build_blueprints import SHORT, build_short
from building.files import build
from building.recipes import TITLES
from comfy_host import REPOSITORY, Host
from comfyui.serving import Server
from comfyui.speaking import HostError
from PIL import Image
from standins.portraits import draw_portrait

WORKFLOWS = REPOSITORY / "workflows"
# Those with other weights are last, so that the host's cache keeps encoded faces for the others.
NAMES = [
    "single_person",
    "two_people",
    "refined_faces",
    "blend",
    "three_people_masks",
    "found_places",
    "few_nodes",
    "group_photo",
    "edited_expression",
    "short_film",
]
SHOWS_CAST = ("DynamicIDPreviewCast", "DynamicIDCast", "DynamicIDEncodeGroup")
NOTE = "MarkdownNote"
SIZE, STEPS, FRAMES = (136, 128), 2, 5  # width, height; of the film


def read(path: str) -> dict:
    return json.loads((WORKFLOWS / path).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def object_info(host: Host) -> dict:
    return host.object_info()


@pytest.fixture(scope="module")
def photos(host: Host) -> list[str]:
    """Three drawn portraits in the host's input folder, and last one photo of all of them."""
    names = [f"person_{number}.png" for number in (1, 2, 3)]
    portraits = [draw_portrait(number) for number in range(len(names))]
    width, height = portraits[0].size
    everybody = Image.new("RGB", (width * len(portraits), height))
    for number, (name, portrait) in enumerate(zip(names, portraits, strict=True)):
        portrait.save(host.base / "input" / name)
        everybody.paste(portrait, (number * width, 0))
    everybody.save(host.base / "input" / "group.png")
    return [*names, "group.png"]


def prepared(name: str, photos: list[str]) -> dict:
    """An API twin with photos, small and quick."""
    graph = read(f"api/{name}.json")
    for node in graph.values():
        title, inputs = node["_meta"]["title"], node["inputs"]
        if title.startswith("Photo of person "):
            inputs["image"] = photos[int(title.split()[-1]) - 1]
        if title == "Group photo":
            inputs["image"] = photos[-1]
        if title == "Encode Group Photo":
            inputs["names"] = ""  # the stand-in for a detector need not find everybody
        if title == "Picture size":
            inputs["width"], inputs["height"] = SIZE
            inputs["batch_size"] = min(inputs["batch_size"], FRAMES)
        if title == "Sampler":
            inputs["steps"] = STEPS
        if title == "Refine Faces":
            inputs |= {"steps": 1, "size": 64}
    return graph


def find(graph: dict, class_type: str) -> str:
    (found,) = [number for number, node in graph.items() if node["class_type"] == class_type]
    return found


def without_apply(graph: dict) -> dict:
    """The graph with Apply DynamicID bypassed, as the editor does it, and without what shows its activation."""
    graph = {n: copy.deepcopy(node) for n, node in graph.items() if node["class_type"] != "DynamicIDGateMaps"}
    apply = find(graph, "DynamicIDApply")
    model = graph.pop(apply)["inputs"]["model"]
    for node in graph.values():
        node["inputs"] = {k: model if v == [apply, 0] else v for k, v in node["inputs"].items()}
    return graph


def our_inputs(content: dict) -> list[list[dict]]:
    return [node["inputs"] for node in content.get("nodes", []) if node["type"].startswith("DynamicID")]


def test_committed_files_are_what_the_tool_writes(object_info: dict) -> None:
    from comfyui_version import __version__

    nodes = read(f"{TITLES['two_people']}.json")["nodes"]
    (written_for,) = {n["properties"]["ver"] for n in nodes if n["properties"].get("cnr_id") == "comfy-core"}
    files = build(object_info, written_for) | {f"{SHORT}.json": build_short(object_info, written_for)}
    assert set(files) == {
        f"{SHORT}.json",
        *(f"{title}.json" for title in TITLES.values()),
        *(f"api/{n}.json" for n in NAMES),
    }
    for path, content in files.items():
        # Another host may have given its own nodes more inputs, which is no mistake here.
        same = read(path) == content if __version__ == written_for else our_inputs(read(path)) == our_inputs(content)
        assert same, f"{path}: run devtools/build_workflows.py"


@pytest.mark.parametrize("name", NAMES)
def test_editor_format_fits_the_hosts_nodes(object_info: dict, name: str) -> None:
    workflow = read(f"{TITLES[name]}.json")
    for node in workflow["nodes"]:
        if node["type"] == NOTE:
            continue
        info = object_info[node["type"]]
        linked = {entry["name"]: None for entry in node["inputs"] if entry["link"] is not None}
        known = {slot.name: slot for slot in graphs.slots(info, linked)}
        assert {entry["name"] for entry in node["inputs"]} == set(known)
        for entry in node["inputs"]:
            assert entry["type"] == known[entry["name"]].type
            assert ("widget" in entry) == known[entry["name"]].is_widget
        assert [output["type"] for output in node["outputs"]] == info["output"]
        added = sum(
            bool(s.options.get("control_after_generate") or s.options.get("image_upload")) for s in known.values()
        )
        assert len(node["widgets_values"]) == sum(slot.is_widget for slot in known.values()) + added


@pytest.mark.parametrize("name", NAMES)
def test_runs_and_differs_from_the_same_graph_without_dynamicid(host: Host, photos: list[str], name: str) -> None:
    graph = prepared(name, photos)
    decoded = (find(graph, "VAEDecode"), 0)
    result = host.run_graph(graph, capture=[decoded])
    image = result.values[decoded]
    frames = FRAMES if name == "short_film" else 1
    assert image.shape == (frames, SIZE[1], SIZE[0], 3) and torch.isfinite(image).all()
    (saved,) = result.ui[find(graph, "SaveImage" if frames == 1 else "SaveAnimatedWEBP")]["images"]
    with Image.open(Path(host.base) / "output" / saved["subfolder"] / saved["filename"]) as picture:
        assert (getattr(picture, "n_frames", 1) > 1) == (frames > 1)  # equal ones are one, shown longer
        assert picture.size == SIZE and picture.convert("L").getextrema()[0] < picture.convert("L").getextrema()[1]
    shown = [n for n, node in graph.items() if node["class_type"] in (*SHOWS_CAST, "DynamicIDGateMaps")]
    assert shown and all(result.ui[number]["images"] for number in shown)

    plain = host.run_graph(without_apply(graph), capture=[decoded]).values[decoded]
    assert (image - plain).abs().mean() > 1e-3


def test_templates_with_their_pictures_are_listed_and_served(server: Server) -> None:
    ((pack, names),) = server.get("/workflow_templates").items()
    assert sorted(names) == sorted([SHORT, *TITLES.values()])
    for name in names:
        assert server.get(f"/api/workflow_templates/{pack}/{quote(name)}.json") == read(f"{name}.json")
        assert server.fetch(f"/api/workflow_templates/{pack}/{quote(name)}.jpg").startswith((b"\xff\xd8\xff", b"RIFF"))


def test_the_models_folder_may_go_while_the_host_runs(server: Server) -> None:
    folder, away = (server.base / "models" / name for name in ("dynamicid", "dynamicid away"))
    shown = "/object_info/DynamicIDLoader"
    assert server.get(shown)["DynamicIDLoader"]
    folder.rename(away)
    try:
        kind, described = server.get(shown)["DynamicIDLoader"]["input"]["required"]["saa_file"]
        assert kind == "COMBO" and described["options"] == []
        with pytest.raises(HostError, match="There is no file 'saa.safetensors' in models/dynamicid. Get the files"):
            server.run_graph(read("api/two_people.json"))
    finally:
        away.rename(folder)


def test_what_lacks_is_said_before_anything_is_computed(server: Server, tmp_path: Path) -> None:
    graph = read("api/edited_expression.json")
    draw_portrait(0, 256).save(tmp_path / "photo.png")
    photo = server.upload(tmp_path / "photo.png")
    for node in graph.values():
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = photo
    (load,) = [node["inputs"] for node in graph.values() if node["class_type"] == "DynamicIDLoader"]
    seen: list[str] = []
    load["imr_file"] = "none"
    with pytest.raises(
        HostError, match="^Load DynamicID: Expressions are edited in this graph, but imr_file is 'none'"
    ):
        server.run_graph(graph, lambda title, *_: seen.append(title))
    assert not {"Person 1", "Person 2", "Sampler"} & set(seen)
    load["imr_file"] = "auto"
    (analysis,) = [node["inputs"] for node in graph.values() if node["class_type"] == "DynamicIDFaceAnalysis"]
    analysis["model_pack"] = "nowhere"
    with pytest.raises(HostError, match="The face model pack 'nowhere' was not found"):
        server.run_graph(graph)


def test_main_job_over_http_as_the_script_does_it(server: Server, tmp_path: Path) -> None:
    """Upload, queue, progress, picture; then a failure, told in a sentence."""
    photos = [tmp_path / f"photo {number}.png" for number in (1, 2)]
    for number, path in enumerate(photos):
        draw_portrait(number, 256).save(path)
    size = ["--size", "128", "--steps", str(STEPS)]
    options = two_people.parse([*map(str, photos), *size, "--prompt", "two people by the sea", "--seed", "5"])
    graph = two_people.fill_graph(options, [server.upload(photo) for photo in photos], {})
    seen: list[tuple[str, int, int]] = []
    outputs = server.run_graph(graph, lambda *event: seen.append(event)).ui
    assert ("Sampler", STEPS, STEPS) in seen and "Person 2" in {title for title, _, _ in seen}
    with Image.open(io.BytesIO(server.view(outputs[find(graph, "SaveImage")]["images"][0]))) as picture:
        assert picture.size == (128, 128)
        assert "two people by the sea" in picture.info["prompt"]

    Image.new("RGB", (64, 64), "white").save(photos[1])
    graph = two_people.fill_graph(options, [server.upload(photo) for photo in photos], {})
    with pytest.raises(HostError, match="(?i)^Person 2: .*no face") as failure:
        server.run_graph(graph)
    assert "\n" not in str(failure.value).strip()
