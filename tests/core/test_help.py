"""Help pages: one for every node, true to its schema, and quoting messages that the project really has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from messages import is_known, messages

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "web/docs"
NODES = json.loads((ROOT / "tests/data/object_info.json").read_text(encoding="utf-8"))
LARGEST_PICTURE = 300_000  # bytes
MESSAGE = re.compile(r"^\| `([^|]+)` \| [^|]+ \|$", re.MULTILINE)
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")


@pytest.fixture(scope="module")
def known() -> list[str]:
    scripts = [file.read_text(encoding="utf-8") for file in (ROOT / "web/js").glob("*.js")]
    return [*messages(), *(text for script in scripts for text in re.findall(r'"([^"]+)"', script))]


def number(value: float) -> str:
    return format(value, "g")


def section(text: str, title: str) -> str:
    """What stands under a heading; empty if there is none."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def test_every_node_has_a_page_and_every_page_a_node() -> None:
    assert {page.stem for page in DOCS.glob("*.md")} == NODES.keys()
    assert {page.parent.name for page in DOCS.glob("*/*.md")} <= NODES.keys()


@pytest.mark.parametrize("node", NODES)
def test_page_lists_inputs_and_outputs_as_they_are(node: str) -> None:
    for page in (DOCS / f"{node}.md", *(DOCS / node).glob("*.md")):
        text = page.read_text(encoding="utf-8")
        rows = dict(reversed(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE)))  # inputs stand above outputs
        for name, info in NODES[node]["inputs"].items():
            row = rows[name]
            if "min" in info and "default" in info and "prefix" not in info:
                span = f"`{number(info['default'])}` ({number(info['min'])} to {number(info['max'])})"
                assert span in row.replace("\u81f3", "to"), (page, name, row)
            for option in info.get("options", ()):
                assert f"`{option}`" in row, (page, name, option)
        assert text.startswith("# ") and "```" in text


@pytest.mark.parametrize("node", NODES)
def test_page_quotes_messages_that_exist(node: str, known: list[str]) -> None:
    text = (DOCS / f"{node}.md").read_text(encoding="utf-8")
    quoted = MESSAGE.findall(section(text, "When it stops with a message"))
    assert [message for message in quoted if not is_known(message, known)] == []


def test_readme_quotes_messages_that_exist_and_shows_pictures_that_are_there(known: list[str]) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+) \| [^|]+ \|$", section(text, "Troubleshooting"), re.MULTILINE)
    quoted = [message for row in rows for message in re.findall(r"`([^`]+)`", row)]
    assert len(quoted) > 20 and [message for message in quoted if not is_known(message, known)] == []
    pictures = re.findall(r'<img src="([^"]+)"', text)
    assert len(pictures) > 5 and [name for name in pictures if not (ROOT / name).is_file()] == []


def test_quoted_messages_are_checked(known: list[str]) -> None:
    assert is_known("There are ... faces but ... weights; give one weight for each face.", known)
    assert not is_known("There are ... faces but no weights at all.", known)
    assert is_known("from a photo needs a face detector. Connect Load Face Analysis.", known)
    assert not is_known("from a photo needs a face detector. Choose a file for imr_file", known)
    assert sum(len(MESSAGE.findall(page.read_text(encoding="utf-8"))) for page in DOCS.glob("*.md")) > 30


def outline(text: str) -> list[tuple[list[str], list[str]]]:
    """What a page keeps in every language: for each part under a heading, its pictures and its tables' first cells."""
    return [(PICTURE.findall(part), MESSAGE.findall(part)) for part in re.split(r"^## ", text, flags=re.MULTILINE)]


@pytest.mark.parametrize("page", sorted(DOCS.glob("*/*.md")), ids=lambda page: page.relative_to(DOCS).as_posix())
def test_translated_page_has_what_its_english_page_has(page: Path) -> None:
    """The same parts, pictures, and rows of inputs, outputs and messages, in the same order."""
    english = outline((DOCS / f"{page.parent.name}.md").read_text(encoding="utf-8"))
    assert sum(len(rows) for _, rows in english) >= len(NODES[page.parent.name]["inputs"]) > 0
    assert outline(page.read_text(encoding="utf-8")) == english


@pytest.mark.parametrize("page", sorted(DOCS.glob("**/*.md")), ids=lambda page: page.relative_to(DOCS).as_posix())
def test_pictures_are_there_and_small(page: Path) -> None:
    """The host shows a page's pictures from its folder of help pages, also for pages in a language's file."""
    pictures = PICTURE.findall(page.read_text(encoding="utf-8"))
    assert pictures
    for name in pictures:
        assert (DOCS / name).is_file(), f"{page.name}: {name} is missing"
        assert (DOCS / name).stat().st_size <= LARGEST_PICTURE
