"""``encode --group``: everybody in one photo to a face file."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..face_files import FACE_FILE, save_face
from ..groups import EncodedGroup, GroupOptions
from ..types import DynamicIDError
from ..writing import check_file, check_folder
from . import models
from .settings import need_file


def run(options: argparse.Namespace, how: Mapping[str, Any]) -> dict[str, Any]:
    """What ``encode`` does with --group; ``how``: options about photos that were given."""
    photo = _photo(options, how)
    settings = GroupOptions(
        names=options.names or "", smallest=options.smallest or 0,
        **{name: how[name] for name in ("order", "crop_factor") if name in how},
    )  # fmt: skip
    folder: Path = options.output or Path(photo).parent
    check_folder(folder)
    encoded = models.load_photo_encoder(options).encode_group(photo, settings)
    if encoded.message:
        print(encoded.message, file=sys.stderr)
    targets = [folder / f"{stem}.safetensors" for stem in _stems(encoded, Path(photo).stem)]
    for target in targets:
        check_file(target, FACE_FILE, [photo])
    for target, face in zip(targets, encoded.faces, strict=True):
        save_face(target, face, inputs=[photo])
    return _result(photo, encoded, targets)


def _photo(options: argparse.Namespace, how: Mapping[str, Any]) -> str:
    """The one photo. Raises DynamicIDError for several, and for options that mean nothing where everybody is taken."""
    if len(options.photos) > 1:
        raise DynamicIDError(f"--group takes one photo, not {len(options.photos)}; call it for each.")
    if "index" in how or how.get("on_no_face", "error") != "error":
        raise DynamicIDError(
            "--index and --on-no-face choose one face; with --group leave people out with - in --names."
        )
    need_file(options.photos[0], "photo")
    return str(options.photos[0])


def _stems(encoded: EncodedGroup, photo: str) -> list[str]:
    """Names of files: the people's, or that of the photo and a number. Raises DynamicIDError where two are the same."""
    stems = []
    for number, face in enumerate(encoded.faces, 1):
        name = re.sub(r'[\\/:*?"<>|]', "_", face.name).strip(" .")
        stems.append(name or f"{photo} {number}")
    twice = sorted({stem for stem in stems if [one.casefold() for one in stems].count(stem.casefold()) > 1})
    if twice:
        raise DynamicIDError(f"Two people would become the file {twice[0]}.safetensors; give them different --names.")
    return stems


def _result(photo: str, encoded: EncodedGroup, targets: list[Path]) -> dict[str, Any]:
    lines, written = [], []
    count = len(encoded.found) + len(encoded.left_out)
    for person, target in zip(encoded.cast.people, targets, strict=True):
        y0, x0, y1, x1 = (person.region.box if person.region else None) or (0.0, 0.0, 1.0, 1.0)
        box = [round(value, 3) for value in (x0, y0, x1, y1)]
        lines.append(f"wrote {target} (--box {','.join(f'{value:g}' for value in box)})")
        entry = {"face": str(target), "photos": [photo], "faces_found": [count], "message": encoded.message}
        written.append({**entry, "name": person.face.name, "box": box})
    return {"text": "\n".join(lines), "json": {"written": written, "failed": []}, "failed": False}
