"""Tensors of many items by key, in shards: written once, never changed, read row by row through memory mapping.

A part is a folder for what was made in one way: ``part.json`` says how, for people, and every shard is a safetensors
file of some items' rows with their keys. A shard is written whole or not at all, and named by the keys in it: making the
same items again, at once, after an interruption or by several processes, gives the same files, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files import read_safetensors
from ..saving import write_safetensors
from ..types import DynamicIDError
from ..writing import write

ABOUT = "part.json"
KEY_BYTES = 16
KEYS = "keys"  # the name of the keys' tensor in a shard
OPEN_SHARDS = 512  # memory-mapped at a time by one process

Made = Mapping[str, Any]  # what made a part: names -> plain values


def digest(*values: Any) -> bytes:
    """16 bytes for some plain values (texts, bytes, numbers, None): the key of an item."""
    hashed = hashlib.sha256()
    for value in values:
        raw = value if isinstance(value, bytes) else repr(value).encode()
        hashed.update(len(raw).to_bytes(8, "little") + raw)
    return hashed.digest()[:KEY_BYTES]


def as_keys(keys: Sequence[bytes]) -> np.ndarray:
    """Keys as a column, uint8 [n, 16]."""
    return np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), KEY_BYTES)


class Part:
    """The rows that were made in one way. Opening looks at what is there; :meth:`write` adds, :meth:`opened` looks again."""

    def __init__(self, root: Path, kind: str, made_by: Made):
        """``kind``: what the rows are, in a word; ``made_by``: all that they depend on besides each item's key."""
        self.root, self.kind, self.made_by = Path(root), kind, dict(made_by)
        text = json.dumps(self.made_by, sort_keys=True)
        self.folder = self.root / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        self._files: OrderedDict[int, Any] = OrderedDict()

    def opened(self) -> Part:
        """The same part as it is on the disk now."""
        return Part(self.root, self.kind, self.made_by)

    def __getstate__(self) -> dict[str, Any]:
        # Files are opened in the process that reads them; the index travels, so that it is sorted only once.
        return {**self.__dict__, "_files": OrderedDict()}

    # Finding

    @cached_property
    def shards(self) -> tuple[Path, ...]:
        return tuple(sorted(self.folder.glob("*.safetensors")))

    @cached_property
    def _index(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Keys in two halves, sorted by the first, with each one's row; and the first row of each shard."""
        found = [_shard_keys(path) for path in self.shards]
        starts = np.cumsum([0, *map(len, found)])
        halves = np.concatenate([np.zeros((0, KEY_BYTES), np.uint8), *found]).view("<u8")
        order = np.argsort(halves[:, 0], kind="stable")
        return halves[order, 0], halves[order, 1], order, starts

    def __len__(self) -> int:
        return len(self._index[0])

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Keys, uint8 [n, 16] -> rows, int64 [n]; -1 for those that are not there."""
        first, second, order, _ = self._index
        wanted = np.ascontiguousarray(keys).view("<u8")
        if not len(first):
            return np.full(len(wanted), -1)
        place = np.minimum(np.searchsorted(first, wanted[:, 0]), len(first) - 1)
        same = (first[place] == wanted[:, 0]) & (second[place] == wanted[:, 1])
        return np.where(same, order[place], -1)

    # Reading

    def read(self, rows: Sequence[int] | np.ndarray, names: Sequence[str] = ()) -> dict[str, Tensor]:
        """Rows (of :meth:`find`) -> their tensors by name, [n, ...] each; ``names``: only these."""
        starts = self._index[3]
        shards = np.searchsorted(starts, rows, side="right") - 1
        found = [(self._file(int(shard)), int(row - starts[shard])) for shard, row in zip(shards, rows, strict=True)]
        names = names or [name for name in found[0][0].keys() if name != KEYS]
        return {name: torch.stack([file.get_slice(name)[row] for file, row in found]) for name in names}

    def _file(self, shard: int) -> Any:
        from safetensors import safe_open

        if shard not in self._files:
            if len(self._files) >= OPEN_SHARDS:
                self._files.popitem(last=False)
            self._files[shard] = safe_open(self.shards[shard], "pt")
        self._files.move_to_end(shard)
        return self._files[shard]

    def row_bytes(self) -> int:
        """Size of a row in bytes; 0 if there are none."""
        if not self.shards:
            return 0
        tensors = self.read([0]).values()
        return sum(tensor.nbytes for tensor in tensors) + KEY_BYTES

    # Writing

    def describe(self) -> None:
        """Write ``part.json``."""
        text = json.dumps({"kind": self.kind, "made_by": self.made_by}, indent=2, sort_keys=True)
        write(self.folder / ABOUT, text + "\n")

    def write(self, keys: np.ndarray, tensors: Mapping[str, Tensor]) -> Path:
        """Add a shard: keys uint8 [n, 16] and tensors [n, ...] each."""
        name = hashlib.sha256(np.ascontiguousarray(keys).tobytes()).hexdigest()[:24]
        whole = {KEYS: torch.from_numpy(np.array(keys)), **tensors}
        return write_safetensors(self.folder / f"{name}.safetensors", whole, {"format": "pt"})


def _shard_keys(path: Path) -> np.ndarray:
    from safetensors import safe_open

    try:
        with safe_open(path, "np") as file:
            return np.asarray(file.get_tensor(KEYS))
    except Exception as error:  # of the reader, and of whatever is wrong with a disk
        try:
            read_safetensors(path)
        except DynamicIDError as told:
            raise DynamicIDError(f"{told} Delete this file of the cache; it is made anew.") from error
        raise DynamicIDError(f"{path} is no file of a cache; delete it.") from error


def parts_in(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every part in a cache's folder, with what its ``part.json`` says; what is none, or says nothing, is left out."""
    for path in sorted(Path(root).glob(f"*/{ABOUT}")):
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(about, dict) and {"kind", "made_by"} <= about.keys():
            yield path.parent, about


def size_of(folder: Path) -> int:
    """Bytes of the files in a part's folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def remove_part(folder: Path) -> None:
    """Delete a part: its own files only, and its folder if nothing else is in it."""
    for path in [*folder.glob("*.safetensors"), *folder.glob("*.partial"), folder / ABOUT]:
        path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        shutil.rmtree(folder)
