"""Downloads that are cut, resumed, checked, and wanted by two processes at once; against a server on this machine."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cutting_server import Cutting, serving

from dynamicid_core import fetching
from dynamicid_core.catalogue import Published, model_file, model_files
from dynamicid_core.errors import DynamicIDError
from dynamicid_core.fetching import fetch, fetch_archive, fetch_weights

ROOT = Path(__file__).resolve().parents[2]
CONTENT = bytes(range(256)) * 4000  # 1 MB
PATH = "/someone/model/resolve/main/weights.bin"
PACK = {"det_10g.onnx": b"a" * 5000, "w600k_r50.onnx": b"b" * 7000, "2d106det.onnx": b"c" * 3000}
ANOTHER_PROCESS = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from dynamicid_core.catalogue import Published
from dynamicid_core.fetching import fetch
fetch(Published("weights.bin", sys.argv[2], sys.argv[3]), Path(sys.argv[4]))
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "WAIT", 0.01)
    monkeypatch.setattr(fetching, "TIMEOUT", 5.0)


@pytest.fixture
def server() -> Iterator[Cutting]:
    with serving({PATH: CONTENT}) as running:
        yield running


def weights(server: Cutting, sha256: str | None = None) -> Published:
    return Published("weights.bin", server.url + PATH, server.sha256(PATH) if sha256 is None else sha256)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- one process --------------------------------------------------------------------------------------------------


def test_a_file_comes_whole_with_the_permissions_of_the_umask(server, tmp_path):
    said = []
    target = fetch(weights(server), tmp_path / "models" / "w.bin", lambda *progress: said.append(progress))
    assert target.read_bytes() == CONTENT and left_in(target.parent) == ["w.bin"]
    assert said[-1] == ("weights.bin", len(CONTENT), len(CONTENT)) and said == sorted(said)
    umask = os.umask(0)
    os.umask(umask)
    assert os.name == "nt" or target.stat().st_mode & 0o777 == 0o666 & ~umask
    fetch(weights(server), target)
    assert len(server.asked) == 1  # what is there is asked for no more


@pytest.mark.parametrize("cut_after", [100_000, 1_000_000])
def test_what_is_cut_is_continued_where_it_broke_off(server, tmp_path, cut_after):
    server.cut_after = cut_after
    assert fetch(weights(server), tmp_path / "w.bin").read_bytes() == CONTENT
    starts = [start for _, _, start in server.asked]
    assert starts == list(range(0, len(CONTENT), cut_after))


def test_a_server_that_knows_no_ranges_is_asked_for_all_of_it(server, tmp_path):
    server.cut_after, server.ranges = 600_000, False
    with pytest.raises(DynamicIDError, match="cut 5 times in a row"):
        fetch(weights(server), tmp_path / "w.bin")
    server.cut_after = 0
    assert fetch(weights(server), tmp_path / "w.bin").read_bytes() == CONTENT


def test_what_has_come_outlives_its_process(server, tmp_path):
    """Killed in the middle: nothing bears the file's name, and the next one takes up where that one was."""
    server.pause = 0.05
    target = tmp_path / "w.bin"
    running = start_process(server, target)
    wait_until(lambda: sum(path.stat().st_size for path in tmp_path.glob(".w.bin.*.part")) > 100_000)
    running.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    running.wait()
    assert not target.exists()
    server.pause, before = 0.0, len(server.asked)
    assert fetch(weights(server), target).read_bytes() == CONTENT and left_in(tmp_path) == ["w.bin"]
    ((_, _, start),) = server.asked[before:]
    assert start > 100_000


def test_a_wrong_checksum_is_said_and_nothing_is_kept(server, tmp_path):
    with pytest.raises(DynamicIDError, match="weights.bin has a wrong checksum, so it was not kept; try again"):
        fetch(weights(server, "0" * 64), tmp_path / "w.bin")
    assert left_in(tmp_path) == []


