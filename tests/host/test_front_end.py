"""What an artist does, in the host's real front end and a real browser: open, draw, upload, press Run, read the help."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import pytest
from browsing import (
    BOTH,
    NODES_2,
    add,
    connect,
    drag,
    face_with_portrait,
    node,
    open_page,
    open_search,
    other_tab_and_back,
    press,
    preview_of_cast,
    run,
    sees_picture,
    shrink,
    widgets,
)
from comfy_host import REPOSITORY
from comfyui.serving import Server
from PIL import Image

from dynamicid_core.prompts import preset_prompt

WORKFLOWS = sorted((REPOSITORY / "workflows").glob("*.json"))
BLUEPRINTS = sorted((REPOSITORY / "subgraphs").glob("*.json"))
SHOWS_PICTURES = {
    *("DynamicIDDrawnPerson", "DynamicIDEncodeFace", "DynamicIDPreviewCast", "DynamicIDCast", "DynamicIDEncodeGroup"),
    "SaveImage",
}


# --- templates and blueprints -------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_template_opens_runs_and_shows_its_pictures(opened, site: Server, file: Path, nodes2: bool) -> None:
    page, errors = opened(nodes2)  # a template takes the place of the one before
    workflow = json.loads(file.read_text(encoding="utf-8"))
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    page.wait_for_timeout(500)
    loaded = page.evaluate("""() => app.graph.nodes.map((node) => ({
        id: String(node.id), type: node.type, red: Boolean(node.has_errors) || (node.inputs ?? []).some((i) => i.hasErrors),
        known: node.type in LiteGraph.registered_node_types,
    }))""")
    assert sorted(entry["type"] for entry in loaded) == sorted(entry["type"] for entry in workflow["nodes"])
    assert [entry for entry in loaded if entry["red"] or not entry["known"]] == []
    assert not page.locator(".p-dialog").count()
    shrink(page)
    _, outputs = run(page, site)
    of_types = "types => app.graph.nodes.filter((n) => types.includes(n.type)).map((n) => String(n.id))"
    showing = set(page.evaluate(of_types, sorted(SHOWS_PICTURES)))
    assert len(showing) >= 2 and showing <= outputs.keys()
    for number in showing:
        sees_picture(page, number)
    assert errors == []


@pytest.mark.parametrize(
    "file, nodes2",
    [*((file, True) for file in BLUEPRINTS), (BLUEPRINTS[0], False)],
    ids=lambda it: str(getattr(it, "stem", it)),
)
def test_blueprint_is_found_and_runs(window, site: Server, file: Path, nodes2: bool) -> None:
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    open_search(page)
    page.keyboard.type(file.stem)
    described = json.loads(file.read_text(encoding="utf-8"))["definitions"]["subgraphs"][0]["description"]
    page.get_by_text(described).first.wait_for()
    page.keyboard.press("Enter")
    page.wait_for_function("app.graph.nodes.length === 1")
    page.mouse.click(800, 500)  # where it is put down
    blueprint = page.evaluate("""() => {
        const [node] = app.graph.nodes
        return { id: String(node.id), title: node.title, inputs: node.inputs.map((i) => [i.name, i.type]) }
    }""")
    assert blueprint["title"] == file.stem
    sockets = [name for name, kind in blueprint["inputs"] if kind == "IMAGE"]
    assert 1 <= len(sockets) <= 2
    names = {name for name, _ in blueprint["inputs"]}
    assert {"prompt", "negative prompt", "width", "height", "steps", "seed", "checkpoint"} <= names
    assert ("expression" in names) is ("Expression" in file.stem)
    photo = add(page, "LoadImage", 0, 0, image="example.png")
    save = add(page, "PreviewImage", 1200, 0)
    for name in sockets:
        connect(page, photo, 0, blueprint["id"], name)
    connect(page, blueprint["id"], 0, save, "images")
    shrink(page)
    sent, outputs = run(page, site)
    (picture,) = outputs[save]["images"]
    assert Image.open(io.BytesIO(site.view(picture))).size == (64, 64)
    encoded = [entry for entry in sent.values() if entry["class_type"] == "DynamicIDEncodeFace"]
    assert len(encoded) == len(sockets) and all(entry["inputs"]["image"] == [photo, 0] for entry in encoded)
    page.close()
    assert errors == []


# --- faces, boxes, presets ----------------------------------------------------------------------------------------


def test_face_file_is_uploaded_and_chosen_and_others_are_refused(page, site: Server) -> None:
    load = add(page, "DynamicIDLoadFace", 100, 100)
    chosen = "id => app.graph.getNodeById(id).widgets.find((w) => w.name === 'face_file').value"
    with page.expect_file_chooser() as chooser:
        node(page, load).get_by_text("upload a face file").click()
    chooser.value.set_files(site.base / "temp/uploaded.safetensors")
    page.wait_for_function(f"id => ({chosen})(id) === 'uploaded.safetensors'", arg=load)
    assert (site.base / "input/uploaded.safetensors").is_file()

    def drop(file: Path) -> None:
        code = """([name, bytes]) => {
            const data = new DataTransfer()
            data.items.add(new File([new Uint8Array(bytes)], name))
            return data
        }"""
        data = page.evaluate_handle(code, [file.name, list(file.read_bytes())])
        for event in ("dragenter", "dragover", "drop"):
            node(page, load).dispatch_event(event, {"dataTransfer": data})

    dropped = site.base / "temp/dropped.safetensors"
    shutil.copyfile(site.base / "temp/uploaded.safetensors", dropped)
    drop(dropped)
    page.wait_for_function(f"id => ({chosen})(id) === 'dropped.safetensors'", arg=load)
    for name in ("saa.safetensors", "photo.png"):
        other = site.base / "temp" / name
        other.write_bytes(b"\x02\0\0\0\0\0\0\0{}" if name.endswith("safetensors") else b"\x89PNG")
        drop(other)
        page.get_by_text(f"{name} is not a face file").wait_for()
        assert not (site.base / "input" / name).exists()
    assert page.evaluate(chosen, load) == "dropped.safetensors"
    place = add(page, "DynamicIDPlaceFace", 500, 100)
    connect(page, load, 0, place, "face")
    assert preview_of_cast(page, site, place).size == (512, 512)


def shown(page, site: Server, number: str, outputs: dict) -> Image.Image:
    """The picture that a node shows, in the page and in the run's outputs."""
    sees_picture(page, number)
    return Image.open(io.BytesIO(site.view(outputs[number]["images"][0]))).convert("RGB")


