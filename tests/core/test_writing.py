"""How every file is written: the old one or the new one, whole, whatever happens; and what is never replaced."""

from __future__ import annotations

import ast
import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save

from dynamicid_core import partial, saving, writing
from dynamicid_core.files import read_safetensors, read_tensors
from dynamicid_core.saving import PICTURE, header_of, same_network, write_picture, write_safetensors
from dynamicid_core.types import DynamicIDError
from dynamicid_core.writing import Kind, check_file, check_folder, write

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="permissions, signals and devices as POSIX knows them")
TEXT = Kind("a text of ours", lambda path: path.read_bytes().startswith(b"ours"))


@pytest.fixture(params=["unnamed until complete", "named from the start", "cannot be named"])
def way(request, monkeypatch) -> str:
    """Each way in which a file comes into being: systems differ in what they offer."""
    if request.param == "named from the start":
        monkeypatch.setattr(partial, "_open_unnamed", lambda folder: None)
    if request.param == "cannot be named":
        monkeypatch.setattr(os, "link", _refuse)
    return request.param


def _refuse(*_args, **_kwargs):
    raise OSError(95, "Operation not supported")


def listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# --- whole or not at all ------------------------------------------------------------------------------------------


def test_a_file_is_the_old_one_or_the_new_one(way, tmp_path, monkeypatch):
    path = write(tmp_path / "a" / "b.txt", "old")
    with monkeypatch.context() as patched, pytest.raises(DynamicIDError, match="b.txt could not be written: No space"):
        patched.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        write(path, "new")
    assert path.read_text() == "old" and listing(path.parent) == ["b.txt"]
    with pytest.raises(KeyboardInterrupt), writing.writing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and listing(path.parent) == ["b.txt"]
    write(path, "n\u00e9w\n")
    assert path.read_bytes() == "n\u00e9w\n".encode() and listing(path.parent) == ["b.txt"]


FAULTS = {
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "terminated": "os.kill(os.getpid(), signal.SIGTERM)",
    "disk full": "file.write(bytes(10**6))",  # more than the limit that stands for the disk's end
}


@posix
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("named", [False, True])
def test_nothing_is_left_of_a_process_that_dies(tmp_path, fault, named):
    """A killed process leaves nothing where files need no name; elsewhere the next one that writes there clears up."""
    path = write(tmp_path / "kept.txt", "old")
    code = textwrap.dedent("""
        import os, resource, signal, sys
        from dynamicid_core import partial, writing
        if sys.argv[2] == "True":
            partial._open_unnamed = lambda folder: None
        resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))
        with writing.writing(sys.argv[1]) as file:
            file.write(b"new" * 1000)
            file.flush()
            FAULT
    """).replace("FAULT", FAULTS[fault])
    command = [sys.executable, "-c", code, str(path), str(named)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
    )
    expected = {"killed": -signal.SIGKILL, "terminated": -signal.SIGTERM, "disk full": 1}
    assert done.returncode == expected[fault], done.stderr
    assert ("could not be written: File too large" in done.stderr) == (fault == "disk full")
    assert path.read_text() == "old"
    if named or not hasattr(os, "O_TMPFILE"):
        assert len(listing(tmp_path)) == 1 if fault == "disk full" else 2
        partial._sweep.cache_clear()
        write(tmp_path / "other.txt", "")
        assert listing(tmp_path) == ["kept.txt", "other.txt"]
    else:
        assert listing(tmp_path) == ["kept.txt"]


def test_what_another_process_is_writing_is_no_leftover(tmp_path, monkeypatch):
    monkeypatch.setattr(partial, "_open_unnamed", lambda folder: None)
    with writing.writing(tmp_path / "a.txt") as file:
        file.write(b"first")
        partial._sweep.cache_clear()
        write(tmp_path / "b.txt", "second")
    assert (tmp_path / "a.txt").read_text() == "first" and listing(tmp_path) == ["a.txt", "b.txt"]


@posix
def test_permissions_are_those_of_the_umask_and_a_replaced_file_keeps_its_own(way, tmp_path):
    before = os.umask(0o027)
    try:
        tensors = write_safetensors(tmp_path / "a.safetensors", {"x": torch.zeros(3)}, {})
        picture = write_picture(tmp_path / "a.png", Image.new("RGB", (8, 8)))
        assert [stat.S_IMODE(path.stat().st_mode) for path in (tensors, picture)] == [0o640, 0o640]
        tensors.chmod(0o600)
        write_safetensors(tensors, {"x": torch.ones(3)}, {})
        assert stat.S_IMODE(tensors.stat().st_mode) == 0o600
    finally:
        os.umask(before)


