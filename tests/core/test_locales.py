"""Every language has every text of every node, with nothing left over, empty, or of another meaning in numbers."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("en", "zh", "ja", "ko", "fr", "es")
NODES = json.loads((ROOT / "tests/data/object_info.json").read_text(encoding="utf-8"))
# Numbers, file names, quoted choices and placeholders: what a translation must keep letter by letter.
FIXED = re.compile(
    r"\d+(?:\.\d+)?|[\w/-]+\.(?:safetensors|bin)|models/[\w/]+|'[a-z]+'|\{\w+\}|buffalo_l|\.safetensors", re.ASCII
)


def load(language: str, file: str) -> dict:
    return json.loads((ROOT / "locales" / language / file).read_text(encoding="utf-8"))


def leaves(tree: dict, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """(path, text) of every text."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def expected_paths() -> set[tuple[str, ...]]:
    """The texts that the nodes' schema asks for."""
    paths = set()
    for node, info in NODES.items():
        paths |= {(node, "display_name"), (node, "description")}
        paths |= {(node, "inputs", name, what) for name in info["inputs"] for what in ("name", "tooltip")}
        paths |= {(node, "outputs", str(slot), "name") for slot in range(len(info["outputs"]))}
    return paths


def fixed_parts(text: str) -> Counter:
    return Counter(FIXED.findall(text.replace("\N{NO-BREAK SPACE}", " ")))


def test_languages_are_complete() -> None:
    assert {folder.name for folder in (ROOT / "locales").iterdir() if folder.is_dir()} == set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_nodes_have_exactly_the_texts_of_the_schema(language: str) -> None:
    texts = dict(leaves(load(language, "nodeDefs.json")))
    assert texts.keys() == expected_paths()
    assert [path for path, text in texts.items() if not isinstance(text, str) or text != text.strip() or not text] == []


@pytest.mark.parametrize("language", LANGUAGES[1:])
@pytest.mark.parametrize("file", ["main.json", "nodeDefs.json"])
def test_translations_say_the_same_in_numbers_and_names(language: str, file: str) -> None:
    english, texts = (dict(leaves(load(name, file))) for name in ("en", language))
    assert texts.keys() == english.keys()
    differing = {
        path: (english[path], text) for path, text in texts.items() if fixed_parts(text) != fixed_parts(english[path])
    }
    assert differing == {}


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_sentences_are_translated(language: str) -> None:
    english, texts = (dict(leaves(load(name, "nodeDefs.json"))) for name in ("en", language))
    same = [path for path, text in texts.items() if text == english[path] and " " in text]
    assert same == []


SCRIPTS = {file.name: file.read_text(encoding="utf-8") for file in sorted((ROOT / "web/js").glob("*.js"))}


def test_the_page_has_the_texts_that_its_scripts_use() -> None:
    used = {name for script in SCRIPTS.values() for name in re.findall(r"(?<!/)\btexts\.(\w+)", script)}
    texts = load("en", "main.json")["dynamicid"]
    assert used == texts.keys()
    for name, text in texts.items():
        assert f'{name}: "{text}"' in SCRIPTS["texts.js"]  # what is shown until the translations have arrived


def test_the_menu_of_presets_is_translated() -> None:
    inputs = NODES["DynamicIDMotionPrompt"]["inputs"]
    words = load("en", "main.json")["dynamicidWords"]
    assert words == {word: word for one in inputs.values() for word in one["options"]}