@BOTH
def test_faces_are_saved_by_name_and_shown_with_their_portraits(window, site: Server, nodes2: bool) -> None:
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    who = f"Ada {'II' if nodes2 else 'I'}"
    face_with_portrait(site.base / "input/original.safetensors")
    load = add(page, "DynamicIDLoadFace", 50, 100, face_file="original.safetensors")
    files = []
    for portrait in (True, False):
        save = add(page, "DynamicIDSaveFace", 500 + 400 * (not portrait), 100, name=f"{who}/B", portrait=portrait)
        connect(page, load, 0, save, "face")
        _, outputs = run(page, site)
        for number in (load, save):
            assert shown(page, site, number, outputs).getpixel((20, 20)) == (191, 191, 191)
        files.append(outputs[save]["files"][0]["filename"])
        page.evaluate("id => app.graph.remove(app.graph.getNodeById(id))", save)
    assert files == [f"{who}_B.safetensors", f"{who}_B 2.safetensors"]
    sizes = [(site.base / "output/dynamicid" / name).stat().st_size for name in files]
    assert sizes[0] - sizes[1] > 64 * 64 * 3 - 1000  # a portrait only where it was asked for
    page.close()
    assert errors == []


@BOTH
def test_the_report_of_a_score_stands_on_the_node(window, site: Server, nodes2: bool) -> None:
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    face_with_portrait(site.base / "input/scored.safetensors")
    load = add(page, "DynamicIDLoadFace", 50, 100, face_file="scored.safetensors")
    place, score = add(page, "DynamicIDPlaceFace", 400, 100), add(page, "DynamicIDScoreFaces", 800, 100)
    empty, analysis = (
        add(page, "EmptyImage", 50, 400, width=128, height=128),
        add(page, "DynamicIDFaceAnalysis", 50, 700),
    )
    for source, target, name in (
        (load, place, "face"),
        (place, score, "cast"),
        (empty, score, "image"),
        (analysis, score, "face_analysis"),
    ):
        connect(page, source, 0, target, name)
    run(page, site)
    page.locator(".dynamicid-report").get_by_text("1 scored: missing").wait_for()
    other_tab_and_back(page)
    page.locator(".dynamicid-report").get_by_text("1 scored: missing").wait_for()
    page.close()
    assert errors == []


