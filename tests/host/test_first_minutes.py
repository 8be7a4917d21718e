"""The first minutes of an artist in the host's real front end: the gallery, a template, its languages, its models, its
drawings, and what a page shows that was opened anew."""

from __future__ import annotations

import io
import json

import pytest
from browsing import (
    BOTH,
    NODES_2,
    WORLD,
    add,
    connect,
    drag,
    face_with_portrait,
    node,
    open_page,
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

from dynamicid_core.captions import person_color
from dynamicid_core.catalogue import model_file
from dynamicid_core.outlines import parse_outlines

TITLES = sorted(
    (file.stem for file in (REPOSITORY / "workflows").glob("*.json")), key=lambda title: int(title.split()[0])
)
LANGUAGES = ("zh", "ja", "ko", "fr", "es")
IMAGES = "id => (app.nodeOutputs[id]?.images ?? []).map((image) => image.filename)"  # what a node shows


def template(title: str) -> dict:
    return json.loads((REPOSITORY / "workflows" / f"{title}.json").read_text(encoding="utf-8"))


def open_template(page, title: str) -> None:
    page.evaluate("workflow => app.loadGraphData(workflow)", template(title))
    page.wait_for_timeout(500)


def number_of(page, title: str) -> str:
    """A node's id, by its title in English."""
    return str(page.evaluate("title => app.graph.nodes.find((node) => node.title === title).id", title))


# --- the gallery and the language ---------------------------------------------------------------------------------


@BOTH
def test_the_gallery_has_the_shortest_graph_first_and_opens_it(window, site: Server, nodes2: bool) -> None:
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text("comfyui-dynamicid", exact=True).first.click()
    for title in TITLES:
        page.get_by_text(title, exact=True).first.wait_for()
    shown = [text.strip() for text in page.locator("h3").all_inner_texts()]
    assert [text for text in shown if text in TITLES] == TITLES
    pictures = "[...document.querySelectorAll('img')].filter((image) => image.naturalWidth > 500).length"
    page.wait_for_function(f"count => {pictures} === count", arg=len(TITLES))  # photos, and what came of them
    page.get_by_text(TITLES[0], exact=True).first.click()
    page.wait_for_function("app.graph.nodes.length > 3")
    kinds = page.evaluate("app.graph.nodes.filter((n) => n.type !== 'MarkdownNote').map((n) => n.type)")
    assert len(kinds) == 4 and kinds.count("DynamicIDDrawnPerson") == 2 and "SaveImage" in kinds
    page.close()
    assert errors == []


@pytest.mark.parametrize(
    "language, nodes2", [("zh", False), *((language, True) for language in LANGUAGES)], ids=lambda value: str(value)
)
def test_a_template_speaks_the_language_of_the_page(window, site: Server, language: str, nodes2: bool) -> None:
    page, errors = open_page(window, site, **{"Comfy.Locale": language, NODES_2: nodes2})
    words = json.loads((REPOSITORY / f"locales/{language}/main.json").read_text(encoding="utf-8"))["dynamicidTemplates"]
    names = json.loads((REPOSITORY / f"locales/{language}/nodeDefs.json").read_text(encoding="utf-8"))
    file = template("4 Expressions")
    open_template(page, "4 Expressions")
    titles = dict(page.evaluate("app.graph.nodes.map((node) => [Number(node.id), node.title])"))
    for one in file["nodes"]:
        own = one.get("title")
        assert own or one["type"] not in names or titles[one["id"]] == names[one["type"]]["display_name"]
        assert own is None or titles[one["id"]] == words[own]
    if not nodes2:
        fields = "app.graph.nodes.filter((n) => n.type === 'DynamicIDEditMotion').map((n) => n.widgets[0].element.placeholder)"
        assert page.evaluate(fields) == [names["DynamicIDEditMotion"]["inputs"]["expression"]["name"]] * 2
    assert page.evaluate("app.graph.groups.map((group) => group.title)") == [
        words[group["title"]] for group in file["groups"]
    ]
    notes = page.evaluate("app.graph.nodes.filter((n) => n.type === 'MarkdownNote').map((n) => n.widgets[0].value)")
    assert notes == [words[one["widgets_values"][0]] for one in file["nodes"] if one["type"] == "MarkdownNote"]
    page.close()
    assert errors == []


@BOTH
def test_a_blueprint_speaks_the_language_of_the_page(window, site: Server, nodes2: bool) -> None:
    page, errors = open_page(window, site, **{"Comfy.Locale": "ja", NODES_2: nodes2})
    words = json.loads((REPOSITORY / "locales/ja/main.json").read_text(encoding="utf-8"))["dynamicidBlueprints"]
    open_template(page, "1 Two People")
    shown = "n => [n.title, ...n.inputs.map((i) => i.label), ...n.widgets.map((w) => w.label), n.outputs[0].label]"
    found = page.evaluate(f"app.graph.nodes.filter((n) => n.subgraph).flatMap({shown})")
    assert len(found) > 20 and set(found) - {None} <= set(words.values())
    for english in ("photo 1", "photo 2", "prompt", "steps", "checkpoint", "Two People (DynamicID)"):
        assert words[english] in found
        if nodes2:
            page.get_by_text(words[english], exact=True).first.wait_for()
    sent = page.evaluate("app.graphToPrompt()")["output"]
    assert len([one for one in sent.values() if one["class_type"] == "DynamicIDEncodeFace"]) == 2  # as before
    page.close()
    assert errors == []


def test_steps_and_our_links_have_colours(page) -> None:
    open_template(page, "3 Two People in Boxes")
    colors = page.evaluate("app.graph.groups.map((group) => group.color)")
    assert len(set(colors)) == len(colors) == 6
    types = ("DYNAMICID", "FACE_ANALYSIS", "DYNAMICID_FACE", "DYNAMICID_CAST")
    links = page.evaluate("types => types.map((type) => LGraphCanvas.link_type_colors[type])", list(types))
    assert all(links) and len(set(links)) == len(types)


# --- models -------------------------------------------------------------------------------------------------------


@BOTH
def test_a_button_turns_a_template_to_photos_and_back(window, site: Server, nodes2: bool) -> None:
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    open_template(page, "3 Two People in Boxes")
    loader = page.evaluate("app.graph.nodes.find((node) => node.type === 'DynamicIDLoader').id")
    page.evaluate("id => app.canvas.centerOnNode(app.graph.getNodeById(id))", loader)
    page.evaluate("app.canvas.setZoom?.(1)")
    page.wait_for_timeout(500)

    def values() -> dict:
        code = "app.graph.nodes.flatMap((n) => (n.widgets ?? []).map((w) => [`${n.id}.${w.name}`, w.value]))"
        return {name: value for name, value in page.evaluate(code) if "$" not in name}  # the page's own: previews

    drawn, wanted = values(), template("3 Two People in Boxes")["extra"]["dynamicid"]["for_photos"]
    press(page, str(loader), "switch")
    page.wait_for_function("app.graph.extra.dynamicid.photos === true")
    photos = values()
    for number, widgets_of in wanted.items():
        for name, value in widgets_of.items():
            assert photos[f"{number}.{name}"] == value
    assert photos[f"{loader}.imr_file"] == "auto", "chosen by itself where a file is there"
    assert photos[f"{loader}.saa_file"] == model_file("saa").name
    page.keyboard.press("Escape")  # what the host says of files that are missing
    page.wait_for_timeout(500)
    press(page, str(loader), "switch")
    page.wait_for_function("app.graph.extra.dynamicid.photos === false")
    assert values() == drawn
    page.close()
    assert errors == []


@BOTH
def test_a_folder_of_models_that_goes_while_the_host_runs_is_a_sentence(window, site: Server, nodes2: bool) -> None:
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    open_template(page, "2 One Person")
    shrink(page)
    answers: list[int] = []
    page.on("response", lambda answer: answers.append(answer.status))
    folder = site.base / "models/dynamicid"
    away = folder.rename(site.base / "dynamicid elsewhere")
    try:
        page.get_by_test_id("queue-button").click()
        said = page.locator(".p-toast-message").filter(has_text="Load DynamicID")
        said.get_by_text(f"There is no file '{WORLD['saa']}' in models/dynamicid.").wait_for()
        names = site.get("/object_info/DynamicIDLoader")["DynamicIDLoader"]["input"]["required"]["saa_file"][1][
            "options"
        ]
        assert names == []
        again, more = open_page(window, site, **{NODES_2: nodes2})  # nor does a page opened then miss our nodes
        again.close()
        assert more == []
    finally:
        away.rename(folder)
    assert answers and max(answers) < 500
    run(page, site)
    page.close()
    assert errors == []


@BOTH
def test_models_for_photos_that_are_not_there_are_offered(window, site: Server, nodes2: bool) -> None:
    file = site.base / "models" / model_file("vae").path
    away = file.rename(site.base / file.name)
    try:
        page, errors = open_page(window, site, **{NODES_2: nodes2})
        open_template(page, "3 Two People in Boxes")
        loader = page.evaluate("app.graph.nodes.find((node) => node.type === 'DynamicIDLoader').id")
        page.evaluate("id => app.canvas.centerOnNode(app.graph.getNodeById(id))", loader)
        page.evaluate("app.canvas.setZoom?.(1)")
        press(page, str(loader), "switch")
        page.get_by_test_id("error-overlay-see-errors").click()
        page.get_by_test_id("missing-model-download").first.wait_for()
        assert page.get_by_text(file.name).first.is_visible()
    finally:
        away.rename(file)
    page.close()
    assert errors == []


# --- places -------------------------------------------------------------------------------------------------------


@BOTH
def test_a_place_is_drawn_around_in_the_node_and_removed(window, site: Server, nodes2: bool) -> None:
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    places = []
    for number, name in enumerate(("first", "second")):
        face = add(page, "DynamicIDLoadFace", 50, 50 + 350 * number, face_file=f"{name}.safetensors")
        places.append(add(page, "DynamicIDPlaceFace", 450 + 350 * number, 50))
        connect(page, face, 0, places[-1], "face")
    connect(page, places[0], 0, places[1], "cast")
    canvases = page.locator(".dynamicid-outlines canvas")
    canvases.nth(1).wait_for()
    page.wait_for_timeout(500)

    def outlines(number: int) -> list:
        return parse_outlines(widgets(page, places[number])["outline"])

    def draw(number: int, left: float, right: float) -> None:
        frame = canvases.nth(number).bounding_box()
        corners = [(left, 0.1), (right, 0.1), (right, 0.9), (left, 0.9), (left, 0.2)]
        points = [(frame["x"] + frame["width"] * x, frame["y"] + frame["height"] * y) for x, y in corners]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=4)
        page.mouse.up()
        page.wait_for_timeout(300)

    drag(page, canvases.nth(0), (0.5, 0.5), (0.505, 0.505))
    assert outlines(0) == [], "a click is no outline"
    draw(0, 0.1, 0.4)
    draw(1, 0.6, 0.9)
    assert [len(outlines(number)) for number in (0, 1)] == [1, 1]
    (first,) = outlines(0)
    assert min(x for x, _ in first) == pytest.approx(0.1, abs=0.02)
    assert max(y for _, y in first) == pytest.approx(0.9, abs=0.02)
    shown = canvases.nth(1).evaluate("""canvas => [0.25, 0.5, 0.75].map((x) =>
        [...canvas.getContext("2d").getImageData(x * canvas.width, 0.3 * canvas.height, 1, 1).data])""")
    assert len({tuple(pixel) for pixel in shown}) == 3, "the other person, nobody, and one's own"
    picture = preview_of_cast(page, site, places[1])
    one, nobody, two = (picture.getpixel((int(x * 512), 400)) for x in (0.25, 0.5, 0.75))
    assert len({one, nobody, two}) == 3
    frame = canvases.nth(0).bounding_box()
    page.mouse.dblclick(frame["x"] + frame["width"] * 0.25, frame["y"] + frame["height"] * 0.5)
    assert outlines(0) == [] and len(outlines(1)) == 1
    page.close()
    assert errors == []


