"""What must hold for every file of the tree: it reads well to the linters, imports point one way, nothing optional is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import lint
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).resolve().parents[2]
CORE = "dynamicid_core"
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
OPTIONAL = set(SETTINGS["ruff"]["lint"]["flake8-tidy-imports"]["banned-module-level-imports"])


needs_linters = pytest.mark.skipif(sys.version_info < (3, 11), reason="import-linter needs Python 3.11")


@needs_linters
def test_linters_have_nothing_to_say(capfd):
    assert lint.main([]) == 0, capfd.readouterr()


@pytest.fixture(scope="module")
def copied_tree(tmp_path_factory) -> Path:
    """The core and the nodes, to be spoilt."""
    root = tmp_path_factory.mktemp("tree") / "copy"
    for folder in (CORE, "nodes"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "__init__.py", root)
    return root


@needs_linters
@pytest.mark.parametrize(
    "file, line, said",
    [
        (f"{CORE}/types.py", "from .files import read_tensors", "Data flows one way"),
        (f"{CORE}/regions.py", "def f():\n    from . import attention", "Data flows one way"),
        (f"{CORE}/networks/saa.py", "from ..checkpoints import load_saa", "Data flows one way"),
        (f"{CORE}/misc.py", "", "Data flows one way"),
        (f"{CORE}/faces.py", "def f():\n    import comfy.utils", "The core runs without a host"),
        (f"{CORE}/encode.py", "from diffusers.models import x", "The core runs without a host"),
        (f"{CORE}/hosts/comfy/run.py", "from ..diffusers import unet", "Hosts do not know each other"),
        (f"{CORE}/hosts/comfy/run.py", "from ....nodes import cast", "Nothing but ComfyUI's entry"),
        ("nodes/cast.py", "import insightface", "Nodes know the core and ComfyUI alone"),
        ("nodes/cast.py", "from ..dynamicid_core.command_line import main", "Nodes know the core and ComfyUI alone"),
    ],
)
def test_contracts_see_what_they_forbid(copied_tree, file, line, said):
    """Each contract is broken once, in a copy of the tree."""
    spoilt = copied_tree / file
    before = spoilt.read_text(encoding="utf-8") if spoilt.exists() else None
    spoilt.write_text(f"{before or ''}\n{line}\n", encoding="utf-8")
    try:
        checked = lint.check_imports(Path(sys.executable), copied_tree)
    finally:
        spoilt.write_text(before, encoding="utf-8") if before is not None else spoilt.unlink()
    broken = {name.rstrip() for name in re.findall(r"^(.*?) BROKEN", checked.stdout, re.MULTILINE)}
    assert checked.returncode == 1
    assert any(name.startswith(said) for name in broken) or (file.endswith("misc.py") and "misc" in checked.stdout), (
        checked.stdout
    )


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


def test_core_imports_without_optional_packages():
    """Every module of the core except the adapters is imported in a Python that has no optional package."""
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in tree(".py")
        if file.is_relative_to(ROOT / CORE) and not file.is_relative_to(ROOT / CORE / "hosts")
    ]
    assert f"{CORE}.attention" in modules
    code = textwrap.dedent("""
        import importlib, sys
        from importlib.machinery import PathFinder
        root, blocked, modules = sys.argv[1], sys.argv[2].split(","), sys.argv[3].split(",")

        find_spec = PathFinder.find_spec

        @staticmethod  # whoever asks an instance, too
        def blocking(name, *rest):
            return None if name.split(".")[0] in blocked else find_spec(name, *rest)

        PathFinder.find_spec = blocking
        sys.path.insert(0, root)
        for module in modules:
            importlib.import_module(module)
        for name in blocked:
            assert importlib.util.find_spec(name) is None and name not in sys.modules
    """)
    arguments = [str(ROOT), ",".join(OPTIONAL), ",".join(modules)]
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
