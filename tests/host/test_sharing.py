"""A shared graph is opened where its photos and faces are not: what is missing is said, and files take its place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from browsing import BOTH, NODES_2, add, connect, face_with_portrait, open_page, preview_of_cast, run, shrink, widgets
from comfy_host import REPOSITORY
from comfyui.serving import Server

ELSEWHERE = "a photo elsewhere.png"
PANEL = ".dynamicid-missing"


def forget(site: Server) -> None:
    """Nothing has been given yet."""
    for name in ("Anna.safetensors", "Ben.safetensors", "another elsewhere.png"):
        (site.base / "input" / name).unlink(missing_ok=True)


def as_elsewhere(page, files: dict[str, str]) -> None:
    """Open the graph anew as somebody gets it who has none of these files: node -> the file that it names then."""
    shared = page.evaluate("app.graph.serialize()")
    for one in shared["nodes"]:
        if str(one["id"]) in files:
            one["widgets_values"][0] = files[str(one["id"])]
    page.evaluate("shared => app.loadGraphData(shared)", shared)


def says(page, names: str) -> None:
    page.locator(PANEL).get_by_text(f"Faces that this graph needs are not here: {names}.").wait_for()


def give(page, *files: Path) -> None:
    """Choose these files in the panel."""
    with page.expect_file_chooser() as chooser:
        page.locator(PANEL).get_by_text("choose face files or photos").click()
    chooser.value.set_files(list(files))


def face_files(site: Server, *names: str) -> list[Path]:
    return [face_with_portrait(site.base / "temp" / f"{name}.safetensors") for name in names]


def of_type(page, kind: str) -> list[str]:
    return page.evaluate("kind => app.graph.nodes.filter((n) => n.type === kind).map((n) => String(n.id))", kind)


def prompt(page) -> dict:
    """The graph as the page would send it: node -> its type and inputs."""
    return page.evaluate("app.graphToPrompt()")["output"]


def files_in(sent: dict, number: str, slot: str) -> list[str]:
    """The face files in a node's growing list."""
    inputs = sent[number]["inputs"]
    sources = [sent[inputs[f"{slot}{i}"][0]] for i in range(len([name for name in inputs if name.startswith(slot)]))]
    return [source["inputs"]["face_file"] for source in sources]


@BOTH
def test_a_shared_graph_says_which_faces_are_missing_and_takes_files_for_all(
    window, site: Server, nodes2: bool
) -> None:
    forget(site)
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    load = add(page, "DynamicIDLoadFace", 50, 100, face_file="first.safetensors")
    photo, encode = add(page, "LoadImage", 50, 400, image="example.png"), add(page, "DynamicIDEncodeFace", 400, 400)
    place = add(page, "DynamicIDPlaceFaces", 800, 100)
    connect(page, photo, 0, encode, "image")
    for slot, source in enumerate((load, encode)):
        connect(page, source, 0, place, f"faces.face{slot}")
    page.evaluate("id => { app.graph.getNodeById(id).title = 'Ben' }", encode)
    as_elsewhere(page, {load: "Anna.safetensors", photo: ELSEWHERE})
    says(page, "Anna, Ben")
    give(page, *face_files(site, "Ben", "Anna"))
    page.locator(PANEL).wait_for(state="detached")
    assert of_type(page, "LoadImage") == [], "what shows nothing and leads nowhere"
    prompt = page.evaluate("app.graphToPrompt()")["output"]
    given = [prompt[prompt[place]["inputs"][f"faces.face{slot}"][0]]["inputs"]["face_file"] for slot in range(2)]
    assert given == ["Anna.safetensors", "Ben.safetensors"]
    assert preview_of_cast(page, site, place).size == (512, 512)
    page.close()
    assert errors == []


def group_photo(page, names: str) -> tuple[str, str]:
    """A photo of several people, and who makes a cast of them."""
    photo, group = add(page, "LoadImage", 50, 50, image="example.png"), add(page, "DynamicIDEncodeGroup", 450, 50)
    page.evaluate("([id, text]) => { app.graph.getNodeById(id).widgets[0].value = text }", [group, names])
    connect(page, photo, 0, group, "image")
    return photo, group


@BOTH
def test_a_group_photo_is_replaced_by_its_peoples_faces_where_they_stood(window, site: Server, nodes2: bool) -> None:
    forget(site)
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    photo, group = group_photo(page, "Anna\n-\nBen")
    places = [[0.0, 0.1, 0.4, 0.9], [0.5, 0.1, 0.9, 0.9]]  # as its last run told
    page.evaluate("([id, places]) => { app.graph.getNodeById(id).properties.places = places }", [group, places])
    place, last = add(page, "DynamicIDPlaceFace", 850, 50), add(page, "DynamicIDLoadFace", 850, 600)
    page.evaluate("id => { app.graph.getNodeById(id).widgets[0].value = 'first.safetensors' }", last)
    seen = add(page, "PreviewImage", 1200, 600)
    for source, output, target, name in (
        (group, 1, place, "cast"), (last, 0, place, "face"), (group, 2, seen, "images"),
    ):  # fmt: skip
        connect(page, source, output, target, name)
    as_elsewhere(page, {photo: ELSEWHERE})
    says(page, "Anna, Ben")
    give(page, *face_files(site, "Ben"))
    says(page, "Anna")  # who has no file yet
    give(page, *face_files(site, "Anna"))
    page.locator(PANEL).wait_for(state="detached")
    assert of_type(page, "LoadImage") == of_type(page, "DynamicIDEncodeGroup") == []
    (boxed,) = of_type(page, "DynamicIDPlaceFaces")
    sent, outputs = run(page, site)
    given = sent[boxed]["inputs"]
    assert files_in(sent, boxed, "faces.face") == ["Anna.safetensors", "Ben.safetensors"]
    assert given["layout"] == "drawn" and given["drawn_boxes"] == "0,0.1,0.4,0.9; 0.5,0.1,0.9,0.9"
    assert sent[place]["inputs"]["cast"] == [boxed, 0] and outputs[seen]["images"]
    page.close()
    assert errors == []


