"""The model files that DynamicID works with: names, folders, sizes, sources, licences, each stated once (models.json).

Downloads, messages, templates, stand-ins and the README's table take them from here. Standard library only, since the
scripts read it before anything is installed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

HUB = "https://huggingface.co/"
DRAWN = "drawn_world"  # how the names of the drawn world's files begin


@dataclass(frozen=True)
class Published:
    """One file as its publisher offers it."""

    name: str  # its path in the hub's repository, or the file's name where it is published elsewhere
    url: str  # at the pinned revision, where there is one
    sha256: str  # hex; empty where none was ever written down: then the hub is asked for it when the file is fetched


@dataclass(frozen=True)
class ModelFile:
    """One model: a file, or for face models a folder of files."""

    key: str
    what: str  # in words for people
    name: str  # as the workflows name it
    folder: str  # below ComfyUI's folder ``models``
    serves: tuple[str, ...]  # patterns of the names of files that do as well, best first
    gigabytes: float  # as published
    page: str  # where its publisher tells about it
    urls: tuple[str, ...]  # what is published; all of them together are this model
    revision: str  # commit of the hub's repository at which they are fetched; empty for the newest
    sha256: tuple[str, ...]  # of what is published, in the order of ``urls``; empty where nobody has written it down
    licence: str
    commercial: bool  # whether the licence allows commercial use

    @property
    def path(self) -> str:
        """Its place below ComfyUI's folder ``models``."""
        return f"{self.folder}/{self.name}"

    @property
    def size(self) -> str:
        """As people read it: ``2.1 GB``."""
        return f"{self.gigabytes:.1f} GB"

    @property
    def repository(self) -> str:
        """``owner/name`` on the Hugging Face hub; empty if it is published elsewhere."""
        return self.page.removeprefix(HUB) if self.page.startswith(HUB) else ""

    @property
    def published(self) -> tuple[str, ...]:
        """Paths in the hub's repository, or names of the files where it is published elsewhere."""
        start = f"{self.page}/resolve/main/"
        return tuple(url.removeprefix(start) if url.startswith(start) else PurePosixPath(url).name for url in self.urls)

    @property
    def files(self) -> tuple[Published, ...]:
        """What is to be fetched for this model: pinned as far as that is known."""
        newest, pinned = "/resolve/main/", f"/resolve/{self.revision or 'main'}/"
        return tuple(
            Published(name, url.replace(newest, pinned), sha256)
            for name, url, sha256 in zip(self.published, self.urls, self.sha256, strict=True)
        )

    def choose(self, names: list[str]) -> str | None:
        """The best of these file names (with or without folders before them) that serves, in any case; else None.

        The drawn world's never do: they know no photos.
        """
        for pattern in self.serves:
            for name in names:
                if not is_drawn(name) and fnmatchcase(
                    name.replace("\\", "/").rpartition("/")[2].lower(), pattern.lower()
                ):
                    return name
        return None


def is_drawn(name: str) -> bool:
    """Whether a file, by its name with or without folders, is the drawn world's."""
    return name.replace("\\", "/").rpartition("/")[2].startswith(DRAWN)


@cache
def model_files() -> tuple[ModelFile, ...]:
    """All of them, in the order in which the README lists them."""
    entries = json.loads(Path(__file__).with_name("models.json").read_text(encoding="utf-8"))
    frozen = {key: {name: _frozen(value) for name, value in entry.items()} for key, entry in entries.items()}
    return tuple(ModelFile(key, **entry) for key, entry in frozen.items())


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def model_file(key: str) -> ModelFile:
    """One of them: ``checkpoint``, ``vae``, ``clip_vision``, ``saa``, ``imr`` or ``face_pack``. Raises KeyError for others."""
    return {entry.key: entry for entry in model_files()}[key]
