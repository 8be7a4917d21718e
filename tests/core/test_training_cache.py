"""The cache holds what the networks say, to the bit whoever made it, and no more than one part is made for one change."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import training_set as small
from PIL import Image

from dynamicid_core import partial
from dynamicid_core.datasets.manifest import Manifest, Photo
from dynamicid_core.encode import TokenEncoder, encode_photos
from dynamicid_core.faces import DetectedFace
from dynamicid_core.training import making
from dynamicid_core.training.cache import (
    Cache,
    all_makers,
    anchor_makers,
    fill,
    merged,
    reconfigure_makers,
    stale_parts,
)
from dynamicid_core.training.features import clip_maker, measure_maker, pixel_box, token_maker
from dynamicid_core.training.frozen import weights_hash
from dynamicid_core.training.latents import TrainingPicture, latent_maker, training_crop
from dynamicid_core.training.making import Share, Task
from dynamicid_core.training.store import ABOUT, Part, as_keys, digest, parts_in, remove_part
from dynamicid_core.training.texts import source_text, target_text, text_key
from dynamicid_core.types import DynamicIDError

pytest.importorskip("diffusers")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Manifest:
    return small.write_dataset(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def networks():
    return small.networks()


@pytest.fixture(scope="module")
def filled(dataset, networks, tmp_path_factory):
    """Settings and makers of a cache of both stages."""
    settings = small.settings(dataset.folder, cache=tmp_path_factory.mktemp("cache"))
    makers = all_makers(settings, dataset, networks)
    fill(settings.cache_folder, makers, CPU)
    return settings, merged(makers)


def photo_rows(filled, kind: str, photos) -> dict[str, torch.Tensor]:
    settings, makers = filled
    cache = Cache.open(settings.cache_folder, makers)
    rows = cache.photos({"all": photos}, [kind]).rows[kind]
    return cache.parts[cache.keys[kind][0]].read(rows)


def contents(root: Path) -> dict[str, str]:
    """Every file of a cache but the index for people, by the hash of its bytes."""
    files = [path for path in root.rglob("*") if path.is_file() and path.name != "index.json"]
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# --- what rows hold -----------------------------------------------------------------------------------------------


class KnownFace:
    """A detector that finds what the manifest says."""

    def __init__(self, photo: Photo):
        height, width = photo.size
        points = photo.landmarks * np.array((width, height), np.float32)
        self.face = DetectedFace(pixel_box(photo), 1.0, np.zeros((5, 2)), photo.identity, points, photo.angles)

    def detect(self, image):
        return [self.face]


@pytest.mark.parametrize("crop", [0.0, 1.5])
def test_tokens_and_landmarks_are_those_of_encode(dataset, networks, tmp_path, crop):
    makers = [token_maker(dataset, networks, crop), measure_maker(dataset, crop)]
    fill(tmp_path, makers, CPU)
    cache = Cache.open(tmp_path, makers)
    saa = networks.saa
    encoder = TokenEncoder(lambda *inputs: saa.face_encoder(*inputs), saa.face_encoder.sizes, saa.encoder_hash)
    for photo in dataset.taken:
        with torch.no_grad():
            face = encode_photos(
                [dataset.open(photo)], KnownFace(photo), networks.clip(), encoder, crop_factor=crop
            ).face  # fmt: skip
        assert (cache.row("tokens", makers[0].key(photo))["tokens"] - face.tokens[0]).abs().max() < 1e-5
        measures = cache.row("measures", makers[1].key(photo))
        assert (measures["landmarks"] - face.landmarks).abs().max() < 1e-5
        assert torch.equal(measures["identity"], face.identity)
    assert (cache.null("tokens")["tokens"] - face.uncond_tokens[0]).abs().max() < 1e-5


def test_clip_states_are_those_of_the_model(filled, dataset, networks):
    from dynamicid_core.pictures import clip_pixels

    photos = dataset.taken[:3]
    rows = photo_rows(filled, "clip", photos)["clip"]
    pixels = torch.cat([clip_pixels(dataset.open(photo)) for photo in photos])
    wanted = networks.clip().tokens(pixels)
    assert rows.dtype == torch.float16
    assert ((rows.float() - wanted).abs() <= wanted.abs() * 2**-11 + 2**-24).all()  # half a step of float16
    null = Cache.open(filled[0].cache_folder, filled[1]).null("clip")["clip"]
    assert (null.float() - networks.clip().tokens(torch.zeros(1, 3, 224, 224))[0]).abs().max() < 1e-3
    assert null.abs().max() > 0.1


def test_a_base_may_have_a_tiny_autoencoder(dataset):
    """TAESD's kind says latents where others say a distribution."""
    from diffusers import AutoencoderTiny

    vae = small.seeded(
        lambda: AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    )
    pipe = small.pipeline()
    pipe.register_modules(vae=vae)
    maker = latent_maker(dataset, small.networks(pipe), small.SIZE, torch.float32)
    seen = [TrainingPicture(dataset, small.SIZE)(photo) for photo in dataset.taken[:2]]
    inputs = {name: torch.stack([one[name] for one in seen]) for name in seen[0]}
    with torch.no_grad():
        wanted = vae.encode(inputs["picture"].permute(0, 3, 1, 2).float() / 127.5 - 1).latents
        latents = maker.run(inputs)["latents"]
    assert torch.equal(latents, wanted) and latents.shape == (2, 4, 8, 8) and latents.std() > 0


