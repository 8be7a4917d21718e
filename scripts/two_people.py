"""Two people in one picture, made by ComfyUI: ``python scripts/two_people.py``, or with photos ``... a.jpg b.jpg``.

It finds ComfyUI (see comfyui/finding.py) or offers to install one, finds or fetches the models, starts a server with this
very copy of the pack unless one runs with it, queues ``workflows/api/two_people.json`` and saves the picture. What is linked
into ComfyUI stays as it is: the server has a base folder of its own, which is gone afterwards. Without photos, or with
``--stand-in``, the models are those of the drawn world, which the project brings, and nothing is fetched.

Starts with the standard library alone, then runs itself again in the Python of ComfyUI.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import drawn_world
import model_files
import setup
from comfyui.finding import comfyui_python, find_comfyui
from comfyui.folders import linked_pack, temporary_base
from comfyui.serving import started
from comfyui.speaking import Client
from environment import ROOT, SetupError, has_modules, install, need_core, project_environment, run_script

INNER = "DYNAMICID_IN_COMFYUI_PYTHON"  # set for the second run
REQUIREMENTS = ("insightface", "onnxruntime", "safetensors")  # modules of requirements.txt
BAR = 30  # characters


class NoComfyUI(SetupError):
    """There is none, and none could be installed."""


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Two people in one picture, made by ComfyUI: from two photos, or drawn."
    )
    add = parser.add_argument
    add("photos", nargs="*", type=Path, metavar="PHOTO", help="a photo of each person (none: two drawn people)")
    add("--prompt", help="what the picture shows (default: two people in a park; drawn: before blue)")
    add(
        "--expression-a",
        metavar="TEXT",
        help='what the first face shows, e.g. "a very surprised expression, front view"',
    )
    add("--expression-b", metavar="TEXT", help="the same for the second face (default: as in the photo)")
    add("--seed", type=int, default=20, help="default: %(default)s")
    add("--steps", type=int, help="sampling steps (default: 50; drawn: 25)")
    add("--size", type=int, help="width and height in pixels, a multiple of 8 (default: 768; drawn: 192 x 128)")
    add("--output", type=Path, default=Path("two_people.png"), help="the picture's file (default: %(default)s)")
    add(
        "--stand-in",
        action="store_true",
        help="the drawn world's models, as without photos; give pictures of its people",
    )
    add("--port", type=int, default=8188, help="where ComfyUI runs or is started (default: %(default)s)")
    add("--server", metavar="URL", help="use the ComfyUI that runs at this address, with the models that it has")
    add("--yes", action="store_true", help="agree to every question: installation, downloads, the face models' licence")
    options = parser.parse_args(arguments)
    if len(options.photos) not in (0, 2):
        parser.error(
            f"two photos are needed, and {len(options.photos)} were given (without any, drawn people are shown)"
        )
    if options.server and not options.photos:
        parser.error("--server needs two photos: drawn people have models of their own")
    if options.size is not None and not (64 <= options.size <= 4096 and options.size % 8 == 0):
        parser.error(f"--size {options.size}: it must be a multiple of 8 from 64 to 4096")
    if options.steps is not None and not 1 <= options.steps <= 1000:
        parser.error(f"--steps {options.steps}: it must lie between 1 and 1000")
    if not 0 <= options.seed < 2**64:
        parser.error(f"--seed {options.seed}: it must lie between 0 and 2^64 - 1")
    if not 1 <= options.port <= 65535:
        parser.error(f"--port {options.port}: it must lie between 1 and 65535")
    if options.server and not _is_address(options.server):
        parser.error(f"--server {options.server}: give an address such as http://127.0.0.1:8188")
    if options.stand_in and options.server:
        parser.error("--stand-in starts a server of its own; leave --server out")
    options.stand_in = options.stand_in or not options.photos
    return options


def _is_address(text: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        return False


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    for photo in options.photos:
        if photo.is_dir():
            raise SetupError(f"{photo} is a folder; name a photo in it.")
        if not photo.is_file():
            raise SetupError(f"There is no photo {photo}.")
    save_picture(options)
    if os.environ.get(INNER):
        return make_picture(options)
    try:
        python, comfyui = prepare(options)
    except NoComfyUI as error:
        print(f"{error}\nGoing on without ComfyUI: the same method on diffusers.", file=sys.stderr)
        return without_comfyui(options)
    variables = os.environ | {INNER: "1"} | ({"COMFYUI_PATH": str(comfyui)} if comfyui else {})
    command = [str(python), str(Path(__file__).resolve()), *arguments]
    if os.name == "posix":  # the same process goes on, so that signals reach it; Windows knows no such thing
        sys.stdout.flush()
        os.execve(command[0], command, variables)
    return subprocess.run(command, env=variables).returncode


def save_picture(options: argparse.Namespace, picture: bytes | None = None) -> None:
    """Save it; without one, only see to it that it could be saved. Photos stay, and so do pictures of others."""
    need_core()
    from dynamicid_core.errors import DynamicIDError
    from dynamicid_core.writing import Kind, check_file, write

    kind = Kind("a picture that DynamicID made", _is_ours)
    try:
        if picture is None:
            check_file(options.output, kind, options.photos)
        else:
            write(options.output, picture, kind, options.photos)
    except DynamicIDError as error:
        raise SetupError(str(error)) from None


def _is_ours(path: Path) -> bool:
    """Whether a picture remembers our nodes, as ComfyUI writes a graph into it, or our command line."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return content.startswith(b"\x89PNG") and b"dynamicid" in content.lower()