@BOTH
def test_people_are_counted_on_from_node_to_node_and_drawn_beside_ones_own(window, site: Server, nodes2: bool) -> None:
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    photo = add(page, "LoadImage", 50, 50, image="example.png")
    files = {"ckpt_name": "checkpoint", "vae_name": "vae", "clip_name": "clip_vision", "saa_file": "saa"}
    names = {widget: WORLD[key] for widget, key in files.items()}
    models = add(page, "DynamicIDLoadModels", 50, 500, model_pack="buffalo_l", **names)
    group = add(page, "DynamicIDEncodeGroup", 400, 50)
    cast = add(page, "DynamicIDCast", 750, 50, layout="rows", on_no_face="clip only")
    place = add(page, "DynamicIDPlaceFace", 1150, 50)
    connect(page, photo, 0, group, "image")
    connect(page, photo, 0, cast, "photos.photo0")
    for number, name in ((3, "dynamicid"), (4, "clip_vision"), (5, "face_analysis")):
        for encoder in (group, cast):
            connect(page, models, number, encoder, name)
    connect(page, group, 1, cast, "cast")
    connect(page, cast, 0, place, "cast")
    connect(page, group, 0, place, "face")
    canvas = page.locator(".dynamicid-outlines canvas").first
    canvas.wait_for()
    title = "canvas => { canvas.parentElement.dispatchEvent(new Event('pointerenter')); return canvas.title }"
    page.wait_for_function(f"canvas => ({title})(canvas).includes('person n+2')", arg=canvas.element_handle())
    labels = "([id, ends]) => app.graph.getNodeById(id)[ends].map((slot) => slot.label).filter(Boolean)"
    uncounted = page.evaluate(labels, [group, "outputs"]) + page.evaluate(labels, [cast, "inputs"])
    assert uncounted == ["cast (people: counted in a run)", "person n+1", "person n+2", "mask of person n+1"]
    preview = add(page, "DynamicIDPreviewCast", 1150, 500)
    connect(page, place, 0, preview, "cast")
    _, outputs = run(page, site)
    (box,) = outputs[group]["places"]
    assert 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1
    page.wait_for_function(f"canvas => ({title})(canvas).includes('person 3')", arg=canvas.element_handle())
    counted = page.evaluate(labels, [group, "outputs"]) + page.evaluate(labels, [cast, "inputs"])
    assert counted == ["cast (people: 1)", "person 2", "person 3", "mask of person 2"]
    if nodes2:
        node(page, cast).get_by_text("person 2", exact=True).wait_for()
    boxes = page.locator(".dynamicid-boxes canvas").first
    edge = boxes.evaluate("""canvas => [...canvas.getContext("2d").getImageData(
        Math.round(0.04 * canvas.width), Math.round(0.5 * canvas.height), 1, 1).data].slice(0, 3)""")
    assert edge == pytest.approx(person_color(1), abs=40), "as person 2 is drawn everywhere"
    for number in (group, cast, preview):
        sees_picture(page, number)
    page.evaluate(
        "saved => { app.nodeOutputs = {}; return app.loadGraphData(saved) }", page.evaluate("app.graph.serialize()")
    )
    assert page.evaluate(labels, [cast, "inputs"]) == counted[1:], "a graph keeps whom a run counted"
    page.close()
    assert errors == []


