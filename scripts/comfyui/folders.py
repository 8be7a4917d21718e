"""This pack in ComfyUI's ``custom_nodes``, and base folders: what a ComfyUI reads and writes instead of its own folders."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from environment import ROOT, SetupError

PACK = "comfyui-dynamicid"  # the pack's folder in custom_nodes
COPY_MARK = ".copied-by-setup"  # in a copy of the pack: setup made it, so setup may replace it
BASE_FOLDERS = ("models", "input", "output", "temp", "user", "custom_nodes")


@contextlib.contextmanager
def temporary_base(models: Path | None = None, pack: bool = True) -> Iterator[Path]:
    """A fresh base folder for ComfyUI, gone when the block ends: links to these model files and, with ``pack``, to this
    pack."""
    with tempfile.TemporaryDirectory(prefix="dynamicid-host-", ignore_cleanup_errors=True) as folder:
        base = Path(folder).resolve()
        for name in BASE_FOLDERS:
            (base / name).mkdir()
        for source in models.rglob("*") if models else ():
            if source.is_file():
                link_file(source, base / "models" / source.relative_to(models))
        if pack:
            link_pack(base)
        yield base


def base_options(base: Path) -> list[str]:
    """ComfyUI's options for a base folder, and for a database that leaves no trace."""
    return ["--base-directory", str(base), "--database-url", "sqlite:///:memory:"]


def link_pack(comfyui: Path) -> Path:
    """Make this folder appear in ``custom_nodes``: as a link, or as a copy where links cannot be made.

    A link that setup or a user made earlier is replaced, and so is setup's own copy; nothing else is.

    Returns where the pack is. Raises SetupError if something else is in its place.
    """
    target = comfyui / "custom_nodes" / PACK
    if ROOT.parent == target.parent.resolve():
        return ROOT  # cloned into custom_nodes
    target.parent.mkdir(exist_ok=True)
    if target.exists() and target.samefile(ROOT):
        return target
    if is_link(target):
        target.rmdir() if platform.system() == "Windows" else target.unlink()
    elif (target / COPY_MARK).is_file():
        shutil.rmtree(target)
    elif target.exists():
        raise SetupError(f"{target} is already there and is not this folder; move it away and run this again.")
    if not make_link(target):
        ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "*.egg-info", "output")
        shutil.copytree(ROOT, target, ignore=ignored)
        (target / COPY_MARK).touch()
        print("No link could be made, so the pack was copied: run this again whenever you update it.")
    return target


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
    """Make a file appear at ``target``, without a copy where the file system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for link in (os.link, os.symlink, shutil.copyfile):  # a hard link needs one volume, a symbolic one rights (Windows)
        try:
            link(source, target)
            return
        except OSError:
            if link is shutil.copyfile:
                raise
