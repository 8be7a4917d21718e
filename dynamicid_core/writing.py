"""Where every file is written, by way of a partial file: a file of its name is the old one or the new one, whole.

Standard library only, since the scripts use it before anything is installed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .errors import DynamicIDError
from .partial import PREFIX, SUFFIX, partial_file

AnyPath = str | os.PathLike[str]
ELSEWHERE = "choose another name or place for what is written"


@dataclass(frozen=True)
class Kind:
    """What is written, and so what may be replaced."""

    what: str  # with its article: "a face file"
    is_ours: Callable[[Path], bool]  # whether an existing file is of this kind; never raises


# --- before anything is computed ----------------------------------------------------------------------------------


def check_file(path: AnyPath, kind: Kind | None = None, inputs: Iterable[AnyPath] = ()) -> None:
    """Raise DynamicIDError where :func:`writing` would: so that it is said before anything is computed.

    Refused are folders, devices, pipes and what is write-protected; files that ``inputs`` name; with a ``kind``, files
    of another kind, unless they are empty; and places where nothing can be written.
    """
    check_folder(_target(path, kind, inputs).parent)


def check_folder(folder: AnyPath) -> None:
    """Raise DynamicIDError for a folder into which nothing can be written, or that cannot be made. Leaves nothing."""
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
        with partial_file(target) as (file, put):
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
