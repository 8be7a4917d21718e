"""What a build remembers between runs: photos' hashes, what was seen in them, captions. One SQLite file in the set's folder.

A build that is killed loses nothing that was committed; only the process that leads the build writes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..types import DynamicIDError
from .sources import Source

FILE = "seen.sqlite"
TABLES = """
create table if not exists files (file text, begin integer, length integer, changed integer, id text,
    primary key (file, begin, length)) without rowid;
create table if not exists analyses (key text, id text, value blob, primary key (key, id)) without rowid;
create table if not exists captions (key text, id text, value text, primary key (key, id)) without rowid;
"""


class Store:
    """A context manager; what was put is committed at every ``put_*``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path)
            self._db.executescript(TABLES)
        except (OSError, sqlite3.Error) as error:
            raise DynamicIDError(
                f"{self.path} cannot be used ({error}); delete it, and photos are looked at again."
            ) from error

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def ids(self, sources: Iterable[Source]) -> list[str | None]:
        """The hash of each photo whose file has not been written to since it was read; None for the others."""
        rows = self._db.execute("select file, begin, length, changed, id from files")
        known = {(file, begin, length): (changed, found) for file, begin, length, changed, found in rows}
        changes: dict[str, int] = {}
        result = []
        for source in sources:
            changed, found = known.get((source.file, source.offset, source.length), (None, None))
            if source.file not in changes:
                changes[source.file] = _changed(source.file)
            result.append(found if changed == changes[source.file] else None)
        return result

    def put_ids(self, found: Iterable[tuple[Source, str]]) -> None:
        rows = [(s.file, s.offset, s.length, _changed(s.file), i) for s, i in found]
        with self._db:
            self._db.executemany("insert or replace into files values (?, ?, ?, ?, ?)", rows)

    def analyses(self, key: str) -> Iterator[tuple[str, bytes]]:
        """Hash and analysis of all photos seen by the models that ``key`` stands for."""
        yield from self._db.execute("select id, value from analyses where key = ?", (key,))

    def seen(self, key: str) -> set[str]:
        """The hashes of these photos."""
        return {found for (found,) in self._db.execute("select id from analyses where key = ?", (key,))}

    def put_analyses(self, key: str, found: Iterable[tuple[str, bytes]]) -> None:
        with self._db:
            self._db.executemany("insert or replace into analyses values (?, ?, ?)", [(key, i, v) for i, v in found])

    def captions(self, key: str) -> dict[str, str]:
        return dict(self._db.execute("select id, value from captions where key = ?", (key,)))

    def put_caption(self, key: str, photo: str, caption: str) -> None:
        with self._db:
            self._db.execute("insert or replace into captions values (?, ?, ?)", (key, photo, caption))


def _changed(file: str) -> int:
    try:
        return Path(file).stat().st_mtime_ns
    except OSError:
        return -1
