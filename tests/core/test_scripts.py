"""The scripts' shared parts: finding ComfyUI and its Python, making environments, linking the pack."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import sys
from pathlib import Path

import environment
import pytest
import setup
from comfyui import finding, folders

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path) -> Path:
    """An empty home folder, and none of the variables that the scripts read."""
    for name in ("COMFYUI_PATH", "COMFYUI_PYTHON", "DYNAMICID_VENV", "VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


def make_comfyui(folder: Path, version: str = "0.33.0") -> Path:
    for name in ("comfy", "custom_nodes"):
        (folder / name).mkdir(parents=True)
    for name in ("main.py", "nodes.py", "folder_paths.py"):
        (folder / name).touch()
    (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    (folder / "requirements.txt").write_text("aiohttp\n")
    return folder.resolve()


def make_python(folder: Path) -> Path:
    """Something that ``python_in`` takes for the interpreter of an environment in ``folder``."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    python.parent.mkdir(parents=True)
    python.touch()
    return python


def write_comfy_cli_settings(home: Path, **values: Path) -> None:
    place = {"Windows": "AppData/Local", "Darwin": "Library/Application Support"}.get(platform.system(), ".config")
    folder = home / place / "comfy-cli"
    folder.mkdir(parents=True)
    lines = [f"{key} = {value}" for key, value in values.items()]
    (folder / "config.ini").write_text("\n".join(["[DEFAULT]", *lines]), encoding="utf-8")


# --- finding ComfyUI ----------------------------------------------------------------------------------------------


def test_no_comfyui_is_no_error():
    assert finding.find_comfyui() is None


def test_comfyui_is_found_where_comfy_cli_installs_it():
    expected = make_comfyui(finding.default_comfyui())
    assert finding.find_comfyui() == expected


@pytest.mark.parametrize(
    "system, place",
    [("Linux", "comfy/ComfyUI"), ("Darwin", "Documents/comfy/ComfyUI"), ("Windows", "Documents/comfy/ComfyUI")],
)
def test_default_place_is_that_of_comfy_cli(monkeypatch, home, system, place):
    monkeypatch.setattr(platform, "system", lambda: system)
    assert finding.default_comfyui() == home / place


def test_comfy_cli_settings_come_before_the_default_place(home):
    make_comfyui(finding.default_comfyui())
    chosen = make_comfyui(home / "100% chosen")  # a percent sign means nothing special in these settings
    write_comfy_cli_settings(home, default_workspace=chosen, recent_workspace=home / "gone")
    assert finding.find_comfyui() == chosen


def test_settings_that_point_nowhere_are_passed_over(home):
    expected = make_comfyui(finding.default_comfyui())
    write_comfy_cli_settings(home, default_workspace=home / "gone")
    assert finding.find_comfyui() == expected


def test_comfyui_path_comes_first(monkeypatch, home):
    make_comfyui(finding.default_comfyui())
    named = make_comfyui(home / "named")
    monkeypatch.setenv("COMFYUI_PATH", str(named))
    assert finding.find_comfyui() == named


def test_comfyui_path_may_be_the_portable_folder(monkeypatch, home):
    inner = make_comfyui(home / "portable" / "ComfyUI")
    monkeypatch.setenv("COMFYUI_PATH", str(home / "portable"))
    assert finding.find_comfyui() == inner


def test_wrong_comfyui_path_is_named(monkeypatch, home):
    make_comfyui(finding.default_comfyui())  # not taken instead: the user asked for another
    monkeypatch.setenv("COMFYUI_PATH", str(home / "typo"))
    with pytest.raises(environment.SetupError, match="typo"):
        finding.find_comfyui()


def test_comfyui_around_the_pack_is_found(monkeypatch, home):
    comfyui = make_comfyui(home / "anywhere")
    monkeypatch.setattr(finding, "ROOT", comfyui / "custom_nodes" / "pack")
    assert finding.find_comfyui() == comfyui


# --- Pythons ------------------------------------------------------------------------------------------------------


def test_comfyui_python_is_the_first_with_its_packages(monkeypatch, home):
    comfyui = make_comfyui(home / "portable" / "ComfyUI")
    bare = make_python(comfyui / ".venv")
    full = make_python(comfyui.parent / "python_embeded")
    monkeypatch.setattr(finding, "has_modules", lambda python, *names: python not in (bare, Path(sys.executable)))
    assert finding.comfyui_python(comfyui) == full


