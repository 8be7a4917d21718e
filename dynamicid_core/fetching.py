"""Files from the network: what was cut is resumed, what came is checked, and a file is there whole or not at all.

The hub's own client begins anew after its process ended, and compares sizes only; InsightFace's does neither and unpacks
in place. Standard library only, since scripts fetch with whatever Python runs ComfyUI.

What has come of a file lies beside its place until it is complete, held by the one process that writes it. Others that
want the same file wait for that one, and go on in its place if it dies.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from .catalogue import HUB, Published, model_file
from .errors import DynamicIDError
from .partial import partial_file

Progress = Callable[[str, int, int], None]  # what is fetched, bytes that are there, bytes in all

PART = ".part"  # after the name of what has come so far
BLOCK = 1 << 20  # bytes read at a time
TIMEOUT = 30.0  # s without a byte, after which a connection counts as cut
ATTEMPTS = 5  # one after another that bring nothing new
WAIT = 0.5  # s before the next attempt, doubled each time that one brings nothing; and between looks at a file that is held
TRANSIENT = (408, 429, 500, 502, 503, 504)  # answers that another attempt may not meet
CUT = (OSError, http.client.HTTPException)  # what a connection that breaks off may raise


def fetch(published: Published, target: Path, progress: Progress | None = None) -> Path:
    """Have a published file at ``target``: fetched, unless it is there. Returns ``target``.

    Raises DynamicIDError if it cannot be had, with what to do; what has come until then stays for the next attempt, except
    if its checksum is wrong. A file that is there is compared with the pinned checksum, if there is one, and never touched.
    """
    if target.exists():
        _check_existing(published, target)
        return target
    with _fetched(published, target, target.exists, progress) as part:
        if part is not None:
            _put(part, target)
    return target


def fetch_weights(folder: Path, progress: Progress | None = None) -> list[Path]:
    """Have the published DynamicID weights (pickles, Apache-2.0) in ``folder``. As :func:`fetch`."""
    files = [file for key in ("saa", "imr") for file in model_file(key).files]
    return [fetch(file, folder / file.name, progress) for file in files]


def fetch_archive(
    published: Published, folder: Path, is_whole: Callable[[], bool], progress: Progress | None = None
) -> Path:
    """Have the files of a published zip archive in ``folder``, without the folders inside it, unless ``is_whole``.

    The folder appears with all of them at once; in one that is there, each appears whole. The archive is not kept. Returns
    and raises as :func:`fetch`.
    """
    with _fetched(published, folder, is_whole, progress) as part:
        if part is not None:
            _unpack(part, folder)
            part.truncate(0)
    return folder


def show(name: str, done: int, total: int) -> None:
    """Progress for people, on stderr: a line that changes with every percent, where somebody can see it change."""
    percent = 100 * done // total
    if sys.stderr.isatty() and (done == total or percent > 100 * (done - BLOCK) // total):
        line = f"\r{name}: {percent} % of {total / 1e9:.2f} GB"
        print(line, end="\n" if done == total else "", file=sys.stderr, flush=True)


# --- what is there ------------------------------------------------------------------------------------------------


def _check_existing(published: Published, target: Path) -> None:
    if not target.is_file():
        raise DynamicIDError(f"{target} is there, but is no file; move it away.")
    if published.sha256:
        with target.open("rb") as file:
            if _sha256(file) != published.sha256:
                raise DynamicIDError(
                    f"{target} is there, but is not what {published.url} gives (its checksum is another); move it away and "
                    "try again."
                )


@contextlib.contextmanager
def _fetched(
    published: Published, target: Path, is_there: Callable[[], bool], progress: Progress | None
) -> Iterator[BinaryIO | None]:
    """All of a file beside ``target``, checked, held by this process; None once ``target`` is there after all."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        expected = published.sha256 or _sha256_at_the_hub(published.url)
        with _held(target.with_name(f".{target.name}.{expected[:12]}{PART}"), is_there) as part:
            if part is not None:
                _complete(part, published, expected, progress)
            yield part
    except (*CUT, zipfile.BadZipFile) as error:
        raise DynamicIDError(
            f"{published.url} could not be fetched ({_reason(error)}); what has come stays and is continued when you try "
            f"again, or download it in a browser and put what it holds at {target}."
        ) from error


@contextlib.contextmanager
def _held(path: Path, is_there: Callable[[], bool]) -> Iterator[BinaryIO | None]:
    """What has come of a file, for this process alone; None once what is wanted ``is_there``."""
    while not is_there():
        with open(path, "r+b", opener=_or_new) as file:
            # One that was put in its place, or deleted, in between is held in vain.
            if _hold(file) and path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                try:
                    yield None if is_there() else file
                finally:
                    with contextlib.suppress(OSError, ValueError):  # on Windows, which deletes no open file
                        if not os.fstat(file.fileno()).st_size:
                            path.unlink()
                return
        time.sleep(WAIT)
    yield None


