"""Where photos come from: folders of people, KDEF, the published code's layout, WebDataset shards (docs/training.md, Data).

A file is a photo if it is named like one or begins like one. Whose photo it is, and what it shows if its name or the text
beside it says so, is read here; no pixel is.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..prompts import GRID_POSES
from ..types import DynamicIDError
from .labels import Labels, expression_of, read_kdef_name, read_text

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jfif", ".avif", ".heic")
BESIDE = (".txt", ".json", ".pt", ".npy", ".npz", ".csv", ".md", ".cls", ".safetensors", ".caption")  # of photos
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
PUBLISHED = "base_image_dataset"  # the folder of people in the published code's layout
LANDMARKS = "_landmark"  # ... and how its pictures of landmarks end
PERSON_KEYS = ("person", "identity", "subject", "person_id", "id")


@dataclass(frozen=True)
class Source:
    """A photo before anybody looked at it."""

    name: str  # for people to read: its path below the folder that was named; unique
    file: str  # the file, or the shard that holds it
    offset: int = 0  # where in the file its bytes begin
    length: int = -1  # how many they are; -1: all that follow
    labels: Labels = Labels()
    collection: str = "photos"

    def read(self) -> bytes:
        """Its bytes. Raises OSError."""
        with open(self.file, "rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


@dataclass(frozen=True)
class Listing:
    """All photos of the sources, by name, and how many files of which ending were none."""

    sources: tuple[Source, ...]
    ignored: dict[str, int]


def list_sources(places: Sequence[str | os.PathLike[str]]) -> Listing:
    """All photos in folders and shards, in the order of their names.

    Raises DynamicIDError for a place that is not there, and if there is no photo at all.
    """
    found: list[Source] = []
    ignored: Counter[str] = Counter()
    roots = [Path(place) for place in places]
    for number, root in enumerate(roots):
        if not root.exists():
            raise DynamicIDError(f"There is no folder or shard {root}. Check the name.")
        prefix = "" if len(roots) == 1 else f"{root.name or number}/"
        if prefix and [other.name for other in roots].count(root.name) > 1:
            prefix = f"{number + 1} {prefix}"
        found += (
            _in_folder(root, prefix, ignored) if root.is_dir() else _in_shard(root, f"{prefix}{root.name}", ignored)
        )
    if not found:
        seen = f" (there are {sum(ignored.values())} other files)" if ignored else ""
        raise DynamicIDError(
            f"No photo was found in {', '.join(map(str, roots))}{seen}. Give a folder with a folder of photos for each "
            "person, or WebDataset shards (.tar, not compressed)."
        )
    if not any(source.labels.person for source in found):
        raise DynamicIDError(
            f"The photos in {', '.join(map(str, roots))} lie beside each other, so nobody knows whose they are. Put each "
            "person's photos into a folder of its own."
        )
    return Listing(tuple(sorted(found, key=lambda source: source.name)), dict(sorted(ignored.items())))


# --- Folders ------------------------------------------------------------------------------------------------------


def _in_folder(root: Path, prefix: str, ignored: Counter[str]) -> Iterator[Source]:
    for folder, names, files in os.walk(root, followlinks=True):
        names[:] = sorted(name for name in names if not name.startswith((".", "__MACOSX")))
        stems = {Path(name).stem for name in files}
        for name in sorted(files):
            path = Path(folder) / name
            inside = PurePosixPath(path.relative_to(root).as_posix())
            if path.suffix.lower() == ".tar":
                yield from _in_shard(path, f"{prefix}{inside}", ignored)
            elif name.startswith(".") or not _is_photo(path):
                ignored[path.suffix.lower() or "without ending"] += 1
            elif not (path.stem.endswith(LANDMARKS) and path.stem.removesuffix(LANDMARKS) in stems):
                labels = _labels_beside(path, inside)
                yield Source(f"{prefix}{inside}", str(path), labels=labels, collection=_collection(inside))


def _is_photo(path: Path) -> bool:
    """By its name, or else by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in PICTURES or suffix in BESIDE:
        return suffix in PICTURES
    try:
        with path.open("rb") as file:
            return _begins_like_a_picture(file.read(16))
    except OSError:
        return False