def test_latents_are_the_scaled_mean_of_the_vae(filled, dataset, networks):
    photos = dataset.taken[:3]
    rows = photo_rows(filled, "latents", photos)
    for row, photo in enumerate(photos):
        prepared = TrainingPicture(dataset, small.SIZE)(photo)
        picture = prepared["picture"].permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            wanted = networks.pipe.vae.encode(picture).latent_dist.mean[0] * 0.5
        assert (rows["latents"][row].float() - wanted).abs().max() < 2e-3
        assert rows["latents"][row].shape == (4, 8, 8)
        assert rows["sizes"][row].tolist()[:2] == list(photo.size) and rows["sizes"][row].tolist()[4:] == [64, 64]


def test_texts_are_what_the_pipeline_shows_its_unet(filled, dataset, networks):
    cache = Cache.open(filled[0].cache_folder, filled[1])
    prompts = [dataset.taken[1].caption, "", "a portrait photo of a person"]
    wanted = networks.pipe.encode_prompt(prompts, CPU, 1, False)[0]
    for prompt, states in zip(prompts, wanted, strict=True):
        assert (cache.text(prompt)["states"].float() - states).abs().max() < 2e-3
    assert len(cache.parts["texts"]) == len({p.caption for p in dataset.taken}) + 3  # each once; "", and two prompts


def test_features_are_those_of_the_library(filled, dataset, networks):
    from dynamicid_core.hosts.diffusers.texts import pooled_features

    cache = Cache.open(filled[0].cache_folder, filled[1])
    photo = dataset.taken[1]
    assert target_text(photo) == "the expression is surprised, the face is fully turned to the right"
    assert source_text(photo).startswith("in a surprise expression, in ")
    for text in (source_text(photo), target_text(photo)):
        wanted = pooled_features(networks.pipe.tokenizer, networks.pipe.text_encoder, [text], CPU)[0]
        assert (cache.feature(text) - wanted).abs().max() < 1e-5


