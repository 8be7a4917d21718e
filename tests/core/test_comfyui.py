"""ComfyUI from outside, with a pretended one: started and stopped, its base folder, what it says told in a sentence."""

from __future__ import annotations

import http.server
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from comfyui.folders import PACK, link_pack, temporary_base
from comfyui.serving import started
from comfyui.speaking import Client, HostError
from environment import ROOT, SetupError

# A main.py that prints its options and answers one path; with "fail" or "hang" in its environment it does not get so far.
MAIN = """
import http.server, json, os, sys, time
print("options", json.dumps(sys.argv[1:]), flush=True)
if "fail" in os.environ.get("PRETEND", ""):
    sys.exit("no such torch")
if "hang" in os.environ.get("PRETEND", ""):
    time.sleep(60)

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"system": {}}')

http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Answer).serve_forever()
"""


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(MAIN, encoding="ascii")
    return tmp_path


# --- started ------------------------------------------------------------------------------------------------------


def test_it_runs_as_long_as_the_block_and_prints_into_its_log(comfyui: Path, tmp_path: Path) -> None:
    with started(Path(sys.executable), comfyui, ["--cpu"], base=tmp_path / "base") as server:
        assert server.is_alive() and server.base == tmp_path / "base"
        options = json.loads(server.log().removeprefix("options ").splitlines()[0])
    assert options[:3] == ["--port", server.url.rpartition(":")[2], "--disable-auto-launch"]
    assert options[-1] == "--cpu" and options[options.index("--base-directory") + 1] == str(tmp_path / "base")
    assert not server.is_alive()


@pytest.mark.parametrize("how, words", [("fail", "ended with code 1"), ("hang", "did not answer within 1 s")])
def test_what_does_not_start_shows_the_end_of_its_log(comfyui: Path, monkeypatch, how: str, words: str) -> None:
    monkeypatch.setenv("PRETEND", how)
    with pytest.raises(SetupError, match=words) as failure:
        with started(Path(sys.executable), comfyui, timeout=1 if how == "hang" else 60):
            pass
    assert ("no such torch" if how == "fail" else "options") in str(failure.value)


# --- base folders -------------------------------------------------------------------------------------------------


def test_base_folder_has_models_and_pack_and_takes_neither_with_it(tmp_path: Path) -> None:
    weights = tmp_path / "vae" / "small.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    with temporary_base(tmp_path) as base:
        assert (base / "models/vae/small.safetensors").read_bytes() == b"weights"
        assert (base / "custom_nodes" / PACK).samefile(ROOT)
        assert link_pack(base) == base / "custom_nodes" / PACK  # again: nothing to do
        (base / "models/vae/small.safetensors").unlink()
    assert not base.exists()
    assert weights.read_bytes() == b"weights" and (ROOT / "pyproject.toml").is_file()


# --- what it says -------------------------------------------------------------------------------------------------

GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {}, "_meta": {"title": "Load Checkpoint"}},
    "2": {"class_type": "KSampler", "inputs": {}},
}
MISTAKE = {"message": "Value not in list", "details": "ckpt_name: 'x' not in []"}
REFUSED = {"error": {"message": "Prompt outputs failed validation"}, "node_errors": {"1": {"errors": [MISTAKE]}}}


@pytest.fixture
def answering() -> Iterator[tuple[Client, list]]:
    """A client of a server that gives the answers (status, body) in the list, the first to the first request."""
    answers: list[tuple[int, bytes]] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = answers.pop(0)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Client(f"http://127.0.0.1:{server.server_port}/"), answers
    server.shutdown()
    thread.join()
    server.server_close()


def test_refused_graph_names_the_node_by_its_title(answering) -> None:
    client, answers = answering
    answers += [(400, json.dumps(REFUSED).encode()), (400, b'{"error": {"message": "no outputs"}, "node_errors": []}')]
    body = json.dumps({"prompt": GRAPH}).encode()
    with pytest.raises(HostError) as refused:
        client.fetch("/prompt", body)
    assert str(refused.value) == (
        "ComfyUI refused the graph: Load Checkpoint: Value not in list: ckpt_name: 'x' not in []"
    )
    assert refused.value.node_errors == REFUSED["node_errors"]
    with pytest.raises(HostError, match="^ComfyUI refused the graph: no outputs$") as refused:
        client.fetch("/prompt", body)
    assert refused.value.node_errors == {}


def test_other_refusals_and_strangers_are_told_apart(answering) -> None:
    client, answers = answering
    answers += [(404, b"nothing here"), (200, b"<html>"), (200, b'{"other": 1}')]
    with pytest.raises(SetupError, match="ComfyUI refused /view: HTTP Error 404"):
        client.fetch("/view")
    with pytest.raises(SetupError, match="is no ComfyUI; give another address"):
        client.get("/system_stats")
    assert not client.is_alive()
    with pytest.raises(SetupError, match="No ComfyUI answers at http://127.0.0.1:9 .*start it, or give another"):
        Client("http://127.0.0.1:9").get("/")


@pytest.mark.parametrize("node, called", [("1", "Load Checkpoint"), ("2", "KSampler"), ("2.0.1", "LoraLoader")])
def test_failed_node_is_named_by_title_or_type(node: str, called: str) -> None:
    details = {"node_id": node, "node_type": "LoraLoader", "exception_message": "No face was found.\n"}
    failure = HostError.failure(details, GRAPH)
    assert str(failure) == f"{called}: No face was found." and failure.node_errors == {node: details}


def test_upload_keeps_apart_pictures_of_the_same_name(answering, tmp_path: Path) -> None:
    client, answers = answering
    (tmp_path / "photo.png").write_bytes(b"picture")
    answers += [(200, b'{"name": "as the host calls it.png"}')]
    assert client.upload(tmp_path / "photo.png") == "as the host calls it.png"
    assert client.id != Client(client.url).id  # which is in the name that is sent