def test_what_was_continued_from_other_bytes_is_noticed(server, tmp_path):
    """Another file was published under the same address in between."""
    server.cut_after, pinned = 300_000, weights(server)
    interrupted = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        fetch(pinned, tmp_path / "w.bin", interrupted)
    assert len(left_in(tmp_path)) == 1
    server.content[PATH], server.cut_after = CONTENT[::-1], 0
    with pytest.raises(DynamicIDError, match="wrong checksum"):
        fetch(pinned, tmp_path / "w.bin")
    server.content[PATH] = CONTENT
    assert fetch(pinned, tmp_path / "w.bin").read_bytes() == CONTENT and left_in(tmp_path) == ["w.bin"]


def test_all_bytes_had_come_when_the_process_ended(server, tmp_path):
    (tmp_path / f".w.bin.{server.sha256(PATH)[:12]}.part").write_bytes(CONTENT)
    assert fetch(weights(server), tmp_path / "w.bin").read_bytes() == CONTENT and left_in(tmp_path) == ["w.bin"]


def test_more_bytes_than_there_are_is_begun_anew(server, tmp_path):
    (tmp_path / f".w.bin.{server.sha256(PATH)[:12]}.part").write_bytes(CONTENT * 2)
    assert fetch(weights(server), tmp_path / "w.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "errors, says",
    [([503, 429], None), ([404], "HTTP 404"), ([403], "HTTP 403"), ([500] * 9, "HTTP 500")],
)
def test_answers_that_are_no_file(server, tmp_path, errors, says):
    server.errors = list(errors)
    if says is None:
        assert fetch(weights(server), tmp_path / "w.bin").read_bytes() == CONTENT
        return
    with pytest.raises(DynamicIDError) as caught:
        fetch(weights(server), tmp_path / "w.bin")
    assert says in str(caught.value) and f"put what it holds at {tmp_path / 'w.bin'}" in str(caught.value)
    assert left_in(tmp_path) == [] and len(server.asked) == (5 if errors[0] == 500 else 1)


def test_nobody_listens(tmp_path):
    with pytest.raises(DynamicIDError, match=r"could not be fetched \(.*refused.*\)"):
        fetch(Published("w", "http://127.0.0.1:9/w", "0" * 64), tmp_path / "w.bin")


def test_a_full_disk_is_said_at_once_and_keeps_what_has_come(server, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DynamicIDError, match="No space left on device.*what has come stays"):
        fetch(weights(server), tmp_path / "w.bin", full)
    assert len(server.asked) == 1 and (tmp_path / left_in(tmp_path)[0]).stat().st_size


def test_a_file_that_is_there_is_compared_and_never_touched(server, tmp_path):
    target = tmp_path / "w.bin"
    target.write_bytes(b"mine")
    with pytest.raises(DynamicIDError, match="is not what http.* gives .*move it away"):
        fetch(weights(server), target)
    assert fetch(weights(server, ""), target).read_bytes() == b"mine"  # no checksum is known
    assert target.read_bytes() == b"mine" and not server.asked
    (tmp_path / "folder").mkdir()
    with pytest.raises(DynamicIDError, match="is no file; move it away"):
        fetch(weights(server), tmp_path / "folder")


# --- the hub ------------------------------------------------------------------------------------------------------


def test_weights_without_a_pin_are_checked_by_what_the_hub_says_of_them(tmp_path, monkeypatch):
    files = [file for key in ("saa", "imr") for file in model_file(key).files]
    content = {f"/{file.url.removeprefix('https://huggingface.co/')}": file.name.encode() * 9000 for file in files}
    with serving(content) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url + "/")
        assert fetch_weights(tmp_path) == [tmp_path / name for name in ("SAA.bin", "IMR.bin", "key_point_encoder.bin")]
        assert all((tmp_path / file.name).read_bytes() == file.name.encode() * 9000 for file in files)
        assert [method for method, _, _ in hub.asked] == ["HEAD", "GET"] * 3
        monkeypatch.setattr(hub, "sha256", lambda path: "0" * 64)
        (tmp_path / "IMR.bin").unlink()
        with pytest.raises(DynamicIDError, match="IMR.bin has a wrong checksum"):
            fetch_weights(tmp_path)
        monkeypatch.setattr(hub, "sha256", lambda path: "no checksum")
        with pytest.raises(DynamicIDError, match="the server states no checksum"):
            fetch_weights(tmp_path)
        assert left_in(tmp_path) == ["SAA.bin", "key_point_encoder.bin"]


