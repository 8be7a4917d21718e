"""The messages of the project as its sources have them, with ``...`` where a message names what was found.

What is missing is said in two parts: the core says what lacks for what, and a front end how to supply it.
"""

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


def _hints() -> dict[str, str]:
    """The nodes' hints for what is missing, by the part."""
    tree = ast.parse((ROOT / "nodes/hints.py").read_text(encoding="utf-8"))
    (table,) = (node.value for node in ast.walk(tree) if isinstance(node, ast.AnnAssign))
    return ast.literal_eval(table)


def _with_hints(tree: ast.AST, hints: dict[str, str]) -> Iterator[str]:
    """What is said of missing parts, as an artist reads it: completed by the nodes' hint."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Missing":
            part, text = node.args
            yield f"{' '.join(_text(text).split())} {hints[ast.literal_eval(part)]}"


def messages() -> list[str]:
    """Every text in the core and the nodes that may be, or be part of, a message."""
    files = [*(ROOT / "dynamicid_core").rglob("*.py"), *(ROOT / "nodes").glob("*.py")]
    trees, hints = [ast.parse(file.read_text(encoding="utf-8")) for file in files], _hints()
    texts = [text for tree in trees for text in _texts(tree) if " " in text]
    return texts + [text for tree in trees for text in _with_hints(tree, hints)]


def is_known(quoted: str, known: list[str]) -> bool:
    """Whether a message, as help pages and README quote it, is one of these or a part of one."""
    return any(quoted in text for text in known)