# --- before: with any Python --------------------------------------------------------------------------------------


def prepare(options: argparse.Namespace) -> tuple[Path, Path | None]:
    """ComfyUI's Python with what this pack needs, and its folder (None: only a server elsewhere is used).

    Raises NoComfyUI if there is none and none could be installed.
    """
    comfyui = find_comfyui()
    if options.server:
        python = (comfyui_python(comfyui) if comfyui else None) or Path(sys.executable)
        if not has_modules(python, "aiohttp"):
            raise SetupError(
                f"{python} lacks aiohttp, which --server needs; install it: {python} -m pip install aiohttp"
            )
        return python, comfyui
    if comfyui is None:
        try:
            comfyui = setup.install_comfyui(options.yes)
        except SetupError as error:
            raise NoComfyUI(str(error)) from None
    setup.check_version(comfyui)
    python = comfyui_python(comfyui) or project_environment(comfyui)
    if not has_modules(python, *REQUIREMENTS):
        print(f"Installing what this pack needs into {python} ...", flush=True)
        install(python, *setup.missing_requirements(python))
    return python, comfyui


def without_comfyui(options: argparse.Namespace) -> int:
    """The same job on diffusers, in the project's own environment."""
    command = [str(project_environment()), "-m", "dynamicid_core", "generate", "--explain"]
    command += ["--stand-in"] if options.stand_in else []
    for photo, expression in zip(options.photos, (options.expression_a, options.expression_b), strict=False):
        command += ["--face", str(photo), *(["--expression", expression] if expression else [])]
    values = {"--prompt": options.prompt, "--seed": options.seed, "--steps": options.steps, "--size": options.size}
    values["--output"] = options.output
    command += [word for name, value in values.items() if value is not None for word in (name, str(value))]
    return subprocess.run(command).returncode


# --- then: in ComfyUI's Python ------------------------------------------------------------------------------------


def make_picture(options: argparse.Namespace) -> int:
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(drawn_host() if options.stand_in else own_host(options))
        photos = options.photos or stack.enter_context(drawn_photos(options))
        chosen = {}
        if not options.stand_in:
            edited = any((options.expression_a, options.expression_b))
            models = None if options.server else find_comfyui() / "models"
            chosen = model_files.choose(client, models, edited, options.yes)
        graph = fill_graph(options, [client.upload(photo) for photo in photos], chosen)
        if options.stand_in:
            drawn_world.adapt(graph, options)
        outputs = client.run_graph(graph, show_progress).ui
        clear_progress()
        (saved,) = (node for node, content in graph.items() if content["class_type"] == "SaveImage")
        picture = client.view(outputs[saved]["images"][0])
    save_picture(options, picture)
    print(f"Saved {options.output.resolve()} ({time.monotonic() - started:.0f} s).")
    if options.stand_in:
        print("It was made with the drawn world's small models; for people of your own give two photos.")
    return 0


