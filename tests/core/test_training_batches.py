"""Batches are functions of seed and step: what is in them, how often, and that nobody who makes them matters."""

from __future__ import annotations

import dataclasses
import pickle
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
import training_set as small

from dynamicid_core.training.batches import row_generator, shuffled
from dynamicid_core.training.cache import Cache, all_makers, anchor_makers, fill, merged
from dynamicid_core.training.data import AnchorData, ReconfigureData, loader
from dynamicid_core.training.latents import training_crop
from dynamicid_core.types import DynamicIDError

pytest.importorskip("diffusers")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """Manifest, settings and opened cache."""
    manifest = small.write_dataset(tmp_path_factory.mktemp("people"))
    settings = small.settings(manifest.folder)
    makers = merged(all_makers(settings, manifest, small.networks()))
    fill(settings.cache_folder, makers, CPU)
    return manifest, settings, Cache.open(settings.cache_folder, makers)


def anchor(cached, seed: int = 0, **options) -> AnchorData:
    manifest, settings, cache = cached
    return AnchorData.of(cache, manifest, dataclasses.replace(settings.anchor, **{"batch": 4, **options}), seed)


def reconfigure(cached, seed: int = 0, **options) -> ReconfigureData:
    manifest, settings, cache = cached
    return ReconfigureData.of(
        cache, manifest, dataclasses.replace(settings.reconfigure, **{"batch": 4, **options}), seed
    )


def same(a, b) -> bool:
    values = [(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a)]
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in values)


def joined(*batches):
    """One batch of several; what all rows share (the portrait prompt) is taken once."""
    first = batches[0]
    shared = ("prompt",) if hasattr(first, "prompt") else ()
    values = {}
    for field in dataclasses.fields(first):
        parts = [getattr(batch, field.name) for batch in batches]
        if isinstance(parts[0], torch.Tensor):
            values[field.name] = parts[0] if field.name in shared else torch.cat(parts)
        else:
            values[field.name] = parts[0] and sum(parts, ())
    return dataclasses.replace(first, **values)


# --- functions of the step ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [anchor, reconfigure])
def test_a_batch_is_a_function_of_seed_and_step(cached, make):
    data, again = make(cached), pickle.loads(pickle.dumps(make(cached)))
    later = [data.batch(step) for step in (7, 2, 7)]
    assert same(later[0], later[2]) and same(later[1], again.batch(2))
    assert not same(later[0], later[1]) and not same(later[0], make(cached, seed=1).batch(7))


@pytest.mark.parametrize("make", [anchor, reconfigure])
def test_two_processes_with_half_the_batch_equal_one(cached, make):
    whole, half = make(cached, batch=6), make(cached, batch=3)
    for step in (0, 1, 5):
        assert same(whole.batch(step), joined(half.batch(step, 0, 2), half.batch(step, 1, 2)))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("make", [anchor, reconfigure])
def test_reading_ahead_gives_the_same_batches_in_order(cached, make, workers):
    data = make(cached, batch=2)
    read = list(islice(loader(data, 3, rank=1, world=2, workers=workers), 6))
    assert len(read) == 6 and all(same(batch, data.batch(3 + n, 1, 2)) for n, batch in enumerate(read))
    assert len(list(loader(data, 3, 5, workers=0))) == 2


def test_row_generators_differ_by_everything_they_are_asked_for():
    asked = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0, "data"), (0, 0, 0, "drop"), (0, 1, 10), (0, 11, 0)]
    drawn = [tuple(torch.randn(4, generator=row_generator(*some)).tolist()) for some in asked]
    assert len(set(drawn)) == len(asked)
    assert drawn[0] == tuple(torch.randn(4, generator=row_generator(0, 0, 0)).tolist())
    mean = np.mean([float(torch.rand(1, generator=row_generator(0, 0, row))) for row in range(2000)])
    assert abs(mean - 0.5) < 0.02