@posix
def test_a_link_stays_and_what_it_points_to_is_written(way, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "real" / "file.txt")
    for text in ("new", "newer"):  # where nothing was, and where the first is
        write(tmp_path / "link.txt", text)
        assert (tmp_path / "real" / "file.txt").read_text() == text and (tmp_path / "link.txt").is_symlink()


# --- what is refused ----------------------------------------------------------------------------------------------


def both(path: Path, said: str, kind: Kind | None = None, inputs: Sequence[Path] = ()) -> None:
    """Refused before anything is computed, and again when it is written."""
    for attempt in (check_file, lambda *how: write(how[0], "new", *how[1:])):
        with pytest.raises(DynamicIDError, match=said):
            attempt(path, kind, inputs)


def test_inputs_and_files_of_another_kind_stay(tmp_path):
    photo = write(tmp_path / "anna.png", "a photo")
    both(photo, "anna.png is one of the files that are read for this, so it stays", inputs=[tmp_path / "x", photo])
    (tmp_path / "link.png").symlink_to(photo)
    both(tmp_path / "link.png", "read for this", inputs=[photo])
    both(photo, "anna.png is there already and is not a text of ours, so it stays; choose another name", kind=TEXT)
    assert photo.read_text() == "a photo"
    ours, empty = write(tmp_path / "ours.txt", "ours: 1"), write(tmp_path / "empty.txt", "")
    for path in (ours, empty, tmp_path / "none.txt"):
        check_file(path, TEXT)
        assert write(path, "ours: 2", TEXT).read_text() == "ours: 2"


@posix
@pytest.mark.parametrize("kind", [None, TEXT])
def test_folders_devices_and_pipes_are_refused(tmp_path, kind):
    both(tmp_path, "is a folder", kind)
    both(Path("/dev/null"), "no ordinary file but a device", kind)
    os.mkfifo(tmp_path / "pipe")
    both(tmp_path / "pipe", "no ordinary file", kind)  # and nobody waits for its other end
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@posix
def test_places_where_nothing_can_be_written_are_named_at_once(tmp_path):
    file = write(tmp_path / "file", "x")
    both(file / "below.txt", "below.txt could not be written: Not a directory")
    both(tmp_path / ("x" * 300), "could not be written: File name too long")
    if Path("/proc/self").exists():
        with pytest.raises(DynamicIDError, match="could not be written"):
            check_file("/proc/self/new/file.txt")
    with pytest.raises(DynamicIDError, match="file could not be written: .*file is a file, not a folder"):
        check_folder(file)
    check_folder(tmp_path / "new" / "folder")
    assert listing(tmp_path) == ["file"], "looking leaves nothing"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="for whom permissions count")
def test_what_is_write_protected_stays(tmp_path):
    path = write(tmp_path / "kept.txt", "ours")
    path.chmod(0o444)
    both(path, "is write-protected", TEXT)
    tmp_path.chmod(0o555)
    both(tmp_path / "new.txt", "could not be written: Permission denied")
    tmp_path.chmod(0o755)


# --- tensors ------------------------------------------------------------------------------------------------------


def test_tensors_are_written_as_safetensors_itself_writes_them(tmp_path):
    kinds = list(saving._DTYPES)
    tensors = {f"{n % 3}.\u00e4 {n}": (torch.rand(3, 2) * 3).to(kind) for n, kind in enumerate(kinds)}
    tensors |= {"none": torch.zeros(0, 3), "one": torch.tensor(1.5)}
    for metadata in ({}, {"format": "\u00fc"}):
        path = write_safetensors(tmp_path / "a.safetensors", tensors, metadata)
        assert path.read_bytes() == save(tensors, metadata or None)
    with pytest.raises(DynamicIDError, match="'x': it is of type torch.complex128"):
        write_safetensors(path, {"x": torch.zeros(1, dtype=torch.complex128)}, {})
    assert path.read_bytes() == save(tensors, {"format": "\u00fc"})


def test_writing_takes_any_tensor(way, tmp_path):
    base = torch.arange(12.0).reshape(3, 4).requires_grad_()
    tensors = {"turned": base.T, "rows": base[::2], "same": base, "again": base, "wide": torch.ones(1).expand(5)}
    path = write_safetensors(tmp_path / "a.safetensors", tensors, {"n": "1"})
    back = read_tensors(path)
    assert all(torch.equal(back[name], value) for name, value in tensors.items())
    write_safetensors(path, {"x": torch.ones(3)}, {"n": "2"})
    assert torch.equal(load_file(path)["x"], torch.ones(3)) and read_safetensors(path)[1] == {"n": "2"}


