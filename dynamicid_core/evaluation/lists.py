"""Lists in files, whatever the format: JSON lines, JSON, CSV, TOML, or one text a line -> one dictionary a row."""

from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path
from typing import Any

from ..plain import one_line, parse_json, shown
from ..types import DynamicIDError

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".toml", ".txt")


def is_list(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def read_rows(path: Path, text_key: str = "picture") -> list[Row]:
    """The rows of a list. In a ``.txt`` each line is a row with ``text_key`` alone; empty lines and # are skipped.

    Raises DynamicIDError, with the line where there is one, for what cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = _parse(path, text, text_key)
    except FileNotFoundError:
        raise DynamicIDError(f"There is no list {path}. Check the name and the folder.") from None
    except RecursionError:
        raise DynamicIDError(f"The list {path} cannot be read (it is nested too deeply).") from None
    except (OSError, ValueError, csv.Error) as error:
        raise DynamicIDError(f"The list {path} cannot be read ({one_line(str(error).rstrip('.'))}).") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DynamicIDError(f"Entry {number} of {path} is {shown(row)}, not a set of names and values.")
    if not rows:
        raise DynamicIDError(f"The list {path} is empty.")
    return rows


def _parse(path: Path, text: str, text_key: str) -> list[Any]:
    suffix = path.suffix.lower()
    if suffix == ".txt":
        lines = (line.strip() for line in text.splitlines())
        return [{text_key: line} for line in lines if line and not line.startswith("#")]
    if suffix in (".csv", ".tsv"):
        table = csv.DictReader(text.splitlines(), delimiter="\t" if suffix == ".tsv" else ",")
        return [{key.strip(): value for key, value in row.items() if key and value} for row in table]
    if suffix == ".toml":
        return _only_table(_toml(text))
    if suffix == ".json":
        values = parse_json(text)
        return values if isinstance(values, list) else _only_table(values)
    return [_json_line(line, number) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _json_line(line: str, number: int) -> Any:
    try:
        return parse_json(line)
    except DynamicIDError as error:
        raise DynamicIDError(f"line {number}: {error}") from error


def _toml(text: str) -> Row:
    parser: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    rows: Row = parser.loads(text)
    return rows


def _only_table(values: Any) -> list[Any]:
    """The one list in a file that may name it as it likes: ``[[pictures]]``, ``{"prompts": [...]}``."""
    lists = [value for value in values.values() if isinstance(value, list)] if isinstance(values, dict) else []
    if len(lists) != 1:
        raise DynamicIDError(f"it must hold one list of tables, such as [[pictures]], and has {len(lists)}")
    only: list[Any] = lists[0]
    return only
