"""A browser in the host's real front end: how tests open pages, add nodes, press Run and read what is shown.

Playwright and a Chromium or Chrome are needed: the one that CHROMIUM_PATH names, one that is installed, or Playwright's
own. Without, tests are skipped with a warning that says so.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from comfyui.folders import link_file
from comfyui.serving import Server
from PIL import Image

from dynamicid_core.catalogue import model_file

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
HOW = (
    "no {}; install it (python -m pip install playwright, and Chromium, or set CHROMIUM_PATH) to run the browser tests"
)
NODES_2 = "Comfy.VueNodes.Enabled"
SETTINGS = {
    "Comfy.TutorialCompleted": True,  # no templates in front of the page
    NODES_2: True,  # the editor for boxes needs it
    "Comfy.Minimap.Visible": False,
    "Comfy.Workflow.Persist": False,  # begins with a graph of its own, not with the last test's
    "Comfy.Locale": "en",
}
WORLD = {
    key: f"drawn_world{part}.safetensors"
    for key, part in {"checkpoint": "", "vae": "_vae", "clip_vision": "_vision", "saa": "_saa", "imr": "_imr"}.items()
}
SLOWEST_RUN = 120.0  # seconds
BOTH = pytest.mark.parametrize("nodes2", [False, True], ids=["classic", "nodes2"])  # both kinds of nodes


def skip(what: str) -> None:
    warnings.warn(pytest.PytestWarning(f"browser tests SKIPPED: {HOW.format(what)}"), stacklevel=2)
    pytest.skip(HOW.format(what))


@pytest.fixture(scope="module")
def browser() -> Iterator:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        skip("Playwright")
    with sync_playwright() as playwright:
        named = os.environ.get("CHROMIUM_PATH")
        found = named or next(filter(None, map(shutil.which, BROWSERS)), None) or playwright.chromium.executable_path
        if not Path(found).exists():
            skip("Chromium")
        launched = playwright.chromium.launch(executable_path=found, headless=True, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def site(server: Server) -> Server:
    """The server, with a photo under the name that the workflows use, and face files to load and to upload."""
    from dynamicid_core.face_files import save_face
    from dynamicid_core.types import Face

    take_photo(server, 255)
    models = server.base / "models"
    for key, name in WORLD.items():  # stand-ins in the place of the drawn world's files
        link_file(models / model_file(key).path, models / model_file(key).folder / name)
    for name, folder in (("first", "input"), ("second", "input"), ("uploaded", "temp")):
        tokens = torch.randn(2, 1, 4, 768, generator=torch.Generator().manual_seed(len(name)))
        save_face(server.base / folder / f"{name}.safetensors", Face(tokens[0], tokens[1], "test"))
    return server


def take_photo(site: Server, number: int) -> None:
    """Another photo under the same name, so that the host does not skip nodes whose pictures a test waits for."""
    from skimage import data

    photo = data.astronaut()
    photo[0, 0] = number
    Image.fromarray(photo).save(site.base / "input/example.png")


@pytest.fixture(scope="module")
def window(browser) -> Iterator:
    """One browser window, which keeps what it has loaded once."""
    window = browser.new_context(viewport={"width": 1600, "height": 1000})
    yield window
    window.close()


@pytest.fixture
def page(window, site: Server) -> Iterator:
    """The front end with an empty graph; errors of the page fail the test."""
    opened, errors = open_page(window, site)
    yield opened
    opened.close()
    assert errors == []


@pytest.fixture(scope="module")
def opened(window, site: Server) -> Iterator[Callable]:
    """Front ends that several tests share, by the kind of nodes: each a page and its errors."""
    pages: dict[bool, tuple] = {}

    def shared(nodes2: bool) -> tuple:
        if nodes2 not in pages:
            pages[nodes2] = open_page(window, site, **{NODES_2: nodes2})
        return pages[nodes2]

    yield shared
    for page, _ in pages.values():
        page.close()


def open_page(window, site: Server, **settings):
    site.fetch("/settings", json.dumps(SETTINGS | settings).encode())
    page = window.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(site.url)
    page.wait_for_function("() => Boolean(window.LiteGraph?.registered_node_types?.DynamicIDApply)")
    page.wait_for_function(
        "() => Boolean(window.app?.canvas && window.app.graph && !document.querySelector('#splash-loader'))"
    )
    page.wait_for_timeout(500)  # some time after it is there, the page opens its first graph
    page.evaluate("app.graph.clear()")
    return page, errors


def add(page, kind: str, x: int, y: int, **values) -> str:
    """Add a node with these widget values; returns its id."""
    code = """([kind, x, y, values]) => {
        const node = LiteGraph.createNode(kind)
        node.pos = [x, y]
        app.graph.add(node)
        for (const [name, value] of Object.entries(values)) node.widgets.find((w) => w.name === name).value = value
        return node.id
    }"""
    return str(page.evaluate(code, [kind, x, y, values]))


def connect(page, source: str, output: int, target: str, name: str) -> None:
    code = """([source, output, target, name]) => {
        const [from, to] = [app.graph.getNodeById(source), app.graph.getNodeById(target)]
        from.connect(output, to, to.inputs.findIndex((input) => input.name === name))
    }"""
    page.evaluate(code, [source, output, target, name])


def node(page, number: str):
    """A node's element."""
    return page.locator(f'[data-node-id="{number}"]').first