def test_the_template_with_masks_has_three_places_to_draw_on(page, site: Server) -> None:
    open_template(page, "6 Three People with Masks")
    shrink(page)
    page.wait_for_function("document.querySelectorAll('.dynamicid-outlines canvas').length === 3")
    sent = page.evaluate("app.graphToPrompt()")["output"]
    places = [entry["inputs"] for entry in sent.values() if entry["class_type"] == "DynamicIDPlaceFace"]
    assert len(places) == 3 and all(parse_outlines(place["outline"]) and "mask" not in place for place in places)
    assert len({place["outline"] for place in places}) == 3


@BOTH
def test_the_pictures_size_is_that_of_drawings_and_previews(window, site: Server, nodes2: bool) -> None:
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    open_template(page, "3 Two People in Boxes")
    size = number_of(page, "Picture size")
    boxes = "app.graph.nodes.find((node) => node.type === 'DynamicIDPlaceFaces')"
    page.evaluate(f"app.canvas.centerOnNode({boxes})")
    page.locator(".dynamicid-boxes canvas").first.wait_for()
    set_size = (
        "([id, w, h]) => { const n = app.graph.getNodeById(id); [n.widgets[0].value, n.widgets[1].value] = [w, h] }"
    )
    for width, height in ((640, 320), (256, 512)):
        page.evaluate(set_size, [size, width, height])
        canvas = page.locator(".dynamicid-boxes canvas").first
        canvas.dispatch_event("pointerenter")
        page.locator(".dynamicid-boxes").first.dispatch_event("pointerenter")
        drawn = canvas.evaluate("canvas => canvas.width / canvas.height")
        assert drawn == pytest.approx(width / height, rel=0.05)
    sent = page.evaluate("app.graphToPrompt()")["output"]
    (preview,) = (entry["inputs"] for entry in sent.values() if entry["class_type"] == "DynamicIDPreviewCast")
    assert preview["latent"] == [size, 0]
    page.close()
    assert errors == []


