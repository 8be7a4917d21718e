"""A file beside its place, until it is complete: synced, then renamed; of killed processes nothing is left.

Standard library only. What bears the name of a partial file and is held by nobody is a leftover.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO

PREFIX, SUFFIX = ".dynamicid-", ".partial"


@contextlib.contextmanager
def partial_file(target: Path) -> Iterator[tuple[BinaryIO, Callable[[], None]]]:
    """An empty file in the target's folder, and what puts it in the target's place once it is complete."""
    _sweep(target.parent)
    descriptor, partial = _open_unnamed(target.parent), None
    if descriptor is None:
        descriptor, partial = _open_named(target.parent)
    file = os.fdopen(descriptor, "w+b")

    def put() -> None:
        nonlocal partial
        file.flush()
        os.fsync(file.fileno())
        partial = partial or _named(file, target.parent)
        if target.exists():
            partial.chmod(stat.S_IMODE(target.stat().st_mode))
        if os.name == "nt":  # which renames no open file
            file.close()
        os.replace(partial, target)
        _sync_folder(target.parent)

    try:
        yield file, put
    finally:
        file.close()
        if partial is not None:
            partial.unlink(missing_ok=True)


def _open_unnamed(folder: Path) -> int | None:
    """A file that has no name yet, of which nothing is left if the process is killed; None where there is no such thing."""
    flag = getattr(os, "O_TMPFILE", 0)  # Linux, on most file systems
    if not flag or not os.path.isdir("/proc/self/fd"):
        return None
    try:
        descriptor = os.open(folder, flag | os.O_RDWR, 0o666)
    except OSError:
        return None
    _hold(descriptor)
    return descriptor


def _open_named(folder: Path) -> tuple[int, Path]:
    while True:
        path = folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o666)
        _hold(descriptor)
        if path.exists():  # else another process took it for a leftover before it was held
            return descriptor, path
        os.close(descriptor)


def _named(file: BinaryIO, folder: Path) -> Path:
    """A file without a name gets one."""
    path = folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
    place = os.open(folder, os.O_RDONLY)
    try:
        # With folders given, Python follows the link that /proc shows to the file itself.
        os.link(f"/proc/self/fd/{file.fileno()}", path.name, src_dir_fd=place, dst_dir_fd=place)
    except OSError:  # such files can be made there, but not named
        descriptor, path = _open_named(folder)
        with os.fdopen(descriptor, "wb") as copied:
            file.seek(0)
            shutil.copyfileobj(file, copied, 1 << 20)
            copied.flush()
            os.fsync(descriptor)
    finally:
        os.close(place)
    return path


def _sync_folder(folder: Path) -> None:
    """A rename lasts once the folder is on the disk."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some file systems know no such thing
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


# --- leftovers ----------------------------------------------------------------------------------------------------


def _hold(descriptor: int) -> None:
    """Mark a file as being written for as long as it is open. Windows needs no mark: it deletes no open file."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_held(path: Path) -> bool:
    try:
        import fcntl
    except ImportError:
        return False
    with path.open("rb") as left:
        try:
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@cache
def _sweep(folder: Path) -> None:
    """Delete what killed processes left in a folder: once, before the first file is written there."""
    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        with contextlib.suppress(OSError):
            if path.is_file() and not _is_held(path):
                path.unlink()