def test_sdxl_has_both_encoders_states_and_a_pooled_text(dataset, tmp_path):
    pipe = small.sdxl_pipeline()
    networks = small.networks(pipe=pipe)
    settings = small.settings(dataset.folder, cache=tmp_path)
    makers = anchor_makers(settings, dataset, networks)
    fill(tmp_path, makers, CPU)
    caption = dataset.taken[0].caption
    row = Cache.open(tmp_path, makers).text(caption)
    states, _, pooled, _ = pipe.encode_prompt(
        caption, device=CPU, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    assert row["states"].shape == (77, 2 * small.WIDTH) and row["pooled"].shape == (24,)
    assert (row["states"].float() - states[0]).abs().max() < 2e-3
    assert (row["pooled"].float() - pooled[0]).abs().max() < 2e-3
    chosen = small.settings(dataset.folder, cache=tmp_path, base__text_feature="clip_g")
    feature = next(m for m in reconfigure_makers(chosen, dataset, networks) if m.kind == "features")
    inner = pipe.text_encoder_2(
        pipe.tokenizer_2("x", return_tensors="pt").input_ids, output_hidden_states=True
    ).text_embeds  # fmt: skip
    projected = torch.nn.functional.linear(feature.run(["x"])["feature"], pipe.text_encoder_2.text_projection.weight)
    assert (projected - inner).abs().max() < 1e-5  # unprojected: projecting gives the model's output
    with pytest.raises(DynamicIDError, match="'clip_h', but the base model has clip_l, clip_g"):
        reconfigure_makers(small.settings(dataset.folder, base__text_feature="clip_h"), dataset, networks)


def test_values_that_float16_cannot_hold_are_refused(dataset, tmp_path):
    networks = small.networks()
    for norm in (m for m in networks.clip_vision.modules() if isinstance(m, torch.nn.LayerNorm)):
        norm.weight.data.fill_(1e7)
    with pytest.raises(DynamicIDError, match="set cache_dtype to float32"):
        fill(tmp_path, [clip_maker(dataset, networks, 0.0, torch.float16)], CPU)


# --- crops --------------------------------------------------------------------------------------------------------


def test_the_crop_is_the_middle_unless_the_face_is_elsewhere():
    assert training_crop((100, 200), None, 50) == ((50, 100), (0, 25))
    assert training_crop((100, 200), (0.4, 0.2, 0.6, 0.8), 50) == ((50, 100), (0, 25))  # inside: not moved
    assert training_crop((100, 200), (0.7, 0.2, 0.9, 0.8), 50) == ((50, 100), (0, 40))  # no further than needed
    assert training_crop((100, 200), (0.0, 0.2, 0.1, 0.8), 50) == ((50, 100), (0, 0))
    assert training_crop((200, 100), (0.2, 0.9, 0.6, 1.0), 50) == ((100, 50), (50, 0))
    assert training_crop((100, 400), (0.3, 0.0, 0.9, 1.0), 50) == ((50, 200), (0, 95))  # too large: its middle
    assert training_crop((33, 47), None, 64) == ((64, 91), (0, 14))  # small photos are enlarged


def test_photos_much_longer_than_wide_are_cropped_before_they_are_enlarged(monkeypatch):
    photo = np.random.default_rng(0).integers(0, 256, (20, 300_000, 3), dtype=np.uint8)
    picture = TrainingPicture(SimpleNamespace(open=lambda _: photo), 64)(SimpleNamespace(box=None))["picture"]
    middle = photo[:, 149_900:150_100]
    expected = TrainingPicture(SimpleNamespace(open=lambda _: middle), 64)(SimpleNamespace(box=None))["picture"]
    assert (picture.int() - expected.int()).abs().max() <= 1


def test_a_face_in_a_wide_photo_is_in_its_training_picture(tmp_path):
    pixels = np.zeros((64, 200, 3), np.uint8)
    pixels[20:40, 160:180] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    photo = Photo("1" * 64, "a.png", "anna", box=(0.8, 20 / 64, 0.9, 40 / 64), size=(64, 200))
    made = TrainingPicture(Manifest((photo,), folder=tmp_path), 64)(photo)
    left = int(made["sizes"][3])
    assert 116 <= left <= 136 and (made["picture"] > 128).sum() == 20 * 20 * 3


# --- made once, by whomever ---------------------------------------------------------------------------------------


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(making, "SHARD_ROWS", 4)
    for name in ("CLIP_BATCH", "LATENT_BATCH", "COPY_BATCH"):
        monkeypatch.setattr(f"dynamicid_core.training.features.{name}", 2)
    monkeypatch.setattr("dynamicid_core.training.latents.LATENT_BATCH", 2)


def test_filling_again_makes_nothing(filled):
    settings, makers = filled
    before = contents(settings.cache_folder)
    assert fill(settings.cache_folder, makers, CPU).made == 0
    assert contents(settings.cache_folder) == before


def test_interrupted_and_resumed_equals_one_go(dataset, networks, tmp_path, small_shards):
    settings = small.settings(dataset.folder)
    makers = anchor_makers(settings, dataset, networks)
    fill(tmp_path / "whole", makers, CPU)

    latents = next(maker for maker in makers if maker.kind == "latents")
    calls = []

    def fails_later(inputs):
        calls.append(inputs)
        if len(calls) == 5:  # in the middle of the second shard; the first call asks for the size
            raise KeyboardInterrupt
        return latents.run(inputs)

    broken = [dataclasses.replace(m, run=fails_later) if m is latents else m for m in makers]
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "again", broken, CPU)
    folder = Part(tmp_path, "latents", latents.made_by).folder.name
    whole, part = contents(tmp_path / "whole"), contents(tmp_path / "again")
    made = [name for name in part if name.startswith(folder) and name.endswith(".safetensors")]
    assert len(made) == 1 and part[made[0]] == whole[made[0]]
    (tmp_path / "again" / folder / f"{partial.PREFIX}of-one-that-was-killed{partial.SUFFIX}").write_bytes(b"cut")
    partial._sweep.cache_clear()  # as in another process
    assert fill(tmp_path / "again", makers, CPU).planned[2].missing == 8
    assert contents(tmp_path / "again") == whole