# --- a page that was opened anew ----------------------------------------------------------------------------------


@BOTH
def test_previews_are_there_in_a_page_opened_anew_and_after_a_cached_run(window, site: Server, nodes2: bool) -> None:
    name = f"kept {nodes2}"
    face_with_portrait(site.base / f"input/{name}.safetensors")
    page, errors = open_page(window, site, **{NODES_2: nodes2})
    load = add(page, "DynamicIDLoadFace", 50, 100, face_file=f"{name}.safetensors")
    place, preview = add(page, "DynamicIDPlaceFace", 400, 100), add(page, "DynamicIDPreviewCast", 800, 100)
    connect(page, load, 0, place, "face")
    connect(page, place, 0, preview, "cast")
    page.evaluate("id => { app.graph.getNodeById(id).widgets[0].value = 256 }", preview)
    _, outputs = run(page, site)
    drawn = Image.open(io.BytesIO(site.view(outputs[preview]["images"][0]))).convert("RGB")
    assert (191, 191, 191) in {color for _, color in drawn.getcolors(1 << 20)}, "the portrait of the only person"
    saved = page.evaluate("app.graph.serialize()")
    page.close()

    page, more = open_page(window, site, **{NODES_2: nodes2})
    other = json.loads(json.dumps(saved))
    (changed,) = (one for one in other["nodes"] if str(one["id"]) == preview)
    changed["widgets_values"][0] = 320
    page.evaluate("other => app.loadGraphData(other)", other)
    page.wait_for_function(f"id => ({IMAGES})(id).length", arg=load)
    page.wait_for_timeout(500)
    assert page.evaluate(IMAGES, preview) == [], "no run has computed this"
    page.evaluate("saved => app.loadGraphData(saved)", saved)
    for number in (load, preview):
        page.wait_for_function(f"id => ({IMAGES})(id).length", arg=number)
        assert page.evaluate(IMAGES, number) == [outputs[number]["images"][0]["filename"]]
    _, again = run(page, site)
    assert {load, preview} <= again.keys(), "what is in the host's cache is sent again"
    other_tab_and_back(page)
    for number in (load, preview):
        assert page.evaluate(IMAGES, number) == [again[number]["images"][0]["filename"]]
    assert Image.open(io.BytesIO(site.view(again[load]["images"][0]))).size[0] >= 64
    page.close()
    assert errors == more == []