def sees_picture(page, number: str) -> None:
    """Wait until a node shows a picture, whichever kind of nodes the page shows."""
    if page.evaluate("LiteGraph.vueNodesMode"):
        picture = node(page, number).locator("img").first
        picture.wait_for(state="attached")
        page.wait_for_function("image => image.complete && image.naturalWidth >= 64", arg=picture.element_handle())
        return
    page.evaluate(
        "id => app.canvas.centerOnNode(app.graph.getNodeById(id))", number
    )  # what is not in view is not loaded
    page.evaluate("app.canvas.setDirty(true, true)")
    page.wait_for_function("id => app.graph.getNodeById(id).imgs?.[0]?.naturalWidth >= 64", arg=number)


def run(page, site: Server, slowest: float = SLOWEST_RUN) -> tuple[dict, dict]:
    """Press Run and wait: the graph as the page sent it, and its outputs. Fails if the host refuses it or it fails."""
    with page.expect_response(
        lambda answer: answer.url.endswith("/prompt") and answer.request.method == "POST"
    ) as sent:
        page.get_by_test_id("queue-button").click()
    answer = sent.value.json()
    assert not answer.get("error") and not answer["node_errors"], answer
    end = time.monotonic() + slowest
    while time.monotonic() < end:
        if done := site.get(f"/history/{answer['prompt_id']}").get(answer["prompt_id"]):
            assert done["status"]["status_str"] == "success", done["status"]
            return json.loads(sent.value.request.post_data)["prompt"], done["outputs"]
        page.wait_for_timeout(200)
    raise TimeoutError(f"The run did not end within {slowest:g} s:\n{site.log()[-2000:]}")


