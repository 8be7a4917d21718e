"""A training set made from photos: list, look, judge, put, write. Every step is kept, so that any later run continues.

Equal photos and options give equal bytes, however many processes looked at them, and a second run changes nothing.
"""

from __future__ import annotations

import io
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..pictures import to_rgb
from ..types import DynamicIDError
from . import storage
from .analysis import Analyser, Analysis, photo_id
from .checks import photo_quality
from .curation import curate
from .functions import load_function
from .manifest import Manifest, Photo, need_pyarrow
from .selection import Candidate, remaining, validation_people
from .settings import Settings
from .sources import Source, list_sources
from .store import Store
from .workers import look_at_all

READERS = 8  # threads that read and hash
COMMIT_EVERY = 2.0  # seconds
EXAMPLES_EACH = 12  # photos left out that the report can show for each reason
UNREADABLE = Analysis(problem="cannot be read")


@dataclass(frozen=True)
class Means:
    """How a build runs; what comes out does not depend on it."""

    jobs: int = 1  # processes that look at photos
    ray: str | None = None  # a Ray cluster's address instead; "": one that is started for the build
    progress: bool = True


def build(folder: Path, settings: Settings, means: Means = Means(), filled: Sequence[Source] = ()) -> Manifest:
    """Make, continue or renew the set in ``folder``. ``filled``: pictures made to fill cells (:mod:`fill`).

    Raises DynamicIDError for sources that hold no photos, models that are not there, and if no photo can be taken; the
    manifest with all reasons is there even then.
    """
    need_pyarrow()
    storage.check_folder(folder, settings.sources)
    listing = list_sources(settings.sources)
    key, analyser = settings.analysis_key(), settings.analyser()
    with Store(folder) as store:
        sources = (*listing.sources, *filled)
        look(store, key, analyser, sources, means)
        ids = store.ids(sources)
        seen = {found: Analysis.from_bytes(value) for found, value in store.analyses(key)}
        photos = [(s, i or "", seen.get(i or "", UNREADABLE)) for s, i in zip(sources, ids, strict=True)]
        candidates, merges = curate(photos, settings.checks)
        captions = _captions(store, settings, candidates, means)
    manifest = _manifest(folder, settings, candidates, captions)
    _put_files(folder, settings, candidates, manifest, means)
    settings.write(folder, {"merges": [asdict(merge) for merge in merges], "ignored": listing.ignored})
    manifest.write(folder)
    return manifest


# --- looking ------------------------------------------------------------------------------------------------------


def look(store: Store, key: str, analyser: Analyser, sources: Sequence[Source], means: Means) -> None:
    """See to it that the store has the hash of every source, and under ``key`` an analysis of every hash."""
    unread = [source for source, found in zip(sources, store.ids(sources), strict=True) if found is None]
    with ThreadPoolExecutor(READERS) as pool, _bar("reading", len(sources), len(unread), means) as bar:
        for start in range(0, len(unread), 256):
            part = unread[start : start + 256]
            found = zip(part, pool.map(_hash, part), strict=True)
            store.put_ids((source, photo) for source, photo in found if photo)
            bar.update(len(part))
    seen = store.seen(key)
    todo: dict[str, Source] = {}
    for source, photo in zip(sources, store.ids(sources), strict=True):
        if photo is not None and photo not in seen:
            todo.setdefault(photo, source)
    if todo:
        _look_at(store, key, analyser, list(todo.values()), len(sources), means)


def _hash(source: Source) -> str:
    try:
        return photo_id(source.read())
    except OSError:
        return ""


def _look_at(store: Store, key: str, analyser: Analyser, todo: Sequence[Source], of: int, means: Means) -> None:
    fresh: list[tuple[str, bytes]] = []
    last = time.monotonic()
    try:
        with (
            closing(look_at_all(analyser, todo, means.jobs, means.ray)) as results,
            _bar("looking", of, len(todo), means) as bar,
        ):
            for _, photo, value in results:
                if photo:
                    fresh.append((photo, value))
                bar.update()
                if time.monotonic() - last > COMMIT_EVERY:
                    store.put_analyses(key, fresh)
                    fresh, last = [], time.monotonic()
    finally:
        store.put_analyses(key, fresh)