@BOTH
def test_of_a_group_photo_that_nobody_counted_everybody_given_takes_a_place(window, site: Server, nodes2: bool) -> None:
    forget(site)
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    photo, group = group_photo(page, "")
    cast = add(page, "DynamicIDCast", 850, 50)
    connect(page, group, 0, cast, "photos.photo0")
    as_elsewhere(page, {photo: ELSEWHERE})
    says(page, "everybody in a photo elsewhere")
    give(page, *face_files(site, "Anna", "Ben"))
    page.locator(PANEL).wait_for(state="detached")
    sent = prompt(page)
    (listed,) = of_type(page, "CreateList")  # both are in the one slot in which everybody was
    assert sent[cast]["inputs"]["photos.photo0"] == [listed, 0]
    assert files_in(sent, listed, "inputs.input") == ["Anna.safetensors", "Ben.safetensors"]
    assert of_type(page, "DynamicIDPlaceFaces") == of_type(page, "DynamicIDEncodeGroup") == []
    page.close()
    assert errors == []


@BOTH
def test_another_photo_takes_the_place_of_one(window, site: Server, nodes2: bool) -> None:
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    photo, _ = group_photo(page, "Anna")
    scaled, encode = add(page, "ImageScaleBy", 450, 500), add(page, "DynamicIDEncodeFace", 800, 500)
    other = add(page, "LoadImage", 50, 500, image="example.png")
    connect(page, other, 0, scaled, "image")
    connect(page, scaled, 0, encode, "image")  # not as it came
    page.evaluate("id => { app.graph.getNodeById(id).title = 'Ben' }", encode)
    as_elsewhere(page, {photo: ELSEWHERE, other: "Ben.jpg"})
    says(page, "Anna, Ben")
    files = [site.base / "temp" / name for name in ("Ben.png", "everybody.png")]
    for file in files:
        shutil.copyfile(site.base / "input/example.png", file)
    give(page, *files)
    page.locator(PANEL).wait_for(state="detached")
    assert [widgets(page, number)["image"] for number in (photo, other)] == ["everybody.png", "Ben.png"]
    page.close()
    assert errors == []


@BOTH
def test_a_photo_of_a_blueprint_is_replaced_by_a_face_or_another_photo(window, site: Server, nodes2: bool) -> None:
    forget(site)
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    workflow = json.loads((REPOSITORY / "workflows/1 Two People.json").read_text(encoding="utf-8"))
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    page.wait_for_timeout(500)
    (blueprint,) = page.evaluate("app.graph.nodes.filter((n) => n.subgraph).map((n) => String(n.id))")
    drawn = of_type(page, "DynamicIDDrawnPerson")
    photos = [add(page, "LoadImage", 400 * number, 900, image="example.png") for number in range(2)]
    for number, photo in enumerate(photos):
        page.evaluate("id => app.graph.remove(app.graph.getNodeById(id))", drawn[number])
        connect(page, photo, 0, blueprint, f"photo {number + 1}")
    shrink(page)
    as_elsewhere(page, {photos[0]: ELSEWHERE, photos[1]: "another elsewhere.png"})
    says(page, "Person 1, Person 2")
    photo = site.base / "temp/another elsewhere.png"
    shutil.copyfile(site.base / "input/example.png", photo)
    give(page, photo, *face_files(site, "Anna"))
    page.locator(PANEL).wait_for(state="detached")
    assert of_type(page, "LoadImage") == [photos[1]] and widgets(page, photos[1])["image"] == photo.name
    saved = page.evaluate("app.graph.serialize()")
    page.evaluate("saved => app.loadGraphData(saved)", saved)  # a file keeps what the socket takes now
    sent, outputs = run(page, site)
    (load,) = (number for number, one in sent.items() if one["class_type"] == "DynamicIDLoadFace")
    placed = [one["inputs"]["face"] for one in sent.values() if one["class_type"] == "DynamicIDPlaceFace"]
    assert load == of_type(page, "DynamicIDLoadFace")[0] and [load, 0] in placed
    assert len([one for one in sent.values() if one["class_type"] == "DynamicIDEncodeFace"]) == 1
    assert sent[load]["inputs"]["face_file"] == "Anna.safetensors" and outputs
    page.close()
    assert errors == []
