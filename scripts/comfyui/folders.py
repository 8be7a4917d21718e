"""This pack in ComfyUI's ``custom_nodes``, and base folders: what a ComfyUI reads and writes instead of its own folders."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from environment import ROOT, SetupError

PACK = "comfyui-dynamicid"  # the pack's folder in custom_nodes
COPY_MARK = ".copied-by-setup"  # in a copy of the pack: setup made it, so setup may replace it
BASE_FOLDERS = ("models", "input", "output", "temp", "user", "custom_nodes")


@contextlib.contextmanager
def temporary_base(models: Path | None = None, pack: bool = True, whole: Path | None = None) -> Iterator[Path]:
    """A fresh base folder for ComfyUI, gone when the block ends: links to these model files and, with ``pack``, to this
    pack. ``whole``: instead, a folder of models that appears there as it is, with whatever is put into it meanwhile.

    Raises SetupError where ``whole`` cannot be linked.
    """
    with tempfile.TemporaryDirectory(prefix="dynamicid-host-", ignore_cleanup_errors=True) as folder:
        base = Path(folder).resolve()
        for name in BASE_FOLDERS:
            if name != "models" or not whole:
                (base / name).mkdir()
        if whole and not make_link(base / "models", whole):
            raise SetupError(f"{whole} could not be linked into {base}; use a running ComfyUI, with --server.")
        for source in models.rglob("*") if models else ():
            if source.is_file():
                link_file(source, base / "models" / source.relative_to(models))
        if pack:
            link_pack(base)
        try:
            yield base
        finally:
            if whole:
                unlink(base / "models")


def base_options(base: Path) -> list[str]:
    """ComfyUI's options for a base folder, and for a database that leaves no trace."""
    return ["--base-directory", str(base), "--database-url", "sqlite:///:memory:"]


def linked_pack(comfyui: Path) -> Path | None:
    """The folder that is this pack in a ComfyUI: this one, another clone of it, or None.

    Of a copy that setup made it is the folder that was copied.
    """
    if ROOT.parent == (comfyui / "custom_nodes").resolve():
        return ROOT  # cloned into custom_nodes
    target = comfyui / "custom_nodes" / PACK
    if not target.exists():
        return None
    if not (target / COPY_MARK).is_file():
        return target.resolve()
    copied = (target / COPY_MARK).read_text("utf-8").strip()  # empty in copies of earlier versions
    return Path(copied) if copied else None


def link_pack(comfyui: Path, may_replace: Callable[[Path], bool] = lambda other: False) -> Path:
    """Make this folder appear in ``custom_nodes``: as a link, or as a copy where links cannot be made.

    Where another clone is linked, ``may_replace`` is asked with its folder. A link that leads nowhere is replaced, and
    so is setup's own copy of this folder; nothing else is.

    Returns where the pack is. Raises SetupError if something else is in its place, and stays.
    """
    target = comfyui / "custom_nodes" / PACK
    if ROOT.parent == target.parent.resolve():
        return ROOT
    target.parent.mkdir(exist_ok=True)
    if target.exists() and target.samefile(ROOT):
        return target
    is_copy = (target / COPY_MARK).is_file()
    if target.exists() and not is_link(target) and not is_copy:
        raise SetupError(f"{target} is already there and is not this folder; move it away and run this again.")
    other = linked_pack(comfyui)
    if other and other.is_dir() and not other.samefile(ROOT) and not may_replace(other):
        raise SetupError(
            f"ComfyUI in {comfyui} uses another copy of this pack, {other}, which stays; to use {ROOT} instead, run "
            "scripts/setup.py with --relink."
        )
    if is_link(target):
        unlink(target)
    elif is_copy:
        shutil.rmtree(target)
    if not make_link(target):
        ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "*.egg-info", "output")
        shutil.copytree(ROOT, target, ignore=ignored)
        (target / COPY_MARK).write_text(str(ROOT), "utf-8")
        print("No link could be made, so the pack was copied: run this again whenever you update it.")
    return target


def unlink(link: Path) -> None:
    """Remove a link to a folder, and nothing of what it leads to."""
    link.rmdir() if platform.system() == "Windows" else link.unlink()


def is_link(path: Path) -> bool:
    """Whether ``path`` is a symbolic link or, on Windows, a junction; also if it points nowhere."""
    try:
        return bool(os.readlink(path))
    except (OSError, ValueError):
        return False


def make_link(target: Path, source: Path | None = None) -> bool:
    """Make a folder (this pack's) appear at ``target``; on Windows as a junction, which needs no special rights."""
    source = source or ROOT
    if platform.system() == "Windows":
        command = ["cmd", "/c", "mklink", "/J", str(target), str(source)]
        return subprocess.run(command, capture_output=True).returncode == 0
    try:
        target.symlink_to(source, target_is_directory=True)
    except OSError:
        return False
    return True


def link_file(source: Path, target: Path) -> None:
    """Make a file appear at ``target``, without a copy where the file system can; one that is already there stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.samefile(source):
        return
    for link in (os.link, os.symlink, shutil.copyfile):  # a hard link needs one volume, a symbolic one rights (Windows)
        try:
            link(source, target)
            return
        except OSError:
            if link is shutil.copyfile:
                raise