def _bar(what: str, total: int, todo: int, means: Means) -> Any:
    from tqdm import tqdm

    hidden = not means.progress or not todo
    return tqdm(desc=what, total=total, initial=total - todo, unit=" photos", file=sys.stderr, disable=hidden)


# --- writing ------------------------------------------------------------------------------------------------------


def _captions(store: Store, settings: Settings, candidates: Iterable[Candidate], means: Means) -> dict[str, str]:
    """Hash -> caption of the photos taken: the source's own, else the captioner's, else the template filled in."""
    taken = remaining(candidates)
    captions = {c.id: c.source.labels.caption or settings.caption_for(c.person, c.cell) for c in taken}
    if not settings.captioner:
        return captions
    captioner = load_function(settings.captioner, "The captioner")
    known = store.captions(settings.captioner)
    wanted = [c for c in taken if not c.source.labels.caption]
    todo = [c for c in wanted if c.id not in known]
    with _bar("captions", len(wanted), len(todo), means) as bar:
        for c in todo:
            labels = {"person": c.person, "expression": c.expression, "pose": c.pose, "prompt": c.cell.prompt}
            try:
                known[c.id] = " ".join(str(captioner(to_rgb(_image(c.source)), labels)).split())
            except Exception as error:  # whatever a user's function raises
                raise DynamicIDError(
                    f"The captioner {settings.captioner} failed on {c.source.name} ({type(error).__name__}: {error})."
                ) from error
            store.put_caption(settings.captioner, c.id, known[c.id])
            bar.update()
    return captions | {c.id: known[c.id] for c in wanted}


def _image(source: Source) -> Image.Image:
    return Image.open(io.BytesIO(source.read()))


def _manifest(folder: Path, settings: Settings, candidates: Sequence[Candidate], captions: dict[str, str]) -> Manifest:
    people = {candidate.person for candidate in remaining(candidates)}
    names, validation = storage.safe_names(people), validation_people(people, settings.validation)

    def row(c: Candidate) -> Photo:
        face = c.seen.faces > 0
        taken = not c.reason
        return Photo(
            id=c.id,
            path=storage.photo_path(names, c.person, c.id, c.seen.suffix) if taken else "",
            person=c.person,
            expression=c.expression,
            pose=c.pose,
            angles=c.seen.angles,
            landmarks=c.seen.landmarks,
            identity=c.seen.identity,
            box=c.seen.box if face else None,
            size=c.seen.size,
            caption=captions[c.id] if taken else "",
            collection=c.source.collection,
            split="validation" if c.person in validation else "train",
            reason=c.reason or None,
            detail=c.detail,
            source=c.source.name,
            quality=photo_quality(c.seen) if face else 0.0,
        )

    return Manifest(tuple(map(row, candidates)), settings.detector.recogniser, folder=folder)


def _put_files(
    folder: Path, settings: Settings, candidates: Sequence[Candidate], manifest: Manifest, means: Means
) -> None:
    """Link or copy the photos taken, keep small ones of some others, and delete what no longer belongs."""
    kept = {photo.path for photo in manifest.taken}
    sources = [c.source for c in candidates]
    with _bar("putting", len(kept), len(kept), means) as bar:
        for source, photo in zip(sources, manifest.photos, strict=True):
            if photo.path:
                storage.place(folder, photo.path, source, settings.copy)
                bar.update()
    shown: dict[str, int] = defaultdict(int)
    for source, photo in sorted(zip(sources, manifest.photos, strict=True), key=lambda pair: pair[1].id):
        if photo.reason and photo.id and shown[photo.reason] < EXAMPLES_EACH:
            path = example_path(photo)
            if storage.keep_example(folder, path, source):
                kept.add(path)
                shown[photo.reason] += 1
    storage.tidy(folder, kept)


def example_path(photo: Photo) -> str:
    """Where a small copy of a photo that was left out lies in the set's folder, if it was chosen as an example."""
    return f"{storage.EXAMPLES}/{(photo.reason or '').replace(' ', '-')}/{photo.id[:16]}.jpg"