def _begins_like_a_picture(head: bytes) -> bool:
    return head.startswith(MAGIC) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")


def _collection(inside: PurePosixPath) -> str:
    return "photos" if read_kdef_name(inside.stem) is None else "kdef"


def _labels_beside(path: Path, inside: PurePosixPath) -> Labels:
    """From the name, the folder, and a text file or JSON file of the same name."""
    record: dict[str, Any] = {}
    try:
        if path.with_suffix(".json").is_file():
            record = _record(path.with_suffix(".json").read_bytes())
        if path.with_suffix(".txt").is_file():
            record.setdefault("txt", path.with_suffix(".txt").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        pass
    return _labels(inside, record)


def _labels(inside: PurePosixPath, record: dict[str, Any]) -> Labels:
    """``inside``: the photo's path below the root, or its key; ``record``: what is known besides."""
    folders = [part for part in inside.parts[:-1] if part != PUBLISHED]
    named = read_kdef_name(inside.stem) or Labels(person=folders[0] if folders else "")
    text = read_text(str(record.get("txt") or record.get("caption") or ""))
    pose = str(record.get("pose", ""))
    return Labels(
        person=next((str(record[key]) for key in PERSON_KEYS if record.get(key) not in (None, "")), named.person),
        expression=expression_of(str(record.get("expression", ""))) or named.expression or text.expression,
        pose=(pose if pose in GRID_POSES else "") or named.pose or text.pose,
        caption=text.caption,
    )


def _record(content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


# --- Shards -------------------------------------------------------------------------------------------------------


def _in_shard(path: Path, name: str, ignored: Counter[str]) -> Iterator[Source]:
    """The photos of a WebDataset shard: members whose names agree up to the first dot of the last part are a sample."""
    if path.suffix.lower() != ".tar":
        if _is_photo(path):
            raise DynamicIDError(f"{path} is one photo. Give the folder that holds the people's folders.")
        raise DynamicIDError(f"{path} is no shard that can be read; WebDataset shards are .tar files, not compressed.")
    samples: dict[str, list[tarfile.TarInfo]] = {}
    try:
        with tarfile.open(path, "r:") as shard, path.open("rb") as file:
            for member in shard:
                if member.isfile():
                    folder, _, last = member.name.rpartition("/")
                    samples.setdefault(f"{folder}/{last.partition('.')[0]}".lstrip("/"), []).append(member)
            for key, members in samples.items():
                yield from _in_sample(path, file, name, key, members, ignored)
    except tarfile.TarError as error:
        raise DynamicIDError(f"The shard {path} cannot be read ({error}); copy it again, not compressed.") from error


def _in_sample(
    path: Path, file: io.BufferedReader, name: str, key: str, members: list[tarfile.TarInfo], ignored: Counter[str]
) -> Iterator[Source]:
    def content(member: tarfile.TarInfo) -> bytes:
        file.seek(member.offset_data)
        return file.read(member.size)

    record: dict[str, Any] = {}
    photos = []
    for member in members:
        ending = member.name.rpartition(".")[2].lower() if "." in member.name.rpartition("/")[2] else ""
        if f".{ending}" in PICTURES:
            photos.append(member)
        elif ending == "json":
            record = {**_record(content(member)), **record}
        elif ending in ("txt", "cls"):
            record["txt" if ending == "txt" else "person"] = content(member).decode("utf-8", errors="replace").strip()
        else:
            ignored[f".{ending}" if ending else "without ending"] += 1
    inside = PurePosixPath(key)
    if len(inside.parts) == 1 and "_" in key and read_kdef_name(key) is None:
        inside = PurePosixPath(key.rpartition("_")[0]) / key  # anna_0001: the photos of anna
    for member in photos:
        yield Source(
            f"{name}/{member.name}",
            str(path),
            member.offset_data,
            member.size,
            _labels(inside, record),
            _collection(inside),
        )