def people_in_boxes(page, count: int = 2) -> str:
    """Place Faces in Boxes with people; returns its id."""
    place = add(page, "DynamicIDPlaceFaces", 500, 50)
    labels = page.evaluate("id => app.graph.getNodeById(id).inputs.map((i) => i.label).filter(Boolean)", place)
    assert labels == ["person 1", "person 2"], "whoever will be connected"
    for slot, name in enumerate(("first", "second")[:count]):
        face = add(page, "DynamicIDLoadFace", 50, 50 + 250 * slot, face_file=f"{name}.safetensors")
        connect(page, face, 0, place, f"faces.face{slot}")
    return place


@BOTH
def test_boxes_are_there_and_moved_resized_drawn_and_removed_in_the_node(window, site: Server, nodes2: bool) -> None:
    from dynamicid_core.layouts import arranged, parse_boxes

    page, errors = open_page(window, site, **{NODES_2: nodes2})
    place = people_in_boxes(page)
    labels = page.evaluate("id => app.graph.getNodeById(id).inputs.map((i) => i.label)", place)
    assert labels[:3] == ["person 1", "person 2", "person 3"]
    canvas = page.locator(".dynamicid-boxes canvas").first
    canvas.wait_for()
    page.wait_for_timeout(500)

    def boxes() -> list[tuple[float, ...]]:
        return [tuple(round(v, 1) for v in box) for box in parse_boxes(widgets(page, place)["drawn_boxes"])]

    assert widgets(page, place)["layout"] == "side by side"
    drag(page, canvas, (0.25, 0.5), (0.25, 0.5 - 0.001))  # moved by nothing: what the page shows is what nodes compute
    drawn = parse_boxes(widgets(page, place)["drawn_boxes"])
    assert drawn == [pytest.approx(box, abs=0.01) for box in arranged("side by side", 2)]
    drag(page, canvas, (0.98, 0.96), (0.8, 0.5))  # a corner
    assert widgets(page, place)["layout"] == "drawn" and boxes() == [(0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 0.5, 0.8)]
    drag(page, canvas, (0.7, 0.3), (0.8, 0.5))
    assert boxes()[1] == (0.2, 0.6, 0.7, 0.9)
    drag(page, canvas, (0.6, 0.8), (0.9, 0.9))
    assert boxes()[2] == (0.8, 0.6, 0.9, 0.9)
    frame = canvas.bounding_box()
    page.mouse.dblclick(frame["x"] + frame["width"] * 0.75, frame["y"] + frame["height"] * 0.85)
    assert len(boxes()) == 2
    picture = preview_of_cast(page, site, place)
    first, second, outside = (picture.getpixel(at) for at in ((128, 400), (384, 250), (384, 480)))
    assert len({first, second, outside}) == 3
    assert outside == picture.getpixel((280, 480)) and first == picture.getpixel((220, 480))
    page.close()
    assert errors == []


