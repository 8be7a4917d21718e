"""Write the help pages' pictures of nodes: ``python devtools/build_node_pictures.py [--server URL] [--only NODE]``, templates run as
they are opened, then each node as Nodes 2.0 shows it. The ComfyUI that runs there needs this pack and the drawn world's files;
Playwright and a Chromium are needed here.

Pictures of what nodes make, such as those of Refine Faces, are not written by this: they show no node."""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import time
from dataclasses import dataclass

from building import ROOT
from building.files import WORKFLOWS
from comfyui.speaking import Client
from environment import run_script
from PIL import Image

PICTURES = ROOT / "web/docs/images"
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.VueNodes.Enabled": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Workflow.Persist": False,
    "Comfy.RightSidePanel.IsOpen": False,
    "LiteGraph.Canvas.MaximumFps": 10,  # a page that is drawn without a graphics card takes a whole core
    "Comfy.Locale": "en",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SCALE = 1.5  # pixels of a picture for one of the page
LONGEST = 600.0  # seconds of a run
READY = (
    "() => Boolean(window.LiteGraph?.registered_node_types?.DynamicIDApply && window.app?.canvas && window.app.graph)"
)
SHOW = """id => {
    const node = app.graph.getNodeById(id)
    Object.assign(node, { title: LiteGraph.registered_node_types[node.type].title, color: undefined }) // not the template's
    app.canvas.ds.scale = 1
    app.canvas.centerOnNode(node)
    app.canvas.setDirty(true, true)
}"""
SCORE = """() => {
    const of = (type) => app.graph.nodes.find((node) => node.type === type)
    const score = LiteGraph.createNode("DynamicIDScoreFaces")
    score.pos = [of("SaveImage").pos[0], of("SaveImage").pos[1] + 1000]
    app.graph.add(score)
    const connect = (type, name) => of(type).connect(0, score, score.findInputSlot(name))
    connect("ImageScaleBy", "image")
    connect("DynamicIDPlaceFaces", "cast")
    connect("DynamicIDFaceAnalysis", "face_analysis")
}"""


@dataclass(frozen=True)
class Source:
    """A template, which of its nodes are shown, and what is added to it before it runs."""

    template: str
    nodes: tuple[str, ...]
    code: str = ""


SOURCES = (
    Source(
        "3 Two People in Boxes",
        ("DynamicIDPlaceFaces", "DynamicIDPreviewCast", "DynamicIDApply", "DynamicIDScoreFaces"),
        SCORE,
    ),
    Source("4 Expressions", ("DynamicIDEditMotion",)),
    Source("6 Three People with Masks", ("DynamicIDPlaceFace",)),
    Source("8 Group Photo", ("DynamicIDEncodeGroup",)),
    Source("9 Two People, Few Nodes", ("DynamicIDCast",)),
    Source("10 Found Places", ("DynamicIDGateMaps",)),
)


def run(page, client: Client) -> None:
    """Press Run and wait until the run is over."""
    with page.expect_response(lambda answer: answer.url.endswith("/prompt")) as sent:
        page.get_by_test_id("queue-button").click()
    number = sent.value.json()["prompt_id"]
    end = time.monotonic() + LONGEST
    while not client.get(f"/history/{number}").get(number):
        if time.monotonic() > end:
            raise TimeoutError(f"A run took longer than {LONGEST:g} s.")
        page.wait_for_timeout(500)
    page.wait_for_timeout(1500)  # pictures arrive


def picture(page, kind: str) -> Image.Image:
    """The last node of a kind, with what it shows."""
    number = page.evaluate("kind => app.graph.nodes.findLast((node) => node.type === kind).id", kind)
    page.evaluate(SHOW, number)
    page.wait_for_timeout(1000)
    shot = page.locator(f'[data-node-id="{number}"]').first.screenshot()
    return Image.open(io.BytesIO(shot)).convert("RGB")


def main(arguments: list[str]) -> int:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description="Write the pictures of nodes with a running ComfyUI and a Chromium.")
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="its address (default: %(default)s)")
    parser.add_argument("--only", help="a node's id (default: all)")
    options = parser.parse_args(arguments)
    client = Client(options.server)
    client.fetch("/settings", json.dumps(SETTINGS).encode())
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, BROWSERS)), None)  # None: Playwright's own
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        view = {"width": 1600, "height": 1600}
        for source in SOURCES:
            wanted = [node for node in source.nodes if options.only in (None, node)]
            if not wanted:
                continue
            page = browser.new_page(viewport=view, device_scale_factor=SCALE)
            page.goto(options.server)
            page.wait_for_function(READY)
            page.wait_for_timeout(2000)  # some time after it is there, the page opens its first graph
            workflow = json.loads((WORKFLOWS / f"{source.template}.json").read_text(encoding="utf-8"))
            page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
            page.wait_for_timeout(1000)
            if source.code:
                page.evaluate(source.code)
            run(page, client)
            for node in wanted:
                picture(page, node).save(PICTURES / f"{node}.jpg", quality=88)
            page.close()
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