def test_no_python_with_the_packages(monkeypatch, home):
    monkeypatch.setattr(finding, "has_modules", lambda python, *names: False)
    assert finding.comfyui_python(make_comfyui(home / "c")) is None
    monkeypatch.setenv("COMFYUI_PYTHON", "/nowhere/python")
    with pytest.raises(environment.SetupError, match="COMFYUI_PYTHON"):
        finding.comfyui_python(home / "c")


def test_has_modules(home):
    assert environment.has_modules(Path(sys.executable), "json", "torch")
    assert not environment.has_modules(Path(sys.executable), "json", "no_such_module")
    assert not environment.has_modules(home / "no-python")


def test_install_tries_the_next_installer(monkeypatch):
    tried = []
    monkeypatch.setattr(environment, "has_modules", lambda python, name: True)
    monkeypatch.setattr(environment, "_run", lambda command: bool(tried.append(command)) or len(tried) == 2)
    environment.install(Path("python"), "safetensors")
    assert [command[2] for command in tried] == ["uv", "pip"]
    assert all(command[-1] == "safetensors" for command in tried)


def test_install_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    monkeypatch.setattr(environment, "has_modules", lambda python, name: False)
    with pytest.raises(environment.SetupError, match="neither pip nor uv"):
        environment.install(Path("python"), "safetensors")
    monkeypatch.setattr(environment, "has_modules", lambda python, name: name == "pip")
    monkeypatch.setattr(environment, "_run", lambda command: False)
    with pytest.raises(environment.SetupError, match="failed"):
        environment.install(Path("python"), "safetensors")


# --- the project's own environment --------------------------------------------------------------------------------


@pytest.fixture
def installs(monkeypatch, home) -> list:
    """The calls of ``install``, while environments are only pretended."""
    calls = []

    def run(command: list[str]) -> bool:
        if "venv" in command:
            make_python(Path(command[-1]))
            (Path(command[-1]) / "pyvenv.cfg").touch()
        return True

    monkeypatch.setattr(environment, "_run", run)
    monkeypatch.setenv("DYNAMICID_VENV", str(home / "env"))
    monkeypatch.setattr(environment, "install", lambda python, *what: calls.append((python, what)))
    monkeypatch.setattr(environment, "has_modules", lambda python, *names: python.exists())
    return calls


def test_environment_is_made_once(installs, home):
    python = environment.project_environment()
    assert python == environment.python_in(home / "env")
    assert environment.project_environment() == python
    assert len(installs) == 1
    assert set(environment.TORCH) < set(installs[0][1])


def test_environment_follows_its_inputs(installs, home):
    comfyui = make_comfyui(home / "c")
    environment.project_environment()
    environment.project_environment(comfyui)
    assert str(comfyui / "requirements.txt") in installs[1][1]
    (comfyui / "requirements.txt").write_text("aiohttp>=4\n")
    environment.project_environment(comfyui)
    assert len(installs) == 3


def test_interrupted_installation_is_repeated(installs, monkeypatch):
    environment.project_environment()
    with monkeypatch.context() as patch:
        patch.setattr(environment, "TORCH", ("torch==0",))
        patch.setattr(environment, "install", lambda *_: (_ for _ in ()).throw(environment.SetupError("no network")))
        with pytest.raises(environment.SetupError):
            environment.project_environment()
    environment.project_environment()  # the same inputs as at first, but what is there now is unknown
    assert len(installs) == 2


def test_foreign_folder_is_not_cleared(installs, home):
    precious = home / "env" / "precious.txt"
    precious.parent.mkdir()
    precious.touch()
    with pytest.raises(environment.SetupError, match="no virtual environment"):
        environment.project_environment()
    assert precious.exists()


def test_old_python_is_refused(installs, monkeypatch):
    monkeypatch.setattr(environment.sys, "version_info", (3, 9, 1))
    with pytest.raises(environment.SetupError, match="3.10 or newer"):
        environment.project_environment()


def test_errors_are_one_line(monkeypatch, capsys):
    def main(arguments):
        raise environment.SetupError("what was found.")

    assert environment.run_script(main) == 1
    assert capsys.readouterr().err == "Error: what was found.\n"


# --- running the tests --------------------------------------------------------------------------------------------