@pytest.mark.parametrize("count", [1, 2, 3, 10, 64, 1000])
def test_an_epoch_has_every_photo_once_in_an_order_of_its_own(count):
    orders = [[shuffled(place, count, 0, epoch) for place in range(count)] for epoch in (0, 1)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    if count >= 10:
        assert orders[0] != orders[1] != list(range(count)) != orders[0]
        assert orders[0] != [shuffled(place, count, 1, 0) for place in range(count)]


def test_a_place_among_millions_is_found_without_a_list():
    places = [shuffled(place, 50_000_000, 0, 0) for place in range(200)]
    assert len(set(places)) == 200 and max(places) < 50_000_000 and max(places) > 40_000_000


# --- anchoring ----------------------------------------------------------------------------------------------------


def test_anchor_rows_hold_what_the_cache_says(cached):
    manifest, _, cache = cached
    data = anchor(cached, drop_face=0.0, drop_text=0.0, drop_both=0.0)
    photos = {photo.id: photo for photo in manifest.taken}
    batch = data.batch(0)
    assert len(batch) == 4 and batch.pooled is None and batch.sizes is None
    key = {name: cache.keys[name][1] for name in ("clip", "measures", "latents")}
    for row, (reference, target) in enumerate((photos[r], photos[t]) for r, t in batch.photos):
        assert reference.person == target.person
        assert torch.equal(batch.clip[row], cache.row("clip", key["clip"](reference))["clip"])
        assert torch.equal(batch.identity[row], torch.from_numpy(reference.identity))
        assert torch.equal(batch.latents[row], cache.row("latents", key["latents"](target))["latents"])
        assert torch.equal(batch.text[row], cache.text(target.caption)["states"])


def test_faces_count_more_where_asked_for(cached):
    manifest, settings, _ = cached
    assert anchor(cached).batch(0).places is None
    batch = anchor(cached, face_weight=5.0).batch(0)
    photos = {photo.id: photo for photo in manifest.taken}
    height, width = batch.latents.shape[-2:]
    assert batch.places.shape == (4, 1, height, width)
    torch.testing.assert_close(batch.places.mean((1, 2, 3)), torch.ones(4))
    for places, (_, target) in zip(batch.places, batch.photos, strict=True):
        photo = photos[target]
        (tall, wide), (top, left) = training_crop(photo.size, photo.box, settings.anchor.size)
        x0, y0, x1, y1 = (v * side for v, side in zip(photo.box, (wide, tall) * 2, strict=True))
        for y in range(height):
            for x in range(width):
                inside = y0 <= 8 * y + 4 + top <= y1 and x0 <= 8 * x + 4 + left <= x1
                ratio = float(places[0, y, x] / places.min())
                assert ratio == pytest.approx(5 if inside and places.min() < places.max() else 1)


def test_references_are_other_photos_of_the_person_where_there_are_any(cached):
    manifest, _, _ = cached
    data = anchor(cached)
    person = {photo.id: photo.person for photo in manifest.taken}
    seen = Counter(pair for step in range(60) for pair in data.batch(step).photos)
    for reference, target in seen:
        assert person[reference] == person[target] and person[target] != "zoe"  # who is for validation
        assert (reference == target) == (person[target] == "cleo")  # who has one photo
    targets = Counter()
    for (_, target), count in seen.items():
        targets[target] += count
    train = [photo.id for photo in manifest.taken if photo.split == "train"]
    assert set(targets) == set(train) and max(targets.values()) - min(targets.values()) <= 1  # every epoch, each once
    anna = [p.id for p in manifest.taken if p.person == "anna"]
    assert all((r, anna[0]) in seen for r in anna[1:])  # every other photo of hers has been the reference


def test_drop_rates_are_those_asked_for_and_what_is_dropped_is_null(cached):
    _, _, cache = cached
    rates = {"drop_face": 0.1, "drop_text": 0.2, "drop_both": 0.3}
    data = anchor(cached, batch=50, **rates)
    null, empty = cache.null("clip")["clip"], cache.text("")["states"]
    found = Counter()
    for step in range(40):
        batch = data.batch(step)
        for row in range(50):
            no_face, no_text = torch.equal(batch.clip[row], null), torch.equal(batch.text[row], empty)
            assert no_face == (not batch.identity[row].any())
            found[no_face, no_text] += 1
    shares = {kind: count / 2000 for kind, count in found.items()}
    for kind, rate in (((True, False), 0.1), ((False, True), 0.2), ((True, True), 0.3), ((False, False), 0.4)):
        assert abs(shares[kind] - rate) < 4 * (rate * (1 - rate) / 2000) ** 0.5
    assert null.abs().max() > 0.1 and empty.abs().max() > 0.1  # null inputs are no zeros
    everything = anchor(cached, drop_face=0.0, drop_text=0.0, drop_both=1.0).batch(0)
    assert all(torch.equal(row, null) for row in everything.clip) and not everything.identity.any()


def test_dropping_does_not_change_which_photos_are_seen(cached):
    never, always = anchor(cached, drop_face=0.0), anchor(cached, drop_face=0.9)
    assert never.batch(3).photos == always.batch(3).photos


def test_sdxl_rows_have_pooled_texts_and_sizes(cached, tmp_path):
    manifest, _, _ = cached
    settings = small.settings(manifest.folder, cache=tmp_path, anchor__batch=4)
    makers = anchor_makers(settings, manifest, small.networks(pipe=small.sdxl_pipeline()))
    fill(tmp_path, makers, CPU)
    cache = Cache.open(tmp_path, makers)
    data = AnchorData.of(cache, manifest, dataclasses.replace(settings.anchor, drop_both=0.4), 0)
    photos = {photo.id: photo for photo in manifest.taken}
    dropped = 0
    for step in range(5):
        batch = data.batch(step)
        assert batch.pooled.shape == (4, 24) and batch.sizes.shape == (4, 6) and batch.text.shape == (4, 77, 64)
        for row, (_, target) in enumerate(batch.photos):
            height, width, top, left, *wanted = batch.sizes[row].tolist()
            assert (height, width) == photos[target].size and wanted == [small.SIZE, small.SIZE]
            assert min(top, left) == 0  # one axis is filled
            pooled = {text: cache.text(text)["pooled"] for text in ("", photos[target].caption)}
            empty = torch.equal(batch.text[row], cache.text("")["states"])
            dropped += empty
            assert torch.equal(batch.pooled[row], pooled["" if empty else photos[target].caption])
    assert 0 < dropped < 20


def test_a_set_without_training_photos_is_refused(cached):
    manifest, settings, cache = cached
    only = tuple(dataclasses.replace(photo, split="validation") for photo in manifest.taken)
    with pytest.raises(DynamicIDError, match="no photos in its split train"):
        AnchorData.of(cache, dataclasses.replace(manifest, photos=only), settings.anchor)


def test_photos_that_came_after_the_cache_are_noticed(cached):
    manifest, settings, cache = cached
    another = dataclasses.replace(manifest.taken[0], id="ab" * 32)
    with pytest.raises(DynamicIDError, match="lacks rows of this dataset; run `train cache` again"):
        AnchorData.of(cache, dataclasses.replace(manifest, photos=(*manifest.photos, another)), settings.anchor)


# --- reconfiguration ----------------------------------------------------------------------------------------------


def test_reconfigure_rows_hold_what_the_cache_says(cached):
    from dynamicid_core.training.texts import source_text, target_text

    manifest, settings, cache = cached
    batch = reconfigure(cached, targets=2, kdef_share=0.0).batch(0)
    photos = {photo.id: photo for photo in manifest.taken}
    key = {name: cache.keys[name][1] for name in ("tokens", "measures", "latents")}
    for row, (source, *targets) in enumerate([photos[name] for name in names] for names in batch.photos):
        assert len(targets) == 2 and {t.person for t in targets} == {source.person}
        assert torch.equal(batch.source_tokens[row], cache.row("tokens", key["tokens"](source))["tokens"])
        assert np.allclose(batch.source_landmarks[row], source.landmarks, atol=1e-6)
        assert torch.equal(batch.source_text[row], cache.feature(source_text(source)))
        for k, target in enumerate(targets):
            assert torch.equal(batch.target_tokens[row, k], cache.row("tokens", key["tokens"](target))["tokens"])
            assert np.allclose(batch.target_landmarks[row, k], target.landmarks, atol=1e-6)
            assert torch.equal(batch.target_text[row, k], cache.feature(target_text(target)))
            assert torch.equal(batch.latents[row, k], cache.row("latents", key["latents"](target))["latents"])
    assert torch.equal(batch.prompt, cache.text(settings.reconfigure.prompt)["states"])


def test_some_targets_keep_the_landmarks_of_their_source_as_edits_by_words_do(cached):
    photos = {photo.id: photo for photo in cached[0].taken}
    kept, rows = 0, 0
    for step in range(25):
        batch = reconfigure(cached, targets=2, kdef_share=0.0, keep_landmarks=0.4).batch(step)
        for row, (source, *targets) in enumerate([photos[name] for name in names] for names in batch.photos):
            for k, target in enumerate(targets):
                own, theirs = (
                    np.allclose(batch.target_landmarks[row, k], p.landmarks, atol=1e-6) for p in (source, target)
                )
                assert own or theirs
                kept, rows = kept + own, rows + 1
    assert 0.3 < kept / rows < 0.5
    always = reconfigure(cached, targets=2, keep_landmarks=1.0)
    parts = [always.batch(3, rank, 2) for rank in (0, 1)]
    whole = reconfigure(cached, batch=8, targets=2, keep_landmarks=1.0).batch(3)
    assert same(whole, joined(*parts))


def test_targets_differ_from_the_source_and_each_other_while_they_can(cached):
    manifest, _, _ = cached
    person = {photo.id: photo.person for photo in manifest.taken}
    data, sources = reconfigure(cached, targets=3, kdef_share=0.0), set()
    for step in range(30):
        for source, *targets in data.batch(step).photos:
            sources.add(source)
            assert source not in targets and len(targets) == 3
            assert len(set(targets)) == {"anna": 3, "ben": 1}[person[source]]  # ben has one other photo
    assert len(sources) == 6  # cleo has one photo, zoe is for validation


def test_the_share_of_kdef_is_that_of_batches(cached):
    manifest, _, _ = cached
    kdef = {photo.id for photo in manifest.taken if photo.collection == "kdef"}
    data, steps = reconfigure(cached, batch=2, kdef_share=0.25), 400
    count = 0
    for step in range(steps):
        inside = [name in kdef for names in data.batch(step).photos for name in names]
        assert all(inside) or not any(inside)
        count += inside[0]
        other = data.batch(step, 1, 2).photos[0][0] in kdef
        assert other == inside[0]  # all processes take the same collection
    assert abs(count / steps - 0.25) < 4 * (0.25 * 0.75 / steps) ** 0.5


def test_without_kdef_or_with_it_alone_all_batches_are_of_what_there_is(cached):
    manifest, settings, cache = cached
    for keeps, pools in (("photos", 1), ("kdef", 1)):
        photos = tuple(photo for photo in manifest.taken if photo.collection == keeps)
        data = ReconfigureData.of(cache, dataclasses.replace(manifest, photos=photos), settings.reconfigure)
        assert len(data.pools) == pools
        known = {photo.id for photo in photos}
        assert all(name in known for step in range(5) for names in data.batch(step).photos for name in names)


def test_photos_without_landmarks_take_no_part(cached):
    manifest, settings, cache = cached
    blind = [dataclasses.replace(p, landmarks=None) if p.person != "ben" else p for p in manifest.taken]
    data = ReconfigureData.of(cache, dataclasses.replace(manifest, photos=tuple(blind)), settings.reconfigure)
    assert len(data.pools) == 1 and data.pools[0].people.tolist() == ["ben"]
    nobody = tuple(dataclasses.replace(photo, landmarks=None) for photo in manifest.taken)
    with pytest.raises(DynamicIDError, match="Nobody in the dataset's split train has two photos"):
        ReconfigureData.of(cache, dataclasses.replace(manifest, photos=nobody), settings.reconfigure)


def test_batches_go_to_a_dtype_whole(cached):
    batch = anchor(cached).batch(0)
    moved = batch.to("cpu", torch.float64)
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 4 and {tensor.dtype for tensor in tensors} == {torch.float64}
    assert moved.photos == batch.photos