def test_two_shares_equal_one(dataset, networks, tmp_path, small_shards):
    makers = all_makers(small.settings(dataset.folder), dataset, networks)
    fill(tmp_path / "whole", makers, CPU)
    tasks = [[Task(tmp_path / "shared", maker) for maker in merged(makers)] for _ in range(2)]  # both look first
    for rank in (1, 0):
        for task in tasks[rank]:
            planned = making.plan([task], CPU)[0]
            making.make(task, planned, CPU, Share(rank, 2), 0, lambda count: None)
    assert contents(tmp_path / "shared") == contents(tmp_path / "whole")


def test_worker_processes_change_nothing(dataset, networks, tmp_path, small_shards):
    makers = [clip_maker(dataset, networks, 0.0, torch.float16)]
    for workers in (0, 2):
        fill(tmp_path / str(workers), makers, CPU, workers=workers)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


def test_a_photo_that_cannot_be_read_is_named_and_what_was_made_stays(dataset, networks, tmp_path, small_shards):
    folder = tmp_path / "people"
    copy = small.write_dataset(folder)
    last = copy.taken[-1]
    (folder / last.path).write_bytes(b"no picture")
    makers = [clip_maker(copy, networks, 0.0, torch.float16)]
    for workers in (0, 2):
        with pytest.raises(DynamicIDError) as error:
            fill(tmp_path / "cache", makers, CPU, workers=workers)
        assert last.path in str(error.value) and "Traceback" not in str(error.value)
    assert Task(tmp_path / "cache", makers[0]).missing.size < 4 + 1


# --- one change, one part -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, remade",
    [
        ({"anchor__size": 32}, {"latents"}),
        ({"anchor__drop_face": 0.3}, set()),
        ({"cache_dtype": "float32"}, {"clip", "latents", "texts"}),
        ({"base__crop_factor": 2}, {"clip", "measures", "tokens"}),
        ({"clip": 1}, {"clip", "tokens"}),
        ({"vae": 1}, {"latents"}),
        ({"text_encoder": 1}, {"texts", "features"}),
        ({"saa": 1}, {"tokens"}),
    ],
)
def test_one_change_makes_one_part_anew(filled, dataset, change, remade):
    settings, makers = filled
    name = next(iter(change))
    clip, checkpoint = small.clip_vision(int(name == "clip")), small.saa(int(name == "saa"))
    networks = small.networks(clip=clip, checkpoint=checkpoint)
    if name in ("vae", "text_encoder"):
        setattr(networks.pipe, name, getattr(small, name)(1))
    known = {"clip", "vae", "text_encoder", "saa"}
    changed = small.settings(dataset.folder, cache=settings.cache_folder, **({} if name in known else change))
    now = all_makers(changed, dataset, networks)
    planned = [Task(settings.cache_folder, maker) for maker in merged(now)]
    assert {task.maker.kind for task in planned if len(task.missing)} == remade
    expected = remade - ({"latents"} if name == "anchor__size" else set())  # stage 2 still wants the old size
    assert {folder.name.partition("-")[0] for folder in stale_parts(settings.cache_folder, now)} == expected
    assert stale_parts(settings.cache_folder, makers) == []


def test_a_new_photo_costs_its_own_rows(dataset, networks, tmp_path):
    people = dict(small.PEOPLE)
    before = small.write_dataset(tmp_path / "people", people)
    settings = small.settings(tmp_path / "people")
    fill(settings.cache_folder, all_makers(settings, before, networks), CPU)
    people["ben"] = (3, "photos", "train")
    after = small.write_dataset(tmp_path / "people", people)
    planned = fill(settings.cache_folder, all_makers(settings, after, networks), CPU).planned
    missing = {one.kind: one.missing for one in planned}
    assert {kind: missing[kind] for kind in ("measures", "clip", "latents", "tokens")} == {
        "measures": 1, "clip": 1, "latents": 1, "tokens": 1,
    }  # fmt: skip
    assert missing["texts"] == 0  # its caption is another photo's too
    another = dataclasses.replace(after.taken[0], identity=-after.taken[0].identity)
    changed = dataclasses.replace(after, photos=(another, *after.photos[1:]))
    planned = fill(settings.cache_folder, all_makers(settings, changed, networks), CPU).planned
    assert {one.kind: one.missing for one in planned if one.missing} == {"measures": 1, "tokens": 1}


