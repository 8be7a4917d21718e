"""What the registry, pip and the host read about the pack: complete, consistent, each fact stated once."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest there

ROOT = Path(__file__).resolve().parents[2]
ACCELERATORS = {"NVIDIA CUDA", "AMD ROCm", "Intel Arc", "Apple Metal"}  # the registry's names; another empties its list


@pytest.fixture(scope="module")
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def requirements() -> list[str]:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def names(lines: list[str]) -> set[str]:
    return {Requirement(line).name.lower().replace("_", "-") for line in lines}


def test_requirements_leave_the_hosts_packages_alone(requirements):
    assert names(requirements) == {"insightface", "onnxruntime", "safetensors"}


def test_requirements_have_lower_bounds_only(requirements):
    specifiers = {line: [part.operator for part in Requirement(line).specifier] for line in requirements}
    assert all(operators == [">="] for operators in specifiers.values()), specifiers


def test_dependencies_are_the_requirements(pyproject, requirements):
    assert pyproject["project"]["dependencies"] == requirements


def test_extras(pyproject):
    extras = pyproject["project"]["optional-dependencies"]
    assert set(extras) == {"diffusers", "train", "evaluate", "cluster", "test"}
    assert {"torch", "diffusers", "transformers"} <= names(extras["diffusers"])
    for name, lines in extras.items():
        for requirement in map(Requirement, lines):
            if requirement.name == pyproject["project"]["name"]:
                assert requirement.extras <= set(extras) - {name}


def test_scripts_install_every_extra(pyproject):
    text = (ROOT / "scripts" / "environment.py").read_text(encoding="utf-8")
    installed = re.search(r'^EXTRAS = "(.+)"$', text, re.MULTILINE)[1]
    assert set(installed.split(",")) == set(pyproject["project"]["optional-dependencies"])


def test_registry_fields(pyproject):
    project, comfy = pyproject["project"], pyproject["tool"]["comfy"]
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,98}[a-z0-9]", project["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert (ROOT / project["license"]["file"]).is_file()
    assert project["urls"]["Repository"].startswith("https://")
    assert re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])
    assert comfy["PublisherId"] and comfy["DisplayName"]
    assert "web" not in comfy, "the host looks help up under the folder's name, which WEB_DIRECTORY serves"
    for name in ("Icon", "Banner"):
        assert comfy.get(name, "https://").startswith("https://")


def test_classifiers_are_known_to_the_registry(pyproject):
    kinds = [line.split(" :: ", 1) for line in pyproject["project"]["classifiers"]]
    assert {kind for kind, _ in kinds} == {"Operating System", "Environment"}
    assert {value for kind, value in kinds if kind == "Operating System"} == {"OS Independent"}
    assert {value for kind, value in kinds if kind == "Environment"} <= {f"GPU :: {name}" for name in ACCELERATORS}


def test_version_is_the_same_everywhere(pyproject):
    """The core states it because checkpoints carry it, also where nothing is installed (in ComfyUI, the pack is a folder);
    the workflows because the host asks them to (``ver``)."""
    stating = {
        file.relative_to(ROOT).as_posix(): match[1]
        for file in (ROOT / "dynamicid_core").rglob("*.py")
        if (match := re.search(r'^__version__ = "(.+)"', file.read_text("utf-8"), re.MULTILINE))
    }
    assert stating == {"dynamicid_core/__init__.py": pyproject["project"]["version"]}
    for workflow in (ROOT / "workflows").rglob("*.json"):
        for node in json.loads(workflow.read_text(encoding="utf-8")).get("nodes", []):
            properties = node.get("properties", {})
            if properties.get("cnr_id") == pyproject["project"]["name"]:
                assert properties["ver"] == pyproject["project"]["version"], workflow.name


def test_licence_is_apache():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert re.search(r"Apache License\s+Version 2\.0, January 2004", text)
    assert "END OF TERMS AND CONDITIONS" in text


def test_promises_of_security_name_tests_that_are_there():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:tests/\w+/)?(test_\w+\.py)`", text))
    assert len(named) >= 5
    assert named <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert "SECURITY.md" in (ROOT / "README.md").read_text(encoding="utf-8")


# --- the registry's archive ---------------------------------------------------------------------------------------

SHIPPED = {
    *("LICENSE", "README.md", "SECURITY.md", "pyproject.toml", "requirements.txt", ".comfyignore", "__init__.py"),
    *("dynamicid_core", "nodes", "scripts", "web", "locales", "workflows", "subgraphs", "docs"),
}


def tracked(*options: str) -> set[str]:
    done = subprocess.run(["git", "ls-files", *options], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this is no checkout")
    return set(done.stdout.splitlines())


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """The files that the registry ships, in a folder of their own."""
    folder = tmp_path_factory.mktemp("archive")
    for name in tracked() - tracked("--cached", "--ignored", "--exclude-from=.comfyignore"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def test_archive_holds_what_users_need_and_nothing_else(archive, pyproject):
    assert SHIPPED - {path.name for path in archive.iterdir()} <= {"docs"}  # which may be empty
    assert {path.name for path in archive.iterdir()} <= SHIPPED
    for name in ("web/docs/DynamicIDApply.md", "dynamicid_core/models.json", "scripts/comfyui/finding.py"):
        assert (archive / name).is_file()
    data = pyproject["tool"]["setuptools"]["package-data"]["dynamicid_core"]
    core = ROOT / "dynamicid_core"
    others = {path.relative_to(core).as_posix() for path in core.rglob("*.*") if path.suffix not in (".py", ".pyc")}
    assert [name for name in others if not any(PurePosixPath(name).match(pattern) for pattern in data)] == [], (
        "what pip installs with the core besides its sources"
    )


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["two_people.py", "--help"], 0, "two photos"),
        (["two_people.py", "a.jpg", "b.jpg"], 1, "Error: There is no photo a.jpg.\n"),
        (["two_people.py", "a.jpg"], 2, "without any, drawn people are shown"),
        (
            ["two_people.py", "README.md", "LICENSE", "--output", "LICENSE"],
            1,
            "Error: LICENSE is one of the files that are",
        ),
        (["setup.py", "--help"], 0, "DynamicID nodes into ComfyUI"),
    ],
)
def test_scripts_start_from_the_archive_with_nothing_installed(archive, words, code, said):
    command = [sys.executable, "-S", str(archive / "scripts" / words[0]), *words[1:]]  # -S: no installed package at all
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=archive)
    assert done.returncode == code and said in done.stdout + done.stderr, done.stderr
    assert "Traceback" not in done.stderr


# --- the tree that pip and the host load --------------------------------------------------------------------------


def test_continuous_integration_runs_the_test_script_alone():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines == ["#!/usr/bin/env bash", 'cd "$(dirname "$0")/.." && exec python3 scripts/test.py']


def test_lowest_host_is_the_stated_one(pyproject):
    tree = ast.parse((ROOT / "nodes" / "__init__.py").read_text(encoding="utf-8"))
    assigned = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    lowest = ast.literal_eval(assigned["LOWEST_HOST"])
    assert pyproject["tool"]["comfy"]["requires-comfyui"] == ">=" + ".".join(map(str, lowest))


@pytest.mark.parametrize("name", ["__main__", "pack"], ids=["as a file", "as a package"])
def test_root_imports_with_nothing_installed(name):
    """Linters and pack managers import the root without a host, some as a file of no package."""
    code = (
        "import importlib.util, runpy, sys\n"
        "name, path = sys.argv[1:]\n"
        "if name == '__main__':\n"
        "    runpy.run_path(path)\n"
        "else:\n"
        "    spec = importlib.util.spec_from_file_location(name, path)\n"
        "    sys.modules[name] = importlib.util.module_from_spec(spec)\n"
        "    spec.loader.exec_module(sys.modules[name])\n"
        "    assert callable(sys.modules[name].comfy_entrypoint)\n"
    )
    command = [sys.executable, "-S", "-c", code, name, str(ROOT / "__init__.py")]  # -S: no installed package at all
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_core_is_found_and_no_nodes_module_beside_it():
    """Where the core is installed or under test, the root itself is not importable from."""
    assert importlib.util.find_spec("dynamicid_core") is not None
    found = importlib.util.find_spec("nodes")
    assert found is None or str(ROOT / "nodes") not in (found.submodule_search_locations or [])
