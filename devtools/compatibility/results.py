"""What was found, in a file for each host, from which the page is written."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from .trying import Tried


@dataclass
class MatrixResults:
    """The matrix in one host. ``refusal``: what our pack said where it did not load; ``packs``: commits of others."""

    path: Path
    version: str
    refusal: str = ""
    packs: dict[str, str] = field(default_factory=dict)
    tried: list[Tried] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path, version: str) -> MatrixResults:
        """What is there, or nothing yet."""
        path = folder / f"matrix-{version}.json"
        if not path.is_file():
            return cls(path, version)
        content = json.loads(path.read_text("utf-8"))
        tried = [Tried(**entry) for entry in content.pop("tried")]
        return cls(path, tried=tried, **content)

    @classmethod
    def read_all(cls, folder: Path) -> list[MatrixResults]:
        """Of all hosts, the newest first."""
        versions = [path.stem.removeprefix("matrix-") for path in folder.glob("matrix-*.json")]
        versions.sort(key=lambda version: [int(number) for number in version.split(".")], reverse=True)
        return [cls.read(folder, version) for version in versions]

    def has(self, name: str) -> bool:
        return any(tried.name == name for tried in self.tried)

    def put(self, new: Tried) -> None:
        """Add it, in place of what was found of the same before."""
        same = [number for number, old in enumerate(self.tried) if (old.name, old.order) == (new.name, new.order)]
        if same:
            self.tried[same[0]] = new
        else:
            self.tried.append(new)

    def write(self) -> None:
        content = {"version": self.version, "refusal": self.refusal, "packs": self.packs}
        content["tried"] = [tried.to_json() for tried in self.tried]
        self.path.write_text(json.dumps(content, indent=1), "utf-8")