def test_what_needs_the_other_nodes_offers_them_in_one_click(window, site: Server) -> None:
    page, errors = open_page(window, site, **{NODES_2: False})
    place = people_in_boxes(page)
    connect(page, add(page, "CreateBoundingBoxes", 100, 600, width=512, height=512), 1, place, "bboxes")
    page.get_by_role("button", name="Create Bounding Boxes needs Nodes 2.0: switch on").click()
    page.wait_for_function("LiteGraph.vueNodesMode === true")
    node(page, place).get_by_text("person 2", exact=True).wait_for()
    page.close()
    assert errors == []


@BOTH
def test_values_that_do_nothing_are_grey(window, site: Server, nodes2: bool) -> None:
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    place, preview = people_in_boxes(page), add(page, "DynamicIDPreviewCast", 900, 50)
    connect(page, place, 0, preview, "cast")

    def idle(number: str) -> set[str]:
        found = "id => app.graph.getNodeById(id).widgets.filter((w) => w.disabled).map((w) => w.name)"
        return set(page.evaluate(found, number))

    assert idle(place) == {"width", "height"} and idle(preview) == set()
    boxes = add(page, "CreateBoundingBoxes", 100, 600, width=512, height=512)
    connect(page, boxes, 1, place, "bboxes")
    connect(page, add(page, "EmptyLatentImage", 500, 600), 0, preview, "latent")
    assert idle(place) == {"layout", "drawn_boxes"} and idle(preview) == {"width", "height"}
    page.evaluate("saved => app.loadGraphData(saved)", page.evaluate("app.graph.serialize()"))
    assert idle(place) == {"layout", "drawn_boxes"} and idle(preview) == {"width", "height"}
    sent = page.evaluate("app.graphToPrompt()")["output"]
    assert sent[preview]["inputs"]["width"] == 1024 and sent[place]["inputs"]["layout"] == "side by side"
    page.evaluate("id => app.graph.getNodeById(id).disconnectInput('latent')", preview)
    assert idle(preview) == set()
    page.close()
    assert errors == []


def test_a_workflow_with_boxes_of_another_node_still_has_them(page, site: Server) -> None:
    """As files had it while the socket was required: before the other inputs."""
    place = people_in_boxes(page)
    boxes = add(page, "CreateBoundingBoxes", 100, 600, width=512, height=512)
    connect(page, boxes, 1, place, "bboxes")
    saved = page.evaluate("app.graph.serialize()")
    (old,) = [one for one in saved["nodes"] if str(one["id"]) == place]
    old["inputs"] = [one for one in old["inputs"] if one["name"] not in ("layout", "drawn_boxes", "cast")]
    old["widgets_values"] = [512, 512, 1]
    page.evaluate("saved => app.loadGraphData(saved)", saved)
    sent = page.evaluate("app.graphToPrompt()")["output"][place]["inputs"]
    assert sent["bboxes"] == [boxes, 1] and (sent["width"], sent["height"], sent["weight"]) == (512, 512, 1)
    assert sent["faces.face1"] and sent["layout"] == "side by side"


@BOTH
def test_presets_are_written_into_the_text(window, site: Server, nodes2: bool) -> None:
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    edit = add(page, "DynamicIDEditMotion", 400, 100)
    text = "id => app.graph.getNodeById(id).widgets.find((w) => w.name === 'expression').value"

    def choose(*words: str) -> str:
        press(page, edit, "presets")
        for word in words:
            page.locator(".litecontextmenu .litemenu-entry").get_by_text(word, exact=True).click()
        return page.evaluate(text, edit)

    assert choose("surprised", "strong") == "the expression is very surprised, front view"
    assert choose("fully turned to the left") == preset_prompt("surprised", "strong", "fully turned to the left")
    assert choose("neutral") == preset_prompt("neutral", "normal", "fully turned to the left")
    page.evaluate("id => { app.graph.getNodeById(id).widgets[0].value = 'with a crooked smile' }", edit)
    assert choose("front view") == "with a crooked smile, the face is front view"
    prompt = page.evaluate("app.graphToPrompt()")["output"]
    assert set(prompt[edit]["inputs"]) == {"expression", "source", "strength"}  # the button is no input
    page.close()
    assert errors == []