def other_tab_and_back(page) -> None:
    """Open an empty graph in a tab of its own, and come back to the one before."""
    tabs = page.get_by_test_id("topbar-workflow-tabs").locator(".workflow-label")
    count, nodes = tabs.count(), page.evaluate("app.graph.nodes.length")
    page.evaluate("app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    page.wait_for_function("app.graph.nodes.length === 0")
    tabs.nth(count - 1).click()
    page.wait_for_function("count => app.graph.nodes.length === count", arg=nodes)
    page.wait_for_timeout(500)


def open_search(page) -> None:
    """Open the search for nodes; just after the page has loaded, its canvas may miss a double click."""
    for _ in range(5):
        page.mouse.dblclick(800, 500)
        page.wait_for_timeout(1000)
        if page.locator("input:focus").count():
            return
    raise AssertionError("A double click on the canvas does not open the search.")


def shrink(page) -> None:
    """Few steps and a tiny picture, also inside subgraphs: the way is tested, not the art. The stand-ins' face models."""
    page.evaluate("""() => {
        const small = {
            KSampler: { steps: 2 }, EmptyLatentImage: { width: 64, height: 64 }, ImageScaleBy: { scale_by: 1 },
            DynamicIDFaceAnalysis: { model_pack: "buffalo_l" }, DynamicIDEncodeFace: { on_no_face: "clip only" },
            DynamicIDLoadModels: { model_pack: "buffalo_l" }, DynamicIDCast: { on_no_face: "clip only" },
            DynamicIDEncodeGroup: { names: "" },
            DynamicIDDrawnPerson: { seed: 10000 } // somebody whom the stand-ins find: films edit faces
        }
        const outside = { steps: 2, width: 64, height: 64, enlarge: 1, "face models": "buffalo_l" }
        const visit = (graph) => {
            for (const node of graph.nodes) {
                for (const [name, value] of Object.entries(node.subgraph ? outside : (small[node.type] ?? {}))) {
                    node.widgets.find((widget) => widget.name === name).value = value
                }
                if (node.subgraph) visit(node.subgraph)
            }
        }
        visit(app.graph)
        const group = app.graph.nodes.find((node) => node.type === "DynamicIDEncodeGroup")
        if (!group) return // the stand-ins find nobody in drawn photos: one of a person takes its place
        const photo = LiteGraph.createNode("LoadImage")
        app.graph.add(photo)
        photo.widgets.find((widget) => widget.name === "image").value = "example.png"
        app.graph.remove(app.graph.nodes.find((node) => node.type === "DynamicIDDrawnPerson"))
        photo.connect(0, group, group.inputs.findIndex((input) => input.name === "image"))
    }""")


def preview_of_cast(page, site: Server, place: str) -> Image.Image:
    preview = add(page, "DynamicIDPreviewCast", 1200, 400, width=512, height=512)
    connect(page, place, 0, preview, "cast")
    _, outputs = run(page, site)
    return Image.open(io.BytesIO(site.view(outputs[preview]["images"][0]))).convert("RGB")


def face_with_portrait(path: Path) -> Path:
    """A face file with identity and portrait."""
    from dynamicid_core.face_files import save_face
    from dynamicid_core.types import Face

    values = torch.randn(2, 1, 4, 768, generator=torch.Generator().manual_seed(len(path.stem)))
    identity = torch.nn.functional.normalize(values[0].flatten()[:512], dim=0)
    face = Face(values[0], values[1], "test", identity, thumbnail=torch.full((64, 64, 3), 0.75))
    return save_face(path, face, portrait=True)


def drag(page, canvas, start: tuple[float, float], end: tuple[float, float]) -> None:
    """From one place of a drawing to another, as fractions of it."""
    frame = canvas.bounding_box()
    (x, y), (u, v) = ((frame["x"] + frame["width"] * a, frame["y"] + frame["height"] * b) for a, b in (start, end))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move((x + u) / 2, (y + v) / 2)
    page.mouse.move(u, v)
    page.mouse.up()


def widgets(page, number: str) -> dict:
    return dict(page.evaluate("id => app.graph.getNodeById(id).widgets.map((w) => [w.name, w.value])", number))


def press(page, number: str, widget: str) -> None:
    """Click on a button of a node, whichever kind of nodes the page shows."""
    if page.evaluate("LiteGraph.vueNodesMode"):
        label = "([id, name]) => app.graph.getNodeById(id).widgets.find((w) => w.name === name).label"
        node(page, number).get_by_text(page.evaluate(label, [number, widget]), exact=True).click()
        return
    code = """([id, name]) => {
        const [node, { offset, scale }] = [app.graph.getNodeById(id), app.canvas.ds]
        const [frame, y] = [app.canvas.canvas.getBoundingClientRect(), node.widgets.find((w) => w.name === name).y]
        return [frame.x + (node.pos[0] + 60 + offset[0]) * scale, frame.y + (node.pos[1] + y + 10 + offset[1]) * scale]
    }"""
    page.wait_for_timeout(300)  # widgets get their places when the canvas is drawn
    page.mouse.click(*page.evaluate(code, [number, widget]))
