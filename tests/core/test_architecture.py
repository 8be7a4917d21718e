"""The dependency rule, and what else must hold for every file of the tree.

Data flows one way through the core, and imports follow it: ``ORDER`` lists the modules, and each may import only what
stands before it. Every rule here is a function from a module's path and imports to messages, so that each is shown to
fail on a small sample before it is held against the tree.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = "dynamicid_core"
ORDER = [
    "types",
    "catalogue",
    "files",
    "layers",
    "networks",
    "checkpoints",
    "faces",
    "tokens",
    "motion",
    "encode",
    "regions",
    "placing",
    "drawing",
    "scoring",
    "attention",
    "gate_maps",
    "hosts",
    "datasets",
    "training",
    "evaluation",
    "command_line",
    "__main__",
]
COMMAND_LINE = {"command_line", "__main__"}
HOSTS = {
    *("comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths", "nodes", "server"),
    *("accelerate", "diffusers", "transformers"),
}
MAY_IMPORT_HOSTS = {"hosts", "training", *COMMAND_LINE}
OUTSIDE = {"comfyui", "environment", "standins", "build_workflows", "build_blueprints", "graphs"}  # scripts, devtools
OPTIONAL = {
    *("cv2", "huggingface_hub", "insightface", "onnx", "onnxruntime"),
    *("matplotlib", "scipy", "skimage", "sklearn", "torchvision"),
}
WITH_EXTRAS = {"datasets", "training", "evaluation"}  # extra dependencies at their top are fine: all imported late
FOR_NODES = {"comfy", "comfy_api", "comfy_execution", "comfyui_version", "folder_paths", "numpy", "server", "torch"}


@dataclass(frozen=True)
class Import:
    """One imported module: absolute (``torch.nn``), or of this tree, from its root (``/dynamicid_core/types``)."""

    name: str
    line: int
    at_top: bool  # runs when the importing module is imported

    @property
    def package(self) -> str:
        return self.name.split(".")[0]


def imports_of(path: str, source: str) -> list[Import]:
    """All imports in ``source``, which lies at ``path`` (from the root, with slashes)."""
    return list(_walk(ast.parse(source), path, at_top=True))


def _walk(node: ast.AST, path: str, at_top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, at_top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (Import(name, child.lineno, at_top) for name in _from_names(child, path))
        lazy = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        yield from _walk(child, path, at_top and not lazy and not typing_only)


def _from_names(node: ast.ImportFrom, path: str) -> list[str]:
    """The modules that ``from x import y`` reads: x, or x.y where x only holds modules (the root, the core)."""
    if node.level == 0:
        base = node.module
    else:
        below = node.module.split(".") if node.module else []
        base = "".join(f"/{part}" for part in [*path.split("/")[: -node.level], *below])
    holds_modules = base == "" or core_module(base) == "__init__"
    return [f"{base}/{alias.name}" for alias in node.names] if holds_modules else [base]


def core_module(name: str) -> str | None:
    """The module or package of the core (``types``, ``networks``) that an import or a path leads to, if any."""
    parts = name.removesuffix(".py").lstrip("/").replace("/", ".").split(".")
    if parts[0] != CORE:
        return None
    return parts[1] if len(parts) > 1 else "__init__"


# --- rules: (path, imports) -> messages ---------------------------------------------------------------------------


def against_the_flow(path: str, imports: Iterable[Import]) -> Iterator[str]:
    """Imports of the core that do not point upward in ``ORDER``, and modules that have no place in it."""
    module = core_module(path)
    if module is None:
        return
    if module not in ORDER and module != "__init__":
        yield f"{path}: has no place in the order of the core's modules"
        return
    for item in imports:
        wanted = core_module(item.name)
        if item.package in OUTSIDE:
            yield f"{path}:{item.line}: the core must not import {item.package}"
        if wanted in (None, "__init__", module):
            continue
        if module == "__init__" or wanted not in ORDER or ORDER.index(wanted) >= ORDER.index(module):
            yield f"{path}:{item.line}: {module} must not import {wanted}"


def foreign_hosts(path: str, imports: Iterable[Import]) -> Iterator[str]:
    """Hosts imported by a part of the core that must run without one."""
    module = core_module(path)
    if module is None or module in MAY_IMPORT_HOSTS:
        return
    for item in imports:
        if item.package in HOSTS:
            yield f"{path}:{item.line}: {module} imports the host {item.package}"


def early_imports(path: str, imports: Iterable[Import]) -> Iterator[str]:
    """Optional packages imported when the core is, instead of where they are used."""
    module = core_module(path)
    if module is None or module in WITH_EXTRAS:
        return
    optional = OPTIONAL if module == "hosts" else OPTIONAL | HOSTS
    for item in imports:
        if item.at_top and (item.package in optional or core_module(item.name) in WITH_EXTRAS):
            yield f"{path}:{item.line}: {item.name} must be imported where it is used"


def node_imports(path: str, imports: Iterable[Import]) -> Iterator[str]:
    """``nodes/`` imports the core and the host's API alone; nothing but the root and itself imports ``nodes/``."""
    for item in imports:
        own = item.name.startswith("/nodes")
        if path.startswith("nodes/"):
            known = item.package in FOR_NODES | set(sys.stdlib_module_names)
            core = item.name.startswith(f"/{CORE}")
            if not (own or known or core):
                yield f"{path}:{item.line}: a node imports {item.name}"
        elif own and path != "__init__.py":
            yield f"{path}:{item.line}: imports the pack's nodes"