@BOTH
def test_what_stopped_a_run_is_said_with_the_nodes_title(window, site: Server, nodes2: bool) -> None:
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    load = add(page, "DynamicIDLoadFace", 50, 100, face_file="first.safetensors")
    blend = add(page, "DynamicIDBlendFaces", 400, 100)
    place, preview = add(page, "DynamicIDPlaceFace", 800, 100), add(page, "DynamicIDPreviewCast", 1200, 100)
    for source, target, name in ((load, blend, "faces.face0"), (blend, place, "face"), (place, preview, "cast")):
        connect(page, source, 0, target, name)
    page.evaluate("id => { app.graph.getNodeById(id).title = 'A mix of two' }", blend)
    toasts = page.locator(".p-toast-message")
    page.get_by_test_id("queue-button").click()
    toasts.filter(has_text="A mix of two").get_by_text("There are 1 faces but 2 weights; give one").wait_for()
    page.get_by_test_id("error-overlay-see-errors").click()
    page.get_by_text("Exception Type:** DynamicIDError").first.wait_for()
    told = page.evaluate("app.lastExecutionError.traceback.join('')")
    assert 'File "nodes/hints.py"' in told and 'File "/' not in told, "no folder of the installation"
    page.evaluate("id => { app.graph.getNodeById(id).widgets[0].value = 'gone.safetensors' }", load)
    page.get_by_test_id("queue-button").click()
    toasts.filter(has_text="Load Face").get_by_text("There is no face file 'gone.safetensors'.").wait_for()
    page.close()
    assert errors == []


@BOTH
def test_what_artists_search_for_finds_our_nodes(window, site: Server, nodes2: bool) -> None:
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    open_search(page)
    wanted = {
        "same person": "Encode Face",
        "consistent character": "Encode Face",
        "character": "Drawn Person",
        "portrait": "Encode Face",
        "group photo": "Encode Group Photo",
    }
    for words, title in wanted.items():
        page.locator("input:focus").fill(words)
        page.get_by_text(title, exact=True).first.wait_for()
    page.close()
    assert errors == []


# --- help and languages -------------------------------------------------------------------------------------------


def test_help_page_opens(page) -> None:
    encode = add(page, "DynamicIDEncodeFace", 100, 100)
    node(page, encode).click(position={"x": 60, "y": 12})
    page.get_by_test_id("info-button").click()
    page.get_by_text("Turns one photo of a person, or several, into a face").wait_for()
    picture = page.locator('img[src*="DynamicIDEncodeFace.jpg"]').first
    picture.wait_for()
    page.wait_for_function("image => image.complete && image.naturalWidth > 100", arg=picture.element_handle())


def test_nodes_speak_the_language_of_the_page(window, site: Server) -> None:
    page, errors = open_page(window, site, **{"Comfy.Locale": "zh"})
    texts = json.loads((REPOSITORY / "locales/zh/nodeDefs.json").read_text(encoding="utf-8"))
    upload = json.loads((REPOSITORY / "locales/zh/main.json").read_text(encoding="utf-8"))["dynamicid"]["uploadFace"]
    load = add(page, "DynamicIDLoadFace", 100, 100)
    for text in (texts["DynamicIDLoadFace"]["display_name"], upload):
        node(page, load).get_by_text(text, exact=True).wait_for()
    node(page, load).click(position={"x": 60, "y": 12})
    page.get_by_test_id("info-button").click()
    help_page = (REPOSITORY / "web/docs/DynamicIDLoadFace/zh.md").read_text(encoding="utf-8")
    heading = re.findall("^## (.+)$", help_page, re.MULTILINE)[2]
    page.get_by_role("heading", name=heading).wait_for()
    picture = page.locator('img[src*="DynamicIDLoadFace.jpg"]').first
    page.wait_for_function("image => image.complete && image.naturalWidth > 100", arg=picture.element_handle())
    page.close()
    assert errors == []
