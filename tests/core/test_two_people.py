"""The main job's script, as far as it goes without a ComfyUI: its arguments, its graph, its way out."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import two_people as script
from comfyui.folders import PACK, make_link, unlink
from comfyui.serving import started
from PIL import Image, ImageChops
from PIL.PngImagePlugin import PngInfo

ROOT = Path(__file__).resolve().parents[2]


def titled(graph: dict) -> dict[str, dict]:
    return {node["_meta"]["title"]: node["inputs"] for node in graph.values()}


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["a.jpg"], "two photos are needed, and 1 were given"),
        (["--server", "http://x"], "--server needs two photos"),
        (["a.jpg", "b.jpg", "--size", "100"], "multiple of 8"),
        (["a.jpg", "b.jpg", "--steps", "0"], "between 1 and 1000"),
        (["a.jpg", "b.jpg", "--stand-in", "--server", "http://x"], "leave --server out"),
        (["a.jpg", "b.jpg", "--port", "0"], "--port 0: it must lie between 1 and 65535"),
        (["a.jpg", "b.jpg", "--port", "999999"], "--port 999999: it must lie between 1 and 65535"),
        (["a.jpg", "b.jpg", "--server", "http://x:999999"], "give an address such as http://127.0.0.1:8188"),
        (["a.jpg", "b.jpg", "--server", "http://x:0"], "give an address such as"),
        (["a.jpg", "b.jpg", "--server", "x:8188"], "give an address such as"),
        (["a.jpg", "b.jpg", "--seed", str(2**64)], "it must lie between 0 and 2^64 - 1"),
        (["a.jpg", "b.jpg", "--seed", "-1"], "it must lie between 0 and 2^64 - 1"),
    ],
)
def test_wrong_usage_ends_with_code_2_and_says_why(capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        script.main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_missing_photo_is_named_in_one_line():
    command = [sys.executable, str(ROOT / "scripts" / "two_people.py"), "none_a.jpg", "none_b.jpg"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "Error: There is no photo none_a.jpg.\n")


def test_a_picture_that_cannot_be_saved_is_named_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "prepare", lambda options: pytest.fail("it went on"))
    monkeypatch.setattr(script, "make_picture", lambda options: pytest.fail("it went on"))
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    Image.new("RGB", (16, 16)).save(tmp_path / "other.png")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    photos = [str(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    for output, said in (
        ("a.jpg", "a.jpg is one of the files that are read for this"),
        ("other.png", "other.png is there already and is not a picture that DynamicID made"),
        ("", "is a folder"),
        ("a.jpg/x.png", "could not be written: Not a directory"),
        ("/dev/null", "a device"),
    ):
        with pytest.raises(script.SetupError, match=said):
            script.main([*photos, "--output", str(tmp_path / output)])
    with pytest.raises(script.SetupError, match="is a folder; name a photo in it"):
        script.main([str(tmp_path), photos[1]])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    ours = PngInfo()
    ours.add_text("prompt", '{"1": {"class_type": "DynamicIDApply"}}')
    Image.new("RGB", (16, 16)).save(tmp_path / "ours.png", pnginfo=ours)
    options = script.parse([*photos, "--output", str(tmp_path / "ours.png")])
    script.save_picture(options, b"new")
    assert (tmp_path / "ours.png").read_bytes() == b"new"


# Prints its options and answers every path.
MAIN = """
import http.server, json, sys

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"system": sys.argv[1:]}).encode())

