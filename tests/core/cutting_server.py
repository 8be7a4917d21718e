"""A server on this machine that does to downloads what networks do: cuts them, stalls, ignores ranges, sends other bytes."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Cutting:
    """What the server has, how it behaves, and what it was asked for."""

    content: dict[str, bytes]  # path -> bytes
    cut_after: int = 0  # bytes of each answer after which the connection breaks off; 0 for never
    errors: list[int] = field(default_factory=list)  # answered first, one for each request
    ranges: bool = True  # whether it knows ranges
    pause: float = 0.0  # s before each 16 kB
    asked: list[tuple[str, str, int]] = field(default_factory=list)  # method, path, first byte
    url: str = ""

    def sha256(self, path: str) -> str:
        return hashlib.sha256(self.content[path]).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        """The hub says what a file is, then sends elsewhere."""
        said: Cutting = self.server.said
        said.asked.append(("HEAD", self.path, 0))
        elsewhere = self.path.startswith("/elsewhere")
        self.send_response(200 if elsewhere else 302)
        if not elsewhere:
            self.send_header("X-Linked-ETag", f'"{said.sha256(self.path)}"')
            self.send_header("Location", f"/elsewhere{self.path}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        said: Cutting = self.server.said
        known = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if said.ranges else None
        start = int(known[1]) if known else 0
        said.asked.append(("GET", self.path, start))
        if said.errors:
            self.send_error(said.errors.pop(0))
            return
        if self.path not in said.content:
            self.send_error(404)
            return
        content = said.content[self.path]
        if known and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if known else 200)
        if known:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self._send(content[start:], said)

    def _send(self, content: bytes, said: Cutting) -> None:
        sent = content[: said.cut_after or None]
        with contextlib.suppress(OSError):  # whoever asked may be gone
            for first in range(0, len(sent), 1 << 14):
                time.sleep(said.pause)
                self.wfile.write(sent[first : first + (1 << 14)])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Tests look at ``asked``."""


@contextlib.contextmanager
def serving(content: dict[str, bytes], **behaviour: object) -> Iterator[Cutting]:
    said = Cutting(content, **behaviour)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads, server.said = True, said
        said.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield said
        finally:
            server.shutdown()
            thread.join()