def test_tokens_of_another_recogniser_are_refused(dataset, networks):
    other = dataclasses.replace(dataset, recogniser="antelopev2")
    with pytest.raises(DynamicIDError, match="identities of buffalo_l, but those of the dataset are antelopev2's"):
        token_maker(other, networks, 0.0)


def test_stale_parts_are_removed_and_nothing_else(filled, dataset, networks, tmp_path):
    makers = [clip_maker(dataset, networks, crop, torch.float16) for crop in (0.0, 2.0)]
    fill(tmp_path, makers, CPU)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    stale = stale_parts(tmp_path, makers[:1])
    assert stale == [Part(tmp_path, "clip", makers[1].made_by).folder]
    remove_part(stale[0])
    assert not stale[0].exists() and len(list(parts_in(tmp_path))) == 1 and (tmp_path / "mine" / "notes.txt").exists()


def test_weights_have_one_hash_in_every_dtype():
    vae, other = small.vae(), small.vae(1)
    first = weights_hash(vae)
    assert weights_hash(small.vae().half()) == first != weights_hash(other)


# --- said before and after ----------------------------------------------------------------------------------------


def test_size_is_said_before_and_is_right(dataset, networks, tmp_path):
    said = []
    makers = all_makers(small.settings(dataset.folder), dataset, networks)
    planned = fill(tmp_path, makers, CPU, say=said.append, dry=True).planned
    assert not tmp_path.exists() or not any(tmp_path.iterdir())
    assert len(said) == 6 and "13 to make" in said[1]
    fill(tmp_path, makers, CPU)
    index = json.loads((tmp_path / "index.json").read_text())
    for one in planned:
        entry = index[one.folder.name]
        assert entry["rows"] == one.total == one.missing
        assert one.new_bytes <= entry["bytes"] <= one.new_bytes + 2000  # headers, and part.json
        assert entry["made_by"] == json.loads((one.folder / ABOUT).read_text())["made_by"]


def test_a_full_disk_is_said_before(dataset, networks, tmp_path, monkeypatch):
    monkeypatch.setattr(making.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(DynamicIDError, match="needs .* more, but the disk of"):
        fill(tmp_path, anchor_makers(small.settings(dataset.folder), dataset, networks), CPU)


# --- the store ----------------------------------------------------------------------------------------------------


def test_rows_are_found_by_key_across_shards(tmp_path):
    part = Part(tmp_path, "numbers", {"by": "test"})
    part.describe()
    for start in (0, 10, 20):
        keys = as_keys([digest(n) for n in range(start, start + 10)])
        part.write(keys, {"value": torch.arange(start, start + 10), "twice": 2 * torch.arange(start, start + 10)})
    part = part.opened()
    asked = [25, 3, 99, 14, 3]
    rows = part.find(as_keys([digest(n) for n in asked]))
    assert (rows >= 0).tolist() == [True, True, False, True, True]
    read = part.read(rows[rows >= 0])
    assert read["value"].tolist() == [25, 3, 14, 3] and read["twice"].tolist() == [50, 6, 28, 6]
    assert part.find(as_keys([])).tolist() == []
    assert Part(tmp_path, "numbers", {"by": "others"}).find(as_keys([digest(1)])).tolist() == [-1]


def test_a_damaged_shard_is_named(tmp_path):
    part = Part(tmp_path, "numbers", {})
    part.describe()
    path = part.write(as_keys([digest(1)]), {"value": torch.ones(1)})
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DynamicIDError, match="truncated.*Delete this file of the cache"):
        part.opened().find(as_keys([digest(1)]))


def test_keys_tell_values_apart():
    values = [(), ("a",), ("a", "b"), ("ab",), (b"a",), (None,), ("None",), (1,), ("1",), (1.0,)]
    assert len({digest(*some) for some in values}) == len(values)
    assert text_key("") != text_key(" ")