RULES = (against_the_flow, foreign_hosts, early_imports, node_imports)


@pytest.mark.parametrize(
    "rule, path, source, broken",
    [
        (against_the_flow, "dynamicid_core/types.py", "from .files import x", True),
        (against_the_flow, "dynamicid_core/files.py", "from .types import x", False),
        (against_the_flow, "dynamicid_core/files.py", "def f():\n    from . import tokens", True),
        (against_the_flow, "dynamicid_core/tokens.py", "from . import files, types", False),
        (against_the_flow, "dynamicid_core/networks/saa.py", "from .perceiver import x\nfrom ..layers import y", False),
        (against_the_flow, "dynamicid_core/networks/saa.py", "from ..checkpoints import x", True),
        (against_the_flow, "dynamicid_core/networks/__init__.py", "from ..regions import x", True),
        (against_the_flow, "dynamicid_core/regions.py", "import dynamicid_core.attention", True),
        (against_the_flow, "dynamicid_core/attention.py", "from dynamicid_core.regions import x", False),
        (against_the_flow, "dynamicid_core/attention.py", "from .hosts import comfy", True),
        (against_the_flow, "dynamicid_core/regions.py", "from dynamicid_core import attention", True),
        (against_the_flow, "dynamicid_core/networks/saa.py", "from .. import types", False),
        (against_the_flow, "dynamicid_core/networks/saa.py", "from .. import tokens", True),
        (against_the_flow, "dynamicid_core/__init__.py", "from .types import Face", True),
        (against_the_flow, "dynamicid_core/faces.py", "def f():\n    from standins import x", True),
        (against_the_flow, "dynamicid_core/command_line/generate.py", "import standins.models", True),
        (against_the_flow, "dynamicid_core/misc.py", "", True),
        (foreign_hosts, "dynamicid_core/faces.py", "def f():\n    import comfy.utils", True),
        (foreign_hosts, "dynamicid_core/faces.py", "from diffusers.models import x", True),
        (foreign_hosts, "dynamicid_core/hosts/comfy.py", "import comfy.utils\nimport folder_paths", False),
        (foreign_hosts, "dynamicid_core/training/loop.py", "import diffusers", False),
        (foreign_hosts, "dynamicid_core/faces.py", "from .nodes import x\nimport torch", False),
        (early_imports, "dynamicid_core/faces.py", "import insightface.app", True),
        (early_imports, "dynamicid_core/faces.py", "def f():\n    import insightface", False),
        (early_imports, "dynamicid_core/faces.py", "class A:\n    import onnxruntime", True),
        (early_imports, "dynamicid_core/faces.py", "try:\n    import cv2\nexcept ImportError:\n    pass", True),
        (early_imports, "dynamicid_core/faces.py", "if TYPE_CHECKING:\n    import insightface", False),
        (early_imports, "dynamicid_core/faces.py", "import numpy\nimport torch\nfrom PIL import Image", False),
        (early_imports, "dynamicid_core/command_line/generate.py", "import diffusers", True),
        (early_imports, "dynamicid_core/command_line/generate.py", "from ..training import loop", True),
        (early_imports, "dynamicid_core/hosts/diffusers.py", "import diffusers", False),
        (early_imports, "dynamicid_core/hosts/comfy.py", "import insightface", True),
        (early_imports, "dynamicid_core/evaluation/scores.py", "import skimage", False),
        (node_imports, "nodes/place.py", "import torch\nfrom comfy_api.latest import io\nimport math", False),
        (node_imports, "nodes/place.py", "from ..dynamicid_core.types import Cast\nfrom .common import x", False),
        (node_imports, "nodes/place.py", "import insightface", True),
        (node_imports, "nodes/place.py", "from dynamicid_core.types import Cast", True),
        (node_imports, "nodes/place.py", "from ..scripts import x", True),
        (node_imports, "nodes/place.py", "from standins import x", True),
        (node_imports, "nodes/place.py", "from . import common\nfrom ..dynamicid_core import regions", False),
        (node_imports, "dynamicid_core/command_line/generate.py", "from ... import nodes", True),
        (node_imports, "dynamicid_core/hosts/comfy.py", "from ...nodes import place", True),
        (node_imports, "dynamicid_core/hosts/comfy.py", "import nodes", False),  # the host's module
        (node_imports, "__init__.py", "async def f():\n    from .nodes import NODES", False),
    ],
)
def test_rules_see_what_they_forbid(rule, path, source, broken):
    messages = list(rule(path, imports_of(path, source)))
    assert bool(messages) is broken, messages


