"""The configuration of training: one file, read strictly, and what the command line changes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynamicid_core.training.settings import Settings
from dynamicid_core.training.settings_file import as_tree, load_settings, template
from dynamicid_core.types import DynamicIDError


def written(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_published_values_are_the_defaults():
    settings = load_settings()
    for stage in (settings.anchor, settings.reconfigure):
        assert (stage.learning_rate, stage.weight_decay, stage.size) == (1e-4, 1e-2, 512)
    assert (settings.anchor.drop_face, settings.anchor.drop_text, settings.anchor.drop_both) == (0.05, 0.05, 0.05)
    assert settings.anchor.rank == 128
    assert (settings.reconfigure.kdef_share, settings.reconfigure.depth) == (0.05, 1)
    assert (settings.reconfigure.dfm_weight, settings.reconfigure.ldc_weight) == (1, 1)


def test_the_template_is_the_defaults_and_says_what_each_does(tmp_path):
    text = template()
    there = load_settings(written(tmp_path, text))
    assert as_tree(there) == as_tree(Settings()) | {"output": str(tmp_path / "dynamicid-training")}
    assert all("#" in line for line in text.splitlines() if line)
    assert max(map(len, text.splitlines())) <= 160


def test_a_file_sets_what_it_names_and_paths_are_relative_to_it(tmp_path):
    path = written(
        tmp_path,
        'dataset = "people"\nseed = 3\n[base]\nmodel = "models/sd15"\n[anchor]\nlearning_rate = 1\n'
        '[anchor.validation]\nprompts = ["a", "b"]\nseeds = [7]\n',
    )
    settings = load_settings(path)
    assert settings.dataset == tmp_path / "people" and settings.base.model == tmp_path / "models" / "sd15"
    assert settings.cache_folder == tmp_path / "people" / "cache"
    assert settings.seed == 3 and settings.anchor.learning_rate == 1.0 and type(settings.anchor.learning_rate) is float
    assert settings.anchor.validation.prompts == ("a", "b") and settings.anchor.validation.seeds == (7,)
    assert settings.reconfigure.learning_rate == 1e-4


def test_changes_go_before_the_file_and_their_paths_are_the_users(tmp_path):
    path = written(tmp_path, 'dataset = "people"\n[anchor]\nbatch = 2\n')
    changes = ["anchor.batch=4", "dataset=others", "anchor.tracker=tensorboard", "anchor.validation.prompts=['x y']"]
    settings = load_settings(path, [*changes, "anchor.batch=5"])
    assert settings.anchor.batch == 5 and settings.anchor.tracker == "tensorboard"
    assert settings.dataset == Path("others") and settings.anchor.validation.prompts == ("x y",)


@pytest.mark.parametrize(
    "change, said",
    [
        (
            "anchor.learnin_rate=1",
            "anchor.learnin_rate does not exist in section [anchor]. Did you mean learning_rate?",
        ),
        ("learning_rate=1", "Did you mean anchor.learning_rate?"),
        ("nothing.like.this=1", "nothing does not exist in the configuration. There are anchor, base,"),
        ("anchor.batch=2.5", "anchor.batch is 2.5; it must be a whole number"),
        ("anchor.batch=true", "anchor.batch is True; it must be a whole number"),
        ("anchor.gradient_checkpointing=1", "must be true or false"),
        ("anchor.batch=0", "anchor.batch is 0; it must be 1 or more"),
        ("anchor.drop_face=1.5", "anchor.drop_face is 1.5; it must be from 0 to 1"),
        ("anchor.learning_rate=nan", "anchor.learning_rate is nan"),
        ("anchor.size=100", "anchor.size is 100; it must be a multiple of 8"),
        ("anchor.drop_face=0.95", "add up to 1.05"),
        ("anchor.tracker=wand", "choose one of none, tensorboard, wandb"),
        ("anchor=3", "anchor is a section"),
        ("seed.x=3", "seed is a value, not a section"),
        ("anchor.validation.seeds=[1, -1]", "anchor.validation.seeds is -1"),
        ("anchor.validation.prompts=hello", "must be a list"),
        ("output=", "output is empty"),
        ("anchor.batch", "sets nothing; write it as section.name=value"),
    ],
)
def test_what_is_not_possible_is_refused_by_name(change, said):
    changes = ["seed=1", change] if change == "seed.x=3" else [change]
    with pytest.raises(DynamicIDError) as error:
        load_settings(None, changes)
    assert said in str(error.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DynamicIDError, match="There is no configuration"):
        load_settings(tmp_path / "none.toml")
    with pytest.raises(DynamicIDError, match="cannot be read"):
        load_settings(written(tmp_path, "dataset = ["))


def test_a_dataset_must_be_named():
    with pytest.raises(DynamicIDError, match="No dataset is named"):
        load_settings().need_dataset()