def _or_new(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


def _hold(file: BinaryIO) -> bool:
    """Whether nobody else holds this file; then this process does until the file is closed."""
    try:
        import fcntl
    except ImportError:
        return _hold_on_windows(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without such locks: two processes may disturb one another, which the checksum tells
        pass
    return True


def _hold_on_windows(file: BinaryIO) -> bool:
    import msvcrt

    file.seek(1 << 40)  # beyond any file: what is locked there cannot be read by others, either
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    except OSError:
        return False
    return True


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _put(part: BinaryIO, target: Path) -> None:
    part.flush()
    os.fsync(part.fileno())
    if os.name == "nt":  # which renames no open file
        part.close()
    os.replace(part.name, target)


# --- over the network ---------------------------------------------------------------------------------------------


def _complete(file: BinaryIO, published: Published, expected: str, progress: Progress | None) -> None:
    """Fetch what is missing of a file, attempt after attempt, and check all of it."""
    failed = 0
    while True:
        before = file.seek(0, os.SEEK_END)
        try:
            if _fetch_rest(file, published, progress):
                break
        except urllib.error.HTTPError as error:
            if error.code not in TRANSIENT or failed + 1 >= ATTEMPTS:
                raise
        except CUT as error:
            if (isinstance(error, OSError) and _is_of_the_disk(error)) or failed + 1 >= ATTEMPTS:
                raise
        failed = 0 if file.seek(0, os.SEEK_END) > before else failed + 1
        if failed >= ATTEMPTS:
            raise ConnectionError(f"the connection was cut {ATTEMPTS} times in a row")
        time.sleep(WAIT * 2**failed)
    if _sha256(file) != expected:
        file.truncate(0)  # nothing of it can be trusted
        raise DynamicIDError(
            f"What came from {published.url} has a wrong checksum, so it was not kept; try again, and if it is so "
            "again, something on the way or at its publisher changes it."
        )


def _fetch_rest(file: BinaryIO, published: Published, progress: Progress | None) -> bool:
    """One attempt: append what the server sends. Whether the file has all its bytes."""
    start = file.seek(0, os.SEEK_END)
    try:
        answer = _ask(published.url, {"Range": f"bytes={start}-"} if start else {})
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        total = int(re.sub(r".*/", "", error.headers.get("Content-Range", "")) or -1)
        if start > total:  # not what it was: anew
            file.truncate(0)
        return start == total
    with answer:
        if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
            first, total = (int(n) for n in re.findall(r"bytes (\d+)-\d+/(\d+)", answer.headers["Content-Range"])[0])
        else:
            first, total = 0, int(answer.headers.get("Content-Length", 0))
        file.seek(first)
        file.truncate()
        while block := answer.read1(BLOCK):  # what is there, so that little is lost where the process is killed
            file.write(block)
            if progress:
                progress(published.name, file.tell(), total or file.tell())
        return file.tell() == total or not total  # of unknown length: the checksum will tell


def _is_of_the_disk(error: OSError) -> bool:
    """Whether an error is this machine's (a full disk, no permission) and so will not pass by itself."""
    return error.errno is not None and not isinstance(error, (ConnectionError, TimeoutError, urllib.error.URLError))


def _ask(url: str, headers: dict[str, str], method: str = "GET", *handlers: urllib.request.BaseHandler) -> Any:
    """Open an address of the catalogue, of the hub's by way of the mirror that the user set, if any."""
    if url.startswith(HUB):
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise ConnectionError("HF_HUB_OFFLINE is set")
        url = os.environ.get("HF_ENDPOINT", HUB).rstrip("/") + "/" + url.removeprefix(HUB)
    request = urllib.request.Request(url, headers=headers | {"User-Agent": "comfyui-dynamicid"}, method=method)  # noqa: S310
    return urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT)


class _LinkedChecksum(urllib.request.HTTPRedirectHandler):
    """Remembers what the hub says of a large file, and goes no further: where its bytes are, is not asked."""

    sha256 = ""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        self.sha256 = _linked(headers)
        forwarded = None if self.sha256 else super().redirect_request(req, fp, code, msg, headers, newurl)
        if forwarded:
            forwarded.method = req.get_method()  # which Python before 3.13 forgets
        return forwarded


def _linked(headers: http.client.HTTPMessage) -> str:
    stated = headers.get("X-Linked-ETag", "").strip('"')
    return stated if re.fullmatch(r"[0-9a-f]{64}", stated) else ""


def _sha256_at_the_hub(url: str) -> str:
    """What the hub itself says of a file that the catalogue does not know by its checksum. Raises OSError if it says nothing."""
    remembered = _LinkedChecksum()
    try:
        with _ask(url, {}, "HEAD", remembered) as answer:
            sha256 = _linked(answer.headers)
    except urllib.error.HTTPError:
        if not (sha256 := remembered.sha256):
            raise
    if not sha256:
        raise ConnectionError("the server states no checksum for it")
    return sha256


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) if isinstance(error, urllib.error.URLError) else None
    code = f"HTTP {error.code}: " if isinstance(error, urllib.error.HTTPError) else ""
    told = error.strerror if isinstance(error, OSError) else ""
    return f"{code}{reason or told or error or type(error).__name__}"


# --- archives -----------------------------------------------------------------------------------------------------


def _unpack(archive: BinaryIO, folder: Path) -> None:
    with zipfile.ZipFile(archive) as content, tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as beside:
        unpacked = Path(beside) / folder.name
        unpacked.mkdir()
        for entry in content.infolist():
            if not entry.is_dir():
                with content.open(entry) as source, (unpacked / PurePosixPath(entry.filename).name).open("wb") as file:
                    shutil.copyfileobj(source, file, BLOCK)
        try:
            os.rename(unpacked, folder)
        except OSError:  # the folder is there already
            for path in sorted(unpacked.iterdir()):
                _replace(path, folder / path.name)


def _replace(source: Path, target: Path) -> None:
    with source.open("rb") as content, partial_file(target) as (file, put):
        shutil.copyfileobj(content, file, BLOCK)
        put()