# --- the tree -----------------------------------------------------------------------------------------------------


def tree(*endings: str) -> list[Path]:
    """The files of the project with one of these endings, without what .gitignore names."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    folders = {".git", *(line.rstrip("/") for line in ignored if line.endswith("/"))}

    def files(folder: Path) -> Iterator[Path]:
        for entry in sorted(folder.iterdir()):
            name = entry.relative_to(ROOT).as_posix()
            if entry.is_symlink() or name in folders or entry.name in folders or entry.name.endswith(".egg-info"):
                continue
            if entry.is_dir():
                yield from files(entry)
            elif entry.name.endswith(endings):
                yield entry

    return list(files(ROOT))


@pytest.mark.parametrize("rule", RULES)
def test_tree_keeps_the_rule(rule):
    files = {file.relative_to(ROOT).as_posix(): file for file in tree(".py")}
    assert f"{CORE}/types.py" in files
    found = {path: imports_of(path, file.read_text(encoding="utf-8")) for path, file in files.items()}
    assert [message for path, imports in found.items() for message in rule(path, imports)] == []


def test_core_imports_without_optional_packages():
    """Every module of the core except the adapters is imported in a Python that has no optional package."""
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in tree(".py")
        if core_module(file.relative_to(ROOT).as_posix()) in {"__init__", *ORDER} - WITH_EXTRAS - {"hosts"}
    ]
    assert f"{CORE}.attention" in modules
    code = textwrap.dedent("""
        import importlib, sys
        root, blocked, modules = sys.argv[1], sys.argv[2].split(","), sys.argv[3].split(",")

        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in blocked:
                    raise ModuleNotFoundError(f"{name} is blocked", name=name)

        sys.meta_path.insert(0, Blocker())
        sys.path.insert(0, root)
        for module in modules:
            importlib.import_module(module)
    """)
    arguments = [str(ROOT), ",".join(OPTIONAL | HOSTS), ",".join(modules)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def not_cp1252(text: str) -> list[str]:
    """The characters that a Windows code page, which some tools read sources with, does not have."""
    return sorted({character for character in text if not character.encode("cp1252", "ignore")})


MACHINE_PATH = re.compile(r"(?<![\w.}-])/(?:root|home|Users|work|mnt)/\w|\b[A-Za-z]:\\Users\\\w")
MERGE_MARKER = re.compile(r"^(?:<{7}|>{7})(?: |$)", re.MULTILINE)


def leftovers(text: str) -> list[str]:
    """Paths of somebody's machine, and markers of an unfinished merge."""
    return [found[0] for pattern in (MACHINE_PATH, MERGE_MARKER) for found in pattern.finditer(text)]


def test_text_checks_see_what_they_forbid():
    assert not_cp1252("size 3 \u00d7 4, caf\u00e9") == []
    assert not_cp1252("a \u2192 b \u4eba") == ["\u2192", "\u4eba"]
    assert leftovers("see " + "/home" + "/anna/x") == ["/home" + "/a"]
    assert leftovers("open('" + "C:\\" + "Users\\anna')") == ["C:\\" + "Users\\a"]
    assert leftovers("x\n" + "<" * 7 + " HEAD\n") == ["<" * 7 + " "]
    assert leftovers("https://example.org/home/page, ~/comfy, models/work/x, Heading\n=======\n") == []


def test_sources_are_cp1252():
    assert {file.name: bad for file in tree(".py") if (bad := not_cp1252(file.read_text(encoding="utf-8")))} == {}


def test_no_machine_path_and_no_merge_marker():
    endings = (".py", ".md", ".toml", ".txt", ".json", ".js", ".css", ".yml", "ignore", ".gitattributes", "run")
    assert {file.name: bad for file in tree(*endings) if (bad := leftovers(file.read_text(encoding="utf-8")))} == {}


def test_no_module_is_called_utils():
    assert [str(file) for file in tree("utils.py")] == []
