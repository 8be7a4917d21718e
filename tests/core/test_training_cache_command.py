"""`train cache` as people type it, on small networks in the place of the stand-ins."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import tiny_training
import torch
import training_set as small

from dynamicid_core.checkpoints import write_saa
from dynamicid_core.command_line import main, models
from dynamicid_core.saving import write_safetensors

pytest.importorskip("diffusers")
pytest.importorskip("accelerate")
PEOPLE = {"anna": (2, "photos", "train"), "zoe": (1, "photos", "validation")}
ANCHOR, BOTH = {"measures", "clip", "latents", "texts"}, {"measures", "clip", "latents", "texts", "tokens", "features"}


@pytest.fixture(scope="module")
def parts():
    pipe, clip = small.pipeline(), small.clip_vision()
    return SimpleNamespace(narrow_pipeline=lambda: pipe, clip_vision=lambda: clip)


@pytest.fixture
def people(tmp_path, monkeypatch, parts):
    monkeypatch.setattr(models, "stand_ins", lambda: parts)
    small.write_dataset(tmp_path / "people", PEOPLE)
    return tmp_path / "people"


@pytest.fixture
def cache(people, capsys, tmp_path):
    """Run `train cache` on these people; exit code, JSON and what was said to people."""

    def run(*arguments: str):
        capsys.readouterr()
        sizes = ["--set", "anchor.size=64", "--set", "reconfigure.size=64", "--output", str(tmp_path / "run")]
        fixed = ["--dataset", str(people), *sizes, "--stand-in", "--device", "cpu", "--workers", "0", "--json"]
        code = main(["train", "cache", *fixed, *arguments])
        out, err = capsys.readouterr()
        return code, json.loads(out), err

    return run


def kinds(names) -> set[str]:
    return {name.partition("-")[0] for name in names}


def test_a_cache_is_made_once_and_its_size_is_said(cache, people):
    code, dry, said = cache("--dry-run")
    assert code == 0 and dry["made"] == 0 and not (people / "cache").exists()
    assert sum(part["new_bytes"] for part in dry["parts"]) > 1000 and "4 to make" in said
    code, made, said = cache()
    assert code == 0 and made["stage"] == "anchor" and kinds(part["part"] for part in made["parts"]) == ANCHOR
    assert made["made"] == sum(part["missing"] for part in dry["parts"]) and "caching clip: 100%" in said
    assert kinds(path.name for path in (people / "cache").iterdir() if path.is_dir()) == ANCHOR
    code, again, said = cache()
    assert again["made"] == 0 and "complete" in said and "caching" not in said
    assert cache("-q")[2].count("\n") <= 1  # the note on stand-ins


def test_an_saa_checkpoint_brings_the_second_stage(cache, people, tmp_path):
    cache()
    saa = small.saa()
    (tmp_path / "run").mkdir()
    write_saa(tmp_path / "run" / "saa.safetensors", saa.face_encoder, saa.saa, saa.origin)
    _, made, _ = cache()
    assert made["stage"] == "both" and kinds(part["part"] for part in made["parts"]) == BOTH
    missing = {part["part"].partition("-")[0] for part in made["parts"] if part["missing"]}
    assert missing == {"tokens", "features"}  # the portrait prompt is among those of anchoring's validation
    assert {"tokens", "features"} <= kinds(json.loads((people / "cache" / "index.json").read_text()))


def test_stale_parts_are_named_and_removed_on_request(cache, people):
    cache()
    _, found, _ = cache("--set", "base.crop_factor=2")
    assert kinds(found["stale"]) == {"clip", "measures"} and found["removed"] == []
    assert all((people / "cache" / name).is_dir() for name in found["stale"])
    _, found, _ = cache("--set", "base.crop_factor=2", "--remove-stale")
    assert found["removed"] == found["stale"] and not any((people / "cache" / name).exists() for name in found["stale"])
    index = json.loads((people / "cache" / "index.json").read_text())
    assert len(index) == 4 and not set(found["removed"]) & set(index)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--stage", "reconfigure"], "Face tokens need an SAA checkpoint. Run `train anchor` first"),
        (["--saa", "nothing.safetensors"], "There is no file nothing.safetensors"),
        (["--set", "base.recogniser=antelopev2"], "identities of"),
        (["--set", "anchor.sise=3"], "Did you mean size?"),
        (["--dataset", "nowhere"], "dataset build"),
        (["nothing.toml"], "There is no configuration nothing.toml"),
    ],
)
def test_mistakes_are_explained_in_a_sentence(cache, arguments, said):
    code, answer, err = cache(*arguments)
    assert code == 1 and said in answer["error"] and "Traceback" not in err


@pytest.mark.parametrize("stage, file", [("anchor", "saa.safetensors"), ("reconfigure", "imr.safetensors")])
def test_a_place_that_is_taken_is_named_before_anything_is_computed(people, capsys, tmp_path, stage, file):
    taken = tmp_path / "run" / file
    taken.parent.mkdir()

    def said(*words: str) -> str:
        fixed = ["--dataset", str(people), "--output", str(tmp_path / "run"), "--stand-in", "--device", "cpu"]
        assert main(["train", stage, *fixed, *words]) == 1
        assert not (people / "cache").exists()
        return capsys.readouterr().err

    taken.write_text("somebody's")
    assert f"{taken} is there already and is not DynamicID weights, so it stays" in said()
    write_safetensors(tmp_path / "run" / file, {"decoder.x": torch.ones(1)}, {}, kind=None)
    assert "is not DynamicID weights" in said()
    taken.unlink()
    saa = small.saa()
    write_saa(taken, saa.face_encoder, saa.saa, saa.origin)
    assert "is one of the files that are read for this" in said("--set", f'{stage}.initial="{taken.as_posix()}"')
    (tmp_path / "file").write_text("")
    assert "could not be written" in said("--output", str(tmp_path / "file" / "run"))
    assert "could not be written" in said("--cache", str(tmp_path / "file" / "cache"))


def test_a_file_and_flags_say_the_same(people, capsys, tmp_path):
    (tmp_path / "run.toml").write_text(
        'dataset = "people"\ncache = "elsewhere"\n[anchor]\nsize = 64\n[reconfigure]\nsize = 64\n', encoding="utf-8"
    )
    arguments = ["train", "cache", str(tmp_path / "run.toml"), "--stand-in", "--device", "cpu", "--workers", "0", "-q"]
    assert main(arguments) == 0
    assert (tmp_path / "elsewhere" / "index.json").exists() and "made in" in capsys.readouterr().out
    assert main([*arguments, "--cache", str(people / "cache")]) == 0
    for name in (path.name for path in (tmp_path / "elsewhere").iterdir() if path.is_dir()):
        assert (people / "cache" / name).is_dir()


@pytest.mark.parametrize("action", ["cache", "anchor", "reconfigure"])
def test_every_action_has_its_help_and_the_template(action, capsys):
    with pytest.raises(SystemExit):
        main(["train", action, "--help"])
    text = capsys.readouterr().out
    assert f"python -m dynamicid_core train {action}" in text and "--template" in text and "--json" in text
    with pytest.raises(SystemExit):
        main(["train", action, "--template"])
    assert "[anchor.validation]" in capsys.readouterr().out


# --- models of any kind -------------------------------------------------------------------------------------------


def test_folders_and_files_of_every_kind_are_told_apart(tmp_path):
    from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    pipe = small.sdxl_pipeline()
    pipe.register_modules(unet=tiny_training.sdxl_unet(), scheduler=DDIMScheduler())
    pipe.save_pretrained(tmp_path / "xl")
    files = models.ModelFiles(tmp_path, str(tmp_path / "xl"), None, None, None, "")
    loaded = models.load_pipeline(files, None, torch.device("cpu"))
    assert type(loaded) is StableDiffusionXLPipeline and loaded.dtype == torch.float32
    assert models.load_pipeline(files, None, torch.device("cpu"), dtype=torch.float16).dtype == torch.float16
    write_safetensors(tmp_path / "xl.safetensors", {"conditioner.embedders.1.model.x": torch.ones(1)}, {})
    write_safetensors(tmp_path / "sd.safetensors", {"cond_stage_model.x": torch.ones(1)}, {})
    (tmp_path / "sd" / "text_encoder").mkdir(parents=True)
    for name, kind in (("xl", StableDiffusionXLPipeline), ("sd", StableDiffusionPipeline)):
        assert models._pipeline_class(tmp_path / name) is kind
        assert models._pipeline_class(tmp_path / f"{name}.safetensors") is kind