http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Answer).serve_forever()
"""


@pytest.fixture
def comfyui(tmp_path, monkeypatch) -> Path:
    """A pretended one with models, whose link leads to another clone of the pack."""
    folder = tmp_path / "ComfyUI"
    for part in ("models/vae", "custom_nodes", "other clone"):
        (folder / part).mkdir(parents=True)
    (folder / "models/vae/mine.safetensors").write_bytes(b"weights")
    (folder / "main.py").write_text(MAIN, encoding="ascii")
    make_link(folder / "custom_nodes" / PACK, folder / "other clone")
    monkeypatch.setattr(script, "find_comfyui", lambda: folder)
    return folder


def test_a_server_is_started_with_this_very_clone_and_no_link_is_changed(comfyui, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = script.parse(["a.jpg", "b.jpg", "--port", str(port)])
    with script.own_host(options) as client:
        given = client.get("/system_stats")["system"]
        base = Path(given[given.index("--base-directory") + 1])
        assert client.url.endswith(f":{port}") and (base / "custom_nodes" / PACK).samefile(ROOT)
        assert (base / "models/vae/mine.safetensors").read_bytes() == b"weights"
        (comfyui / "models/vae/fetched.safetensors").write_bytes(b"more")
        assert (base / "models/vae/fetched.safetensors").is_file(), "what is fetched meanwhile is there"
        with script.own_host(options) as second:  # one runs, and nothing tells that it has this clone
            assert second.url != client.url
        assert "another copy of this pack" in capsys.readouterr().out
    assert not base.exists() and sorted(path.name for path in (comfyui / "models/vae").iterdir()) == [
        "fetched.safetensors",
        "mine.safetensors",
    ]
    assert (comfyui / "custom_nodes" / PACK).samefile(comfyui / "other clone")


def test_a_running_server_that_has_this_clone_is_used(comfyui, capsys):
    unlink(comfyui / "custom_nodes" / PACK)
    make_link(comfyui / "custom_nodes" / PACK)
    with started(Path(sys.executable), comfyui) as server:
        port = server.url.rpartition(":")[2]
        with script.own_host(script.parse(["a.jpg", "b.jpg", "--port", port])) as client:
            assert client.url == server.url
    assert "starting another" not in capsys.readouterr().out


def test_graph_gets_photos_settings_and_models():
    options = script.parse(["a.jpg", "b.jpg", "--prompt", "at sea", "--seed", "7", "--steps", "9", "--size", "512"])
    chosen = {("CheckpointLoaderSimple", "ckpt_name"): "mine.safetensors", ("DynamicIDLoader", "saa_file"): "SAA.bin"}
    inputs = titled(script.fill_graph(options, ["up_a.jpg", "up_b.jpg"], chosen))
    assert [inputs[f"Photo of person {n}"]["image"] for n in (1, 2)] == ["up_a.jpg", "up_b.jpg"]
    assert (inputs["Prompt"]["text"], inputs["Sampler"]["seed"], inputs["Sampler"]["steps"]) == ("at sea", 7, 9)
    assert (inputs["Picture size"]["width"], inputs["Picture size"]["height"]) == (512, 512)
    assert inputs["Place Faces in Boxes"]["layout"] == "side by side", "shares of the picture, whatever its size"
    assert inputs["Load Checkpoint"]["ckpt_name"] == "mine.safetensors"
    assert (inputs["Load DynamicID"]["saa_file"], inputs["Load DynamicID"]["imr_file"]) == ("SAA.bin", "auto")


def test_defaults_are_the_published_ones_for_photos():
    inputs = titled(script.fill_graph(script.parse(["a.jpg", "b.jpg"]), ["a", "b"], {}))
    assert (inputs["Sampler"]["steps"], inputs["Picture size"]["width"]) == (50, 768)


def test_without_photos_the_graph_is_the_drawn_worlds():
    options = script.parse([])
    with script.drawn_photos(options) as photos:
        pictures = [Image.open(photo) for photo in photos]
        assert {picture.size for picture in pictures} == {(256, 256)}
        assert ImageChops.difference(*pictures).getbbox(), "two people"
    graph = script.fill_graph(options, ["a", "b"], {})
    script.drawn_world.adapt(graph, options)
    inputs = titled(graph)
    assert inputs["Load Checkpoint"]["ckpt_name"] == "drawn_world.safetensors"
    assert (inputs["Picture size"]["width"], inputs["Picture size"]["height"]) == (192, 128)
    assert "happy" in inputs["Expression of person 1"]["expression"]
    assert "surprised" in inputs["Expression of person 2"]["expression"]
    (saved,) = (node["inputs"]["images"] for node in graph.values() if node["class_type"] == "SaveImage")
    assert graph[saved[0]]["inputs"]["scale_by"] == 4


def test_what_is_said_counts_in_the_drawn_world_too():
    options = script.parse(["--prompt", "a drawing of two people, night sky", "--steps", "9", "--expression-b", "sad"])
    with script.drawn_photos(options):
        graph = script.fill_graph(options, ["a", "b"], {})
    script.drawn_world.adapt(graph, options)
    inputs = titled(graph)
    assert (inputs["Prompt"]["text"], inputs["Sampler"]["steps"]) == (options.prompt, 9)
    assert inputs["Expression of person 2"]["expression"] == "sad"


def test_an_expression_for_one_leaves_the_other_as_in_the_photo():
    options = script.parse(["a.jpg", "b.jpg", "--expression-b", "a sad expression"])
    inputs = titled(script.fill_graph(options, ["a", "b"], {}))
    assert inputs["Expression of person 1"]["strength"] == 0
    second = inputs["Expression of person 2"]
    assert (second["expression"], second["strength"]) == ("a sad expression", 1)


def test_without_comfyui_the_same_job_goes_to_diffusers(monkeypatch, tmp_path, capsys):
    photos = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for photo in photos:
        photo.touch()
    monkeypatch.delenv(script.INNER, raising=False)
    monkeypatch.setattr(script, "find_comfyui", lambda: None)

    def fail(allowed):
        raise script.SetupError("No ComfyUI was found.")

    ran = []
    monkeypatch.setattr(script.setup, "install_comfyui", fail)
    monkeypatch.setattr(script, "project_environment", lambda: Path(sys.executable))
    monkeypatch.setattr(
        script.subprocess, "run", lambda command: ran.append(command) or subprocess.CompletedProcess([], 3)
    )
    assert script.main([*map(str, photos), "--expression-b", "a sad expression", "--size", "256"]) == 3
    from dynamicid_core.command_line import parser

    (command,) = ran
    options = parser().parse_args(command[3:])  # what the command line understands
    assert options.people == [
        {"files": (str(photos[0]),)},
        {"files": (str(photos[1]),), "expression": "a sad expression"},
    ]
    assert (options.size, options.seed, options.stand_in) == ((256, 256), 20, False)
    assert "without ComfyUI" in capsys.readouterr().err
