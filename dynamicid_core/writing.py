"""Where every file is written: beside its place, synced, then renamed. A file of that name is the old one or the new one, whole.

Standard library only, since the scripts use it before anything is installed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from .errors import DynamicIDError

AnyPath = str | os.PathLike[str]
PREFIX, SUFFIX = (
    ".dynamicid-",
    ".partial",
)  # of what is being written; what bears this name and nobody holds is a leftover
ELSEWHERE = "choose another name or place for what is written"


@dataclass(frozen=True)
class Kind:
    """What is written, and so what may be replaced."""

    what: str  # with its article: "a face file"
    is_ours: Callable[[Path], bool]  # whether an existing file is of this kind; never raises


# --- before anything is computed ----------------------------------------------------------------------------------


def check_file(path: AnyPath, kind: Kind | None = None, inputs: Iterable[AnyPath] = ()) -> None:
    """Raise DynamicIDError where :func:`writing` would: so that it is said before anything is computed.

    Refused are folders, devices, pipes and what is write-protected; files that ``inputs`` name; with a ``kind``, files of
    another kind, unless they are empty; and places where nothing can be written.
    """
    check_folder(_target(path, kind, inputs).parent)


def check_folder(folder: AnyPath) -> None:
    """Raise DynamicIDError for a folder into which nothing can be written, or that cannot be made. Nothing is left there."""
    try:
        there = Path(os.path.realpath(folder))
        while not there.exists():
            there = there.parent
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{there} is a file, not a folder")
        with tempfile.TemporaryFile(dir=there, prefix=PREFIX, suffix=SUFFIX):
            pass
    except (OSError, ValueError) as error:
        raise _unwritable(folder, error) from error


def _target(path: AnyPath, kind: Kind | None, inputs: Iterable[AnyPath]) -> Path:
    """The file itself, where ``path`` is a link to it. Raises as :func:`check_file` says of what is there already."""
    try:
        target = Path(os.path.realpath(path))
        found = os.stat(target)
    except FileNotFoundError:
        return target
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error
    if stat.S_ISDIR(found.st_mode):
        raise DynamicIDError(f"{path} is a folder; {ELSEWHERE}.")
    if not stat.S_ISREG(found.st_mode):
        raise DynamicIDError(f"{path} is no ordinary file but a device, a pipe or the like; {ELSEWHERE}.")
    if any(os.path.samestat(found, os.stat(source)) for source in inputs if os.path.exists(source)):
        raise DynamicIDError(f"{path} is one of the files that are read for this, so it stays; {ELSEWHERE}.")
    if not os.access(target, os.W_OK):
        raise DynamicIDError(f"{path} is write-protected; {ELSEWHERE}.")
    if kind and found.st_size and not kind.is_ours(target):
        raise DynamicIDError(f"{path} is there already and is not {kind.what}, so it stays; {ELSEWHERE}.")
    return target


def _unwritable(path: AnyPath, error: Exception) -> DynamicIDError:
    reason = (error.strerror if isinstance(error, OSError) else None) or error  # without the name of the partial file
    return DynamicIDError(f"{path} could not be written: {reason}.")


# --- writing ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def writing(path: AnyPath, kind: Kind | None = None, inputs: Iterable[AnyPath] = ()) -> Iterator[BinaryIO]:
    """A file to write to, which becomes ``path`` when the block ends, and never if the block fails or the process dies.

    Missing folders are made. A new file has the permissions that the umask leaves, one that is replaced keeps its own.
    ``kind``, ``inputs`` and what is refused: as in :func:`check_file`. Raises DynamicIDError if it cannot be written.
    """
    target = _target(path, kind, inputs)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        with _partial(target) as (file, put):
            yield file
            put()
    except OSError as error:
        raise _unwritable(path, error) from error


def write(path: AnyPath, content: str | bytes, kind: Kind | None = None, inputs: Iterable[AnyPath] = ()) -> Path:
    """Write all of a file, text as UTF-8 with its line ends as they are. As :func:`writing`."""
    with writing(path, kind, inputs) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return Path(path)


def copy(source: AnyPath, path: AnyPath, kind: Kind | None = None) -> Path:
    """A file's content at another place. As :func:`writing`; OSError for a source that cannot be read."""
    with open(source, "rb") as content, writing(path, kind, [source]) as file:
        shutil.copyfileobj(content, file, 1 << 20)
    return Path(path)


@contextlib.contextmanager
def _partial(target: Path) -> Iterator[tuple[BinaryIO, Callable[[], None]]]:
    """An empty file in the target's folder, and what puts it in the target's place once it is complete."""
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
    """A file that has no name yet, so that nothing is left of it if the process is killed; None where there is no such thing."""
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
