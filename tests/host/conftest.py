"""Fixtures for tests in a real ComfyUI; without one, everything in this folder is skipped, and the summary says so."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:  # whatever import mode pytest runs in, tests here import comfy_host by name
    sys.path.append(str(HERE))

import comfy_host  # noqa: E402
from browsing import browser, opened, page, site, window  # noqa: E402, F401  (fixtures)
from comfyui.finding import find_comfyui  # noqa: E402
from comfyui.folders import temporary_base  # noqa: E402
from comfyui.serving import Server, started  # noqa: E402
from environment import SetupError  # noqa: E402
from standins.models import cached_models, decoder_width_for  # noqa: E402
from studio import SMOOTH, Studio, one_thread  # noqa: E402

SHALLOW = HERE / "shallow_clip_vision.py"
HOW = (
    "tests/host SKIPPED: no ComfyUI found. Install one (pip install comfy-cli && comfy install) or set COMFYUI_PATH to "
    "its folder, install its requirements.txt into this Python, and run: python -m pytest tests/host"
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    try:
        found = find_comfyui()
    except SetupError as error:
        raise pytest.UsageError(str(error)) from None
    if found is None:
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="no ComfyUI found"))
                config.stash[_skipped] = True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash.get(_skipped, False):
        terminalreporter.write_line(HOW, red=True, bold=True)


_skipped = pytest.StashKey[bool]()


@contextlib.contextmanager
def base_folder() -> Iterator[Path]:
    """A base folder with the stand-in models and this pack."""
    comfyui = find_comfyui()
    with temporary_base(cached_models(decoder_width_for(comfyui))) as base:
        shutil.copy(SHALLOW, base / "custom_nodes")
        yield base


@pytest.fixture(scope="session", autouse=True)
def small_tensors() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def core_host() -> Iterator[comfy_host.Host]:
    """ComfyUI in this process with its own nodes only."""
    with base_folder() as base:
        host = comfy_host.Host(find_comfyui(), base)
        host.load_custom_node(base / "custom_nodes" / SHALLOW.name)
        yield host


@pytest.fixture(scope="session")
def host(core_host: comfy_host.Host) -> comfy_host.Host:
    """ComfyUI in this process with this pack loaded."""
    if core_host.pack is None:
        core_host.load_pack()
    return core_host


@pytest.fixture(scope="session")
def studio(host: comfy_host.Host) -> Studio:
    return Studio(host)


@pytest.fixture(scope="module")
def smooth(studio: Studio):
    """A model with two people and no threshold."""
    return studio.apply(**SMOOTH)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """ComfyUI over HTTP with this pack loaded."""
    with (
        base_folder() as base,
        started(Path(sys.executable), find_comfyui(), comfy_host.OPTIONS, base) as running,
    ):
        yield running
