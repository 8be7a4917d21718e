"""The messages of the project as its sources have them, with ``...`` where a message names what was found."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GAP = "..."


def _text(node: ast.expr) -> str:
    """The text that an expression makes, as far as it is written there."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return GAP


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.JoinedStr, ast.BinOp, ast.Constant)):
            yield " ".join(_text(node).split())


def messages() -> list[str]:
    """Every text in the core and the nodes that may be, or be part of, a message."""
    files = [*(ROOT / "dynamicid_core").rglob("*.py"), *(ROOT / "nodes").glob("*.py")]
    return [text for file in files for text in _texts(ast.parse(file.read_text(encoding="utf-8"))) if " " in text]


def is_known(quoted: str, known: list[str]) -> bool:
    """Whether a message, as help pages and README quote it, is one of these or a part of one."""
    return any(quoted in text for text in known)