def test_weights_are_replaced_by_those_of_the_same_network_alone(tmp_path):
    path = write_safetensors(tmp_path / "vae.safetensors", {"decoder.x": torch.zeros(1)}, {})
    assert header_of(path) == ({"decoder.x"}, {}) and header_of(write(tmp_path / "t.txt", "t")) == (set(), {})
    with pytest.raises(DynamicIDError, match="is not weights of the same network"):
        write_safetensors(path, {"y": torch.ones(1)}, {}, kind=same_network(["y"]))
    write_safetensors(path, {"decoder.x": torch.ones(1)}, {}, kind=same_network(["decoder.x"]))
    assert load_file(path)["decoder.x"] == 1


# --- pictures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
def test_our_pictures_may_be_replaced_and_others_not(tmp_path, ending):
    path, picture = tmp_path / f"a{ending}", Image.new("RGB", (8, 8), (9, 9, 9))
    picture.save(path)
    with pytest.raises(DynamicIDError, match="is not a picture that DynamicID made"):
        write_picture(path, picture, PICTURE)
    path.unlink()
    for _ in range(2):
        write_picture(path, picture, PICTURE, marked=True)
    assert Image.open(path).size == (8, 8)
    write_picture(path, picture, PICTURE)
    assert not Image.open(path).getexif(), "says nothing unless asked to"


def test_a_picture_of_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(DynamicIDError, match="known here; end it in .png"):
        write_picture(tmp_path / "a.docx", Image.new("RGB", (8, 8)))


# --- one function -------------------------------------------------------------------------------------------------

WRITERS = {"write_text", "write_bytes", "copyfile", "copy2", "savez", "save_file", "tofile", "save_pretrained", "touch"}
ALLOWED = {
    **dict.fromkeys([("saving.py", "save"), ("drawn/runs.py", "save")], "into a file of writing.py"),
    **dict.fromkeys([("drawn/face_pictures.py", name) for name in ("save", "savez", "tofile")], "likewise"),
    ("evaluation/store.py", "savez"): "likewise",
    **dict.fromkeys([("datasets/fill.py", "save"), ("datasets/report.py", "save")], "into memory"),
    **dict.fromkeys([("drawn/make.py", "save"), ("evaluation/report.py", "save")], "likewise"),
    ("drawn/runs.py", "open"): "a curve that grows line by line",
    ("datasets/fill.py", "open"): "a journal that grows line by line; a line that was cut short is passed over",
    ("training/state.py", "rename"): "a folder of accelerate's, complete",
    ("training/loop.py", "save"): "that folder",
    ("drawn/world.py", "rename"): "a folder, complete",
    ("drawn/world.py", "save_pretrained"): "into that folder",
    (
        "fetching.py",
        "open",
    ): "a download's part, which has to grow and to outlive the process, so that it can be resumed",
    ("fetching.py", "replace"): "that part, complete and checked",
    ("fetching.py", "rename"): "an unpacked folder, complete",
}


def writes(source: str) -> set[str]:
    """The calls of a module by which files are written past :mod:`writing`, as far as their form tells."""
    found = set()
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given = [*call.args, *(word.value for word in call.keywords)]
        modes = [str(one.value).strip("bt+") for one in given if isinstance(one, ast.Constant)]
        moves = (len(call.args) == 1 and not call.keywords) or ast.unparse(call.func).startswith("os.")
        if (
            name in WRITERS
            or (name == "open" and {"w", "a", "x"} & set(modes))
            or (name == "save" and call.args)
            or (name in ("replace", "rename") and moves)
        ):
            found.add(name)
    return found


def test_the_search_sees_what_it_forbids():
    for line in (
        "p.write_text(t)",
        "open(p, 'wb')",
        "p.open(mode='a')",
        "os.replace(a, b)",
        "p.rename(q)",
        "x.save(p)",
    ):
        assert writes(line), line
    for line in ("open(p)", "p.open('rb')", "text.replace('a', 'b')", "dataclasses.replace(s, a=1)", "run.save()"):
        assert not writes(line), line


def test_everything_is_written_by_one_function():
    core = ROOT / "dynamicid_core"
    found = {
        (file.relative_to(core).as_posix(), name)
        for file in core.rglob("*.py")
        if file.name != "partial.py"
        for name in writes(file.read_text(encoding="utf-8"))
    }
    assert found == set(ALLOWED), found ^ set(ALLOWED)