@pytest.fixture
def run_tests(monkeypatch):
    """``scripts/test.py``'s main, the environment being the running one; returns the command that it started."""
    spec = importlib.util.spec_from_file_location("run_tests", ROOT / "scripts" / "test.py")  # `test` is Python's own
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    started = []

    class Done:
        returncode = 5

    monkeypatch.setattr(script, "project_environment", lambda comfyui: Path("python"))
    monkeypatch.setattr(script.subprocess, "run", lambda command, **options: started.append((command, options)) or Done)

    def run(*arguments: str):
        assert script.main(list(arguments)) == 5
        return started[-1]

    return run


def test_without_comfyui_host_tests_are_skipped_aloud(run_tests, capsys):
    command, _ = run_tests("-x")
    assert command[1:] == ["-m", "pytest", "tests/core", "-x"]
    assert "SKIPPED" in capsys.readouterr().out


def test_with_comfyui_all_tests_run(run_tests, capsys):
    comfyui = make_comfyui(finding.default_comfyui())
    command, options = run_tests()
    assert command[1:] == ["-m", "pytest", "tests"]
    assert options["env"]["COMFYUI_PATH"] == str(comfyui)
    assert "SKIPPED" not in capsys.readouterr().out


def test_named_tests_replace_the_default(run_tests):
    command, _ = run_tests("tests/core/test_scripts.py::test_has_modules", "-q")
    assert command[3:] == ["tests/core/test_scripts.py::test_has_modules", "-q"]


# --- set-up -------------------------------------------------------------------------------------------------------


def test_setup_links_installs_and_can_be_repeated(monkeypatch, capsys):
    comfyui = make_comfyui(finding.default_comfyui())
    installed = []
    monkeypatch.setattr(setup, "comfyui_python", lambda folder: Path(sys.executable))
    monkeypatch.setattr(setup, "install", lambda python, *what: installed.append((python, what)))
    for _ in range(2):
        assert setup.main([]) == 0
    pack = comfyui / "custom_nodes" / folders.PACK
    assert pack.samefile(ROOT)
    assert installed == [(Path(sys.executable), tuple(setup.missing_requirements(Path(sys.executable))))] * 2
    assert str(comfyui / "main.py") in capsys.readouterr().out


def test_setup_makes_a_python_where_there_is_none(monkeypatch):
    comfyui = make_comfyui(finding.default_comfyui())
    made = []
    monkeypatch.setattr(setup, "comfyui_python", lambda folder: None)
    monkeypatch.setattr(setup, "project_environment", lambda folder: made.append(folder) or Path(sys.executable))
    monkeypatch.setattr(setup, "install", lambda python, *what: None)
    assert setup.main([]) == 0
    assert made == [comfyui]


def test_setup_installs_no_comfyui_unasked(monkeypatch):
    monkeypatch.setattr(setup, "agrees", lambda question: False)
    with pytest.raises(setup.SetupError, match="COMFYUI_PATH.*--yes"):
        setup.main([])


def test_setup_refuses_an_old_comfyui():
    comfyui = make_comfyui(finding.default_comfyui(), version="0.3.64")
    with pytest.raises(setup.SetupError, match=r"0\.3\.64.*0\.16\.0"):
        setup.main([])
    assert not (comfyui / "custom_nodes" / folders.PACK).exists()


def test_a_folder_of_the_user_is_left_alone(home):
    comfyui = make_comfyui(home / "c")
    other = comfyui / "custom_nodes" / folders.PACK
    other.mkdir()
    with pytest.raises(setup.SetupError, match="not this folder"):
        folders.link_pack(comfyui)
    assert other.is_dir()


@pytest.fixture
def other_clone(monkeypatch, home) -> tuple[Path, Path]:
    """A ComfyUI, and another clone of the pack, which is linked there."""
    comfyui, other = make_comfyui(finding.default_comfyui()), home / "other clone"
    other.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(folders, "ROOT", other)
        assert folders.link_pack(comfyui).samefile(other)
    return comfyui, other


def test_a_link_that_leads_nowhere_is_replaced(other_clone, home):
    comfyui, other = other_clone
    other.rename(home / "moved")
    assert folders.linked_pack(comfyui) is None
    assert folders.link_pack(comfyui).samefile(ROOT) and folders.linked_pack(comfyui) == ROOT


