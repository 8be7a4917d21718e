"""The main template as somebody finds it who has installed the pack and has no models: opened, and Run pressed."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import comfy_host
import numpy as np
import pytest
from browsing import BOTH, NODES_2, open_page, run
from comfyui.finding import find_comfyui
from comfyui.folders import temporary_base
from comfyui.serving import Server, started
from PIL import Image

TITLE = "1 Two People"
SLOWEST = 300.0  # seconds of a run of 25 steps on a busy processor


@pytest.fixture(scope="module")
def untouched() -> Iterator[Server]:
    """A ComfyUI with this pack and an empty models folder, which the pack fills with the drawn world."""
    with temporary_base() as base:
        (base / "models/dynamicid").mkdir()
        with started(Path(sys.executable), find_comfyui(), comfy_host.OPTIONS, base) as running:
            yield running


@BOTH
def test_the_first_template_runs_as_it_is_opened(window, untouched: Server, nodes2: bool) -> None:
    page, errors = open_page(window, untouched, **{NODES_2: nodes2})
    page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text("comfyui-dynamicid", exact=True).first.click()
    page.get_by_text(TITLE, exact=True).first.click()
    page.wait_for_function("app.graph.nodes.length > 3")
    sent, outputs = run(page, untouched, SLOWEST)
    (saved,) = (outputs[number] for number, one in sent.items() if one["class_type"] == "SaveImage")
    made = np.asarray(Image.open(io.BytesIO(untouched.view(saved["images"][0]))).convert("RGB"))
    assert made.shape == (512, 768, 3) and made.std() > 20, "a picture, and no even colour"
    assert not page.locator(".p-toast-message").count()
    page.close()
    assert errors == []
