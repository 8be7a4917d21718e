"""From a dataset and a base to checkpoints that the hosts take: both stages as the commands run them."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_training as tiny
import torch
import training_set
from PIL import Image

from dynamicid_core import __version__
from dynamicid_core.bases import UNetLayout
from dynamicid_core.checkpoints import load_motion, load_saa, write_saa
from dynamicid_core.datasets.manifest import Manifest
from dynamicid_core.encode import NULL_PIXELS
from dynamicid_core.files import read_safetensors
from dynamicid_core.origins import CLIP_VISION, Origin
from dynamicid_core.pictures import clip_pixels
from dynamicid_core.training.anchor import new_saa
from dynamicid_core.training.cache import Cache, anchor_makers, fill, reconfigure_makers
from dynamicid_core.training.frozen import Networks
from dynamicid_core.training.settings import Settings
from dynamicid_core.training.stages import train_anchor, train_reconfigure
from dynamicid_core.types import Cast, DynamicIDError, Face, Person

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("accelerate")
host = pytest.importorskip("dynamicid_core.hosts.diffusers")
QUICK = {
    "steps": 2, "batch": 2, "workers": 0, "rank": 4, "mixed_precision": "no", "validation.steps": 2,
    "validation.people": 1, "validation.seeds": "[3]",
}  # fmt: skip


def base():
    """The small pipeline of the cache's tests with a UNet that fits it."""
    pipe = training_set.pipeline()
    settled = {"clip_sample": False, "steps_offset": 1}  # as a pipeline would set them with a warning
    scheduler = diffusers.DDIMScheduler(**tiny.SCHEDULER, **settled)
    pipe.register_modules(unet=tiny.unet(), scheduler=scheduler)
    return pipe


def settings_for(folder, stage: str, **changes) -> Settings:
    named = {f"{stage}.{name}": value for name, value in {**QUICK, **changes}.items()}
    if stage == "reconfigure":
        del named["reconfigure.rank"]
    output = {"output": f'"{folder / "run"}"'}
    return training_set.settings(folder, **{k.replace(".", "__"): v for k, v in {**named, **output}.items()})


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> SimpleNamespace:
    """A dataset, and checkpoints of both stages trained on it."""
    folder = tmp_path_factory.mktemp("world")
    manifest, pipe, clip = training_set.write_dataset(folder), base(), training_set.clip_vision()
    networks = Networks(lambda: pipe, lambda: clip)
    anchored = run("anchor", folder, manifest, networks)
    networks = Networks(base, lambda: clip, lambda: load_saa(anchored.checkpoint))
    edited = run("reconfigure", folder, manifest, networks)
    return SimpleNamespace(folder=folder, manifest=manifest, clip=clip, anchored=anchored, edited=edited)


def run(stage: str, folder, manifest, networks, **changes):
    """The stage with its cache, as the command runs it."""
    settings = settings_for(folder, stage, **changes)
    make, train = {"anchor": (anchor_makers, train_anchor), "reconfigure": (reconfigure_makers, train_reconfigure)}[
        stage
    ]
    makers = make(settings, manifest, networks)
    fill(settings.cache_folder, makers, torch.device("cpu"))
    return train(settings, manifest, Cache.open(settings.cache_folder, makers), networks, progress=False)


def test_checkpoints_say_what_they_belong_to(world):
    saa, motion = load_saa(world.anchored.checkpoint), load_motion(world.edited.checkpoint)
    assert world.anchored.checkpoint == world.folder / "run/saa.safetensors"
    assert world.edited.checkpoint == world.folder / "run/imr.safetensors"
    for origin in (saa.origin, motion.origin):
        assert origin.widths == UNetLayout.of(tiny.unet()).widths
        assert set(origin.text_widths) == {32}
        assert (origin.recogniser, origin.clip_vision, origin.step) == ("buffalo_l", CLIP_VISION, 2)
        assert origin.encoder == saa.encoder_hash
        assert origin.version == __version__


