"""What shared workflows depend on stays: node ids, inputs with their types, defaults and ranges, and outputs.

``tests/data/object_info.json`` holds what the host's ``/object_info`` says about it. Texts, lists of files and the host's own
lists are left out, since they may change. With the environment variable DYNAMICID_WRITE_CONTRACT set, a run of these tests
adds new nodes and inputs to the file, and the schemas' texts to ``locales/en``; what the file holds already is never changed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from comfy_host import REPOSITORY, Host

CONTRACT = REPOSITORY / "tests/data/object_info.json"
ENGLISH = REPOSITORY / "locales/en/nodeDefs.json"
WRITE = bool(os.environ.get("DYNAMICID_WRITE_CONTRACT"))
HOW = "If it is new, run this test once with DYNAMICID_WRITE_CONTRACT=1 and commit the file."
FROZEN_OPTIONS = ("default", "min", "max", "step", "forceInput")
# Combos of what lies in folders, and of what the host has.
OTHERS = {"saa_file", "imr_file", "face_file", "sampler_name", "scheduler", "ckpt_name", "vae_name", "clip_name"}


@pytest.fixture(scope="module")
def nodes(host: Host) -> dict[str, dict]:
    return {name: info for name, info in host.object_info().items() if name.startswith("DynamicID")}


def inputs_of(info: dict) -> dict[str, tuple[str, Any, dict]]:
    """Input -> (required or optional, type, options), in the host's order."""
    order = info["input_order"]
    return {
        name: (part, info["input"][part][name][0], (info["input"][part][name][1:] or [{}])[0])
        for part in ("required", "optional")
        for name in order.get(part, ())
    }


def frozen_input(name: str, part: str, kind: str, options: dict) -> dict:
    frozen: dict[str, Any] = {"type": kind, "part": part}
    frozen |= {key: options[key] for key in FROZEN_OPTIONS if key in options}
    if "options" in options and name not in OTHERS:
        frozen["options"] = options["options"]
    if "template" in options:  # a growing list
        template = options["template"]
        frozen |= {"items": [kind for kind, _ in template["input"]["required"].values()]}
        frozen |= {key: template[key] for key in ("prefix", "min", "max")}
    return frozen


def contract_of(info: dict) -> dict:
    """The frozen part of a node's entry in ``/object_info``."""
    return {
        "inputs": {name: frozen_input(name, *rest) for name, rest in inputs_of(info).items()},
        "outputs": info["output"],
        "output_node": info["output_node"],
    }


def texts_of(info: dict) -> dict:
    """A node's texts, in the form of the host's ``nodeDefs.json``."""
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": {
            name: {"name": name, "tooltip": options.get("tooltip", "")}
            for name, (_, _, options) in inputs_of(info).items()
        },
        "outputs": {str(slot): {"name": name} for slot, name in enumerate(info["output_name"])},
    }


def read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def write(file: Path, content: dict) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    file.write_text(text, encoding="utf-8", newline="\n")


def changes(frozen: dict[str, dict], now: dict[str, dict]) -> list[str]:
    """What shared workflows would stumble over, in words."""
    found = [f"{node} is gone" for node in frozen.keys() - now.keys()]
    for node in frozen.keys() & now.keys():
        old, new = frozen[node], now[node]
        for name, value in old["inputs"].items():
            known = [value, value | {"part": "optional"}]  # older workflows may give more than is required now
            if new["inputs"].get(name) not in known:
                found.append(f"{node}.{name} was {value}, is {new['inputs'].get(name)}")
        same = [name for name, value in old["inputs"].items() if new["inputs"].get(name) == value]
        kept, before = [name for name in new["inputs"] if name in same], same
        if kept != before:  # widgets' values are saved by their order
            found.append(f"{node} has its inputs in another order: {kept}")
        if new["outputs"][: len(old["outputs"])] != old["outputs"]:
            found.append(f"{node} had the outputs {old['outputs']}, has {new['outputs']}")
        found += [
            f"{node}.{name} is new and required, so that older workflows lack it; make it optional"
            for name in new["inputs"].keys() - old["inputs"].keys()
            if new["inputs"][name]["part"] == "required"
        ]
    return sorted(found)


def test_what_workflows_depend_on_is_unchanged(nodes: dict[str, dict]) -> None:
    now = {name: contract_of(info) for name, info in nodes.items()}
    if WRITE and not CONTRACT.exists():
        write(CONTRACT, now)
    assert changes(read(CONTRACT), now) == []
    if WRITE:
        write(CONTRACT, now)
    assert read(CONTRACT) == now, f"The nodes hold more than {CONTRACT.name}. {HOW}"


def test_changes_are_seen() -> None:
    frozen = read(CONTRACT)
    assert len(frozen) >= 13 and changes(frozen, frozen) == []

    def change(edit) -> list[str]:
        now = json.loads(json.dumps(frozen))
        edit(now)
        return changes(frozen, now)

    apply = "DynamicIDApply"
    assert change(lambda now: now.pop(apply)) == [f"{apply} is gone"]
    assert "weight was" in change(lambda now: now[apply]["inputs"]["weight"].update(default=2.0))[0]
    assert "was" in change(lambda now: now["DynamicIDPlaceFaces"]["inputs"]["cast"].update(part="required"))[0]
    assert change(lambda now: now[apply]["inputs"]["cast"].update(part="optional")) == []
    assert "is None" in change(lambda now: now[apply]["inputs"].pop("weight"))[0]
    assert "order" in change(lambda now: now[apply]["inputs"].update(model=now[apply]["inputs"].pop("model")))[0]
    assert "outputs" in change(lambda now: now[apply]["outputs"].clear())[0]
    new = {"type": "INT", "part": "required", "default": 1}
    assert "make it optional" in change(lambda now: now[apply]["inputs"].update(more=new))[0]
    assert change(lambda now: now[apply]["inputs"].update(more=new | {"part": "optional"})) == []


def test_every_text_is_there_and_english_is_the_schemas(nodes: dict[str, dict]) -> None:
    texts = {name: texts_of(info) for name, info in nodes.items()}
    if WRITE:
        write(ENGLISH, texts)
    assert read(ENGLISH) == texts, f"locales/en differs from the nodes' texts. {HOW}"
    for name, info in nodes.items():
        assert info["description"] and info["search_aliases"], f"{name} lacks a description or search aliases"
        tips = [options.get("tooltip") for _, _, options in inputs_of(info).values()]
        assert all(tips), f"{name} has inputs without a tooltip"