def test_another_clone_stays_linked_unless_the_user_agrees(other_clone, monkeypatch):
    comfyui, other = other_clone
    monkeypatch.setattr(setup, "comfyui_python", lambda folder: Path(sys.executable))
    monkeypatch.setattr(setup, "install", lambda python, *what: None)
    asked = []
    for arguments in ([], ["--yes"]):
        with pytest.raises(
            setup.SetupError, match="uses another copy of this pack, .*other clone, which stays.*--relink"
        ):
            setup.main(arguments)
        assert folders.linked_pack(comfyui) == other.resolve()
    monkeypatch.setattr(setup, "agrees", lambda question: bool(asked.append(question)) or True)
    assert setup.main([]) == 0
    (question,) = asked
    assert str(other.resolve()) in question and str(ROOT) in question
    assert folders.linked_pack(comfyui) == ROOT and other.is_dir()


def test_relink_takes_the_place_of_another_clone(other_clone, monkeypatch):
    comfyui, other = other_clone
    monkeypatch.setattr(setup, "comfyui_python", lambda folder: Path(sys.executable))
    monkeypatch.setattr(setup, "install", lambda python, *what: None)
    monkeypatch.setattr(setup, "agrees", lambda question: pytest.fail("asked"))
    for _ in range(2):
        assert setup.main(["--relink"]) == 0
        assert folders.linked_pack(comfyui) == ROOT and other.is_dir()


def test_a_copy_of_another_clone_stays_too(monkeypatch, home):
    comfyui, other = make_comfyui(home / "c"), home / "other"
    (other / "nodes").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(folders, "ROOT", other)
        patch.setattr(folders, "make_link", lambda target: False)
        copy = folders.link_pack(comfyui)
    assert folders.linked_pack(comfyui) == other
    with pytest.raises(setup.SetupError, match="another copy of this pack"):
        folders.link_pack(comfyui)
    assert (copy / "nodes").is_dir()
    assert folders.link_pack(comfyui, lambda found: found == other).samefile(ROOT) and (other / "nodes").is_dir()


def test_without_links_the_pack_is_copied_and_refreshed(monkeypatch, home):
    source = home / "source"
    (source / "nodes").mkdir(parents=True)
    (source / ".venv").mkdir()
    monkeypatch.setattr(folders, "ROOT", source)
    monkeypatch.setattr(folders, "make_link", lambda target: False)
    comfyui = make_comfyui(home / "c")
    for name in ("first.py", "second.py"):
        (source / "nodes" / name).touch()
        copy = folders.link_pack(comfyui)
        assert (copy / "nodes" / name).is_file()
    assert not (copy / ".venv").exists()


def test_a_pack_in_custom_nodes_needs_no_link(monkeypatch, home):
    comfyui = make_comfyui(home / "c")
    inside = comfyui / "custom_nodes" / "any-name"
    inside.mkdir()
    monkeypatch.setattr(folders, "ROOT", inside)
    assert folders.link_pack(comfyui) == inside
    assert os.listdir(comfyui / "custom_nodes") == ["any-name"]


@pytest.mark.parametrize("present", [True, False])
def test_another_build_of_onnxruntime_is_kept(monkeypatch, present):
    monkeypatch.setattr(setup, "has_modules", lambda python, *names: present)
    names = [line.split(">=")[0] for line in setup.missing_requirements(Path("python"))]
    assert ("onnxruntime" in names) is not present
    assert "insightface" in names


@pytest.mark.parametrize(
    "system, machine, tools, option",
    [
        ("Darwin", "arm64", (), "--m-series"),
        ("Darwin", "x86_64", (), "--cpu"),
        ("Linux", "x86_64", ("nvidia-smi",), "--nvidia"),
        ("Linux", "x86_64", ("rocminfo",), "--amd"),
        ("Windows", "AMD64", (), "--cpu"),
    ],
)
def test_accelerator(monkeypatch, system, machine, tools, option):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(setup.shutil, "which", lambda name: name if name in tools else None)
    assert setup.accelerator() == option


def test_record_names_what_went_in(installs, home):
    environment.project_environment()
    record = json.loads((home / "env" / "dynamicid-inputs.json").read_text(encoding="utf-8"))
    assert record["torch"] == list(environment.TORCH)
    assert record["root"] == str(ROOT)