def test_validation_draws_what_the_checkpoint_draws_in_diffusers(world):
    """The second tile of the sheet: its person, prompt and seed, through the library, from the file."""
    photo = world.manifest.people("validation")["zoe"][0]
    sheet = Image.open(world.folder / "run/anchor/validation/step-000002.png")
    assert sheet.size == (3 * 64, 64)  # the photo, and two prompts with one seed
    pipe = base()
    did = host.DynamicID.from_files(pipe, world.anchored.checkpoint)
    pixels = torch.cat([clip_pixels(world.manifest.open(photo)), NULL_PIXELS])
    with torch.no_grad():
        clip = world.clip(pixel_values=pixels, output_hidden_states=True).hidden_states[-2].half().float()  # as cached
    identity = torch.stack([torch.from_numpy(photo.identity), torch.zeros(512)])
    tokens = did.saa.face_encoder(identity, clip)
    face = Face(tokens[:1], tokens[1:], did.saa.encoder_hash)
    with did.apply(Cast((Person(face),))):
        drawn = pipe(
            "a portrait photo of a person", width=64, height=64, num_inference_steps=2, guidance_scale=5.0,
            generator=torch.Generator().manual_seed(3),
        ).images[0]  # fmt: skip
    tile, mine = (np.asarray(picture, np.int16) for picture in (sheet.crop((64, 0, 128, 64)), drawn))
    # The caption's plate covers the top; prompts come from the cache in half precision.
    assert np.abs(tile[24:] - mine[24:]).max() <= 2


def test_edits_are_drawn_beside_the_face_as_it_is(world):
    sheet = Image.open(world.folder / "run/reconfigure/validation/step-000002.png")
    assert sheet.size == (4 * 64, 64)  # the photo, as it is, two expressions
    tiles = [np.asarray(sheet.crop((64 * i, 24, 64 * i + 64, 64))) for i in (1, 2, 3)]
    assert not np.array_equal(tiles[0], tiles[1])


def test_training_leaves_validation_no_traces(world):
    """The same run without pictures ends in the same weights: processors and LoRA are what they were after drawing."""
    networks = Networks(base, lambda: world.clip)
    output = world.folder / "quiet"
    settings = settings_for(world.folder, "anchor", **{"validation.every": 0})
    settings = dataclasses.replace(settings, output=output)
    makers = anchor_makers(settings, world.manifest, networks)
    cache = Cache.open(settings.cache_folder, makers)
    summary = train_anchor(settings, world.manifest, cache, networks, progress=False)
    drawing = dataclasses.replace(
        settings_for(world.folder, "anchor", **{"validation.every": 1}), output=world.folder / "drawing"
    )
    drawn = train_anchor(drawing, world.manifest, cache, Networks(base, lambda: world.clip), progress=False)
    assert len(list((drawing.output / "anchor/validation").iterdir())) == 2
    quiet, busy = (read_safetensors(found.checkpoint)[0] for found in (summary, drawn))
    assert all(torch.equal(tensor, busy[name]) for name, tensor in quiet.items())


def test_weights_that_do_not_fit_the_base_are_refused_before_training(world):
    networks = Networks(base, lambda: world.clip)
    other = new_saa(tiny.sdxl_unet(), 2)
    path = write_saa(
        world.folder / "other.safetensors", load_saa(world.anchored.checkpoint).face_encoder, other, Origin()
    )
    with pytest.raises(DynamicIDError, match="UNet2DConditionModel with .* cross attentions.*made for"):
        run("anchor", world.folder, world.manifest, networks, initial=f'"{path}"')


def test_a_set_without_people_to_train_with_is_refused(world, tmp_path):
    lonely = Manifest(tuple(p for p in world.manifest.photos if p.split == "validation"), folder=world.folder)
    with pytest.raises(DynamicIDError, match="no photos in its split train"):
        run("anchor", tmp_path, lonely, Networks(base, lambda: world.clip))


def test_reconfiguration_without_losses_or_a_checkpoint_is_refused(world):
    networks = Networks(base, lambda: world.clip)
    settings = settings_for(world.folder, "reconfigure")
    with pytest.raises(DynamicIDError, match="Run `train anchor` first"):
        train_reconfigure(settings, world.manifest, None, networks)
    networks = Networks(base, lambda: world.clip, lambda: load_saa(world.anchored.checkpoint))
    nothing = settings_for(world.folder, "reconfigure", dfm_weight=0, ldc_weight=0)
    with pytest.raises(DynamicIDError, match="both 0, so there is nothing to learn"):
        train_reconfigure(nothing, world.manifest, None, networks)
