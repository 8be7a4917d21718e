"""From a dataset and a base to checkpoints that the hosts take: both stages as the commands run them."""

from __future__ import annotations

import pytest
import tiny_training as tiny
import torch
import training_set

from dynamicid_core.checkpoints import load_saa
from dynamicid_core.training.cache import Cache, anchor_makers, fill
from dynamicid_core.training.frozen import Networks
from dynamicid_core.training.settings import Settings
from dynamicid_core.training.stages import train_anchor

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("accelerate")
host = pytest.importorskip("dynamicid_core.hosts.diffusers")
QUICK = {
    "steps": 2, "batch": 2, "workers": 0, "rank": 4, "mixed_precision": "no", "validation.steps": 2,
    "validation.people": 1, "validation.seeds": "[3]",
}  # fmt: skip


def base(prediction: str = "epsilon"):
    """The small pipeline of the cache's tests with a UNet that fits it."""
    pipe = training_set.pipeline()
    scheduler = diffusers.DDIMScheduler(**tiny.SCHEDULER, prediction_type=prediction)
    pipe.register_modules(unet=tiny.unet(), scheduler=scheduler)
    return pipe


def settings_for(folder, stage: str, **changes) -> Settings:
    named = {f"{stage}.{name}": value for name, value in {**QUICK, **changes}.items()}
    if stage == "reconfigure":
        del named["reconfigure.rank"]
    output = {"output": f'"{folder / "run"}"'}
    return training_set.settings(folder, **{k.replace(".", "__"): v for k, v in {**named, **output}.items()})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A dataset, and checkpoints of both stages trained on it."""
    folder = tmp_path_factory.mktemp("world")
    manifest = training_set.write_dataset(folder)
    pipe, clip = base(), training_set.clip_vision()
    networks = Networks(lambda: pipe, lambda: clip)
    settings = settings_for(folder, "anchor")
    makers = anchor_makers(settings, manifest, networks)
    fill(settings.cache_folder, makers, torch.device("cpu"))
    cache = Cache.open(settings.cache_folder, makers)
    summary = train_anchor(settings, manifest, cache, networks, progress=False)
    return folder, manifest, cache, summary


def test_the_anchored_checkpoint_says_what_it_belongs_to(world):
    folder, _, _, summary = world
    assert summary.checkpoint == folder / "run" / "saa.safetensors"
    origin = load_saa(summary.checkpoint).origin
    assert origin.widths == (32, 64, 32, 32) or len(origin.widths) == 4
    assert set(origin.text_widths) == {32}
    assert (origin.recogniser, origin.step) == ("buffalo_l", 2)
    assert origin.encoder == load_saa(summary.checkpoint).encoder_hash
    assert origin.version