@contextlib.contextmanager
def drawn_host() -> Iterator[Client]:
    """A ComfyUI of our own whose base folder holds nothing but this pack and the drawn world's models."""
    print("The drawn world: small networks that know drawn people; faces in photos mean nothing to them.", flush=True)
    with temporary_base() as base:
        drawn_world.fill(base / "models", lambda name, done, total: show_progress("Making " + name, done, total))
        clear_progress()
        with started_server(base=base) as client:
            yield client


@contextlib.contextmanager
def own_host(options: argparse.Namespace) -> Iterator[Client]:
    """The ComfyUI that the user named, or has running with this very pack; else one that is started for this picture,
    with this pack in a base folder of its own."""
    client = Client(options.server or f"http://127.0.0.1:{options.port}")
    with contextlib.ExitStack() as stack:
        if not options.server:
            comfyui = find_comfyui()
            runs, other = client.is_alive(), linked_pack(comfyui)
            if runs and other != ROOT:
                having = f"another copy of this pack, {other}" if other else "no link to this pack"
                print(f"ComfyUI runs at {client.url}, but has {having}; starting another one.", flush=True)
            if not runs or other != ROOT:
                base = stack.enter_context(temporary_base(whole=comfyui / "models"))
                client = stack.enter_context(started_server(base, None if runs else options.port))
        if not client.get("/object_info/DynamicIDApply"):
            raise SetupError(
                f"The ComfyUI at {client.url} runs without this pack; restart it, or choose another --port."
            )
        yield client


def started_server(base: Path | None = None, port: int | None = None) -> contextlib.AbstractContextManager[Client]:
    """The ComfyUI that was found, started in this Python on the best device."""
    import torch

    available = [torch.cuda.is_available(), torch.backends.mps.is_available()]
    available.append(hasattr(torch, "xpu") and torch.xpu.is_available())
    print("Starting ComfyUI ...", flush=True)
    device = [] if any(available) else ["--cpu", "--use-pytorch-cross-attention"]  # its default is far slower there
    return started(Path(sys.executable), find_comfyui(), device, base, port)


@contextlib.contextmanager
def drawn_photos(options: argparse.Namespace) -> Iterator[list[Path]]:
    """Pictures of two drawn people, where no photos were given; what is not said of their faces is chosen for them."""
    print("No photos were given, so two drawn people are shown, asked to look happy and surprised.", flush=True)
    happy, surprised = drawn_world.EXPRESSIONS
    options.expression_a, options.expression_b = options.expression_a or happy, options.expression_b or surprised
    with tempfile.TemporaryDirectory() as folder:
        yield drawn_world.draw_people(Path(folder))


def fill_graph(options: argparse.Namespace, photos: list[str], chosen: dict[tuple[str, str], str]) -> dict[str, dict]:
    """The workflow's API format with the photos (names in the host's input folder), models and settings put in.

    ``chosen``: (type of node, input) -> model file, where it is another than the workflow's.
    """
    expressions = (options.expression_a, options.expression_b)
    name = "edited_expression" if any(expressions) else "two_people"
    graph = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text("utf-8"))
    by_title = {node["_meta"]["title"]: node["inputs"] for node in graph.values()}
    for number, photo in enumerate(photos, 1):
        by_title[f"Photo of person {number}"]["image"] = photo
    if any(expressions):
        for number, text in enumerate(expressions, 1):
            node = by_title[f"Expression of person {number}"]
            node |= {"expression": text} if text else {"strength": 0.0}
    if options.prompt:
        by_title["Prompt"]["text"] = options.prompt
    by_title["Sampler"]["seed"] = options.seed
    if options.steps:
        by_title["Sampler"]["steps"] = options.steps
    if options.size:
        by_title["Picture size"] |= {"width": options.size, "height": options.size}  # all else follows it
    for node in graph.values():
        node["inputs"] |= {key: file for (kind, key), file in chosen.items() if kind == node["class_type"]}
    return graph


def show_progress(what: str, done: int, total: int) -> None:
    """One line that is written over and over; in a log, one line for each piece of work."""
    if sys.stdout.isatty():
        filled = BAR * done // total if total else 0
        count = f"{done}/{total}" if total else ""
        print(f"\r\033[K[{'#' * filled}{'.' * (BAR - filled)}] {what} {count}", end="", flush=True)
    elif done == 0:
        print(f"{what} ...", flush=True)


def clear_progress() -> None:
    if sys.stdout.isatty():
        print("\r\033[K", end="", flush=True)


if __name__ == "__main__":
    sys.exit(run_script(main))