def test_the_hub_is_left_alone_where_the_user_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DynamicIDError, match="HF_HUB_OFFLINE is set"):
        fetch_weights(tmp_path)


@pytest.mark.parametrize("model", model_files(), ids=lambda model: model.key)
def test_what_is_known_is_pinned(model):
    for file, url in zip(model.files, model.urls, strict=True):
        assert file.url == (url.replace("/main/", f"/{model.revision}/") if model.revision else url)
        assert not file.sha256 or len(bytes.fromhex(file.sha256)) == 32
        assert file.sha256 or model.repository  # what is not on the hub must be known: nobody else says what it is
    assert not model.revision or len(bytes.fromhex(model.revision)) == 20


# --- archives -----------------------------------------------------------------------------------------------------


def packed(files: dict[str, bytes], below: str = "buffalo_l/") -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(below + name, data)
    return content.getvalue()


def pack_of(server: Cutting) -> Published:
    return Published("pack.zip", f"{server.url}/pack.zip", server.sha256("/pack.zip"))


@pytest.mark.parametrize("below", ["", "buffalo_l/", "../../"])
def test_a_pack_appears_with_all_its_files(tmp_path, below):
    folder = tmp_path / "models" / "buffalo_l"
    with serving({"/pack.zip": packed(PACK, below)}, cut_after=4000) as server:
        fetch_archive(pack_of(server), folder, folder.exists)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == PACK
    assert left_in(folder.parent) == ["buffalo_l"] and left_in(tmp_path) == ["models"]


def test_a_pack_that_was_unpacked_in_part_becomes_whole(tmp_path):
    folder = tmp_path / "buffalo_l"
    folder.mkdir()
    (folder / "det_10g.onnx").write_bytes(b"a" * 100)
    (folder / "mine.txt").write_text("mine")
    with serving({"/pack.zip": packed(PACK)}) as server:
        fetch_archive(pack_of(server), folder, lambda: False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == PACK | {"mine.txt": b"mine"}
    assert left_in(tmp_path) == ["buffalo_l"]


def test_an_archive_that_is_none(tmp_path):
    with serving({"/pack.zip": b"<html>" * 1000}) as server, pytest.raises(DynamicIDError, match="not a zip file"):
        fetch_archive(pack_of(server), tmp_path / "pack", lambda: False)
    assert not (tmp_path / "pack").exists()


# --- two processes, one folder ------------------------------------------------------------------------------------


def start_process(server: Cutting, target: Path) -> subprocess.Popen:
    published = weights(server)
    command = [sys.executable, "-c", ANOTHER_PROCESS, str(ROOT), published.url, published.sha256, str(target)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_until(happened: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_two_processes_fetch_one_file_once_and_nobody_sees_half_of_it(server, tmp_path):
    server.pause, target, sizes = 0.01, tmp_path / "w.bin", set()
    running = [start_process(server, target) for _ in range(2)]
    while any(process.poll() is None for process in running):
        with contextlib.suppress(FileNotFoundError):
            sizes.add(target.stat().st_size)
        time.sleep(0.005)
    assert [(process.returncode, process.stderr.read()) for process in running] == [(0, "")] * 2
    assert sizes <= {len(CONTENT)} and target.read_bytes() == CONTENT and left_in(tmp_path) == ["w.bin"]
    assert [start for _, _, start in server.asked] == [0]


def test_who_waits_goes_on_when_the_other_dies(server, tmp_path):
    server.pause, target = 0.5, tmp_path / "w.bin"
    first = start_process(server, target)
    wait_until(lambda: sum(path.stat().st_size for path in tmp_path.glob(".w.bin.*.part")) > 100_000)
    second = start_process(server, target)
    time.sleep(1)
    first.kill()
    first.wait()
    server.pause = 0
    assert second.wait(60) == 0, second.stderr.read()
    assert target.read_bytes() == CONTENT and left_in(tmp_path) == ["w.bin"]
    starts = [start for _, _, start in server.asked]
    assert starts[0] == 0 and len(starts) == 2 and starts[1] > 100_000
