"""Face files: one encoded person as numbers (docs/nodes.md, file formats). They hold no photo, but a portrait if asked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from .files import describe, read_safetensors
from .plain import build, one_line, parse_json
from .saving import header_of, write_safetensors
from .types import RECOGNISER, DynamicIDError, Face
from .writing import AnyPath, Kind

FACE_FORMAT, FACE_VERSION = "dynamicid-face", "1"
PORTRAIT = "portrait"
FACE_TENSORS = ("tokens", "uncond_tokens", "identity", "landmarks", "pose")  # the first two are in every file
IDENTITY_TOLERANCE = 0.05  # of its length; half precision is off by a thousandth
FACE_FILE = Kind("a face file", lambda path: header_of(path)[1].get("format") == FACE_FORMAT)


def save_face(path: AnyPath, face: Face, portrait: bool = False, inputs: Iterable[AnyPath] = ()) -> Path:
    """Write a face file. It holds numbers only, no photo; yet they identify a person: treat it like a photo.

    With ``portrait``, the face's thumbnail is kept too, if it has one: then it does hold a small photo. Only face files
    are replaced, and none of ``inputs``; errors as in :func:`writing.writing`.
    """
    tensors = {name: value.float() for name in FACE_TENSORS if (value := getattr(face, name)) is not None}
    if portrait and face.thumbnail is not None:
        tensors[PORTRAIT] = (face.thumbnail.clamp(0, 1) * 255).round().to(torch.uint8)
    metadata = {"format": FACE_FORMAT, "version": FACE_VERSION, "encoder": face.encoder, "recogniser": face.recogniser}
    if len(face.mix) > 1:
        metadata["mix"] = json.dumps(face.mix)
    if face.expression:
        metadata["expression"] = face.expression
    return write_safetensors(path, tensors, metadata, kind=FACE_FILE, inputs=inputs)


def _read_face(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a face file, checked as far as the format and its version go."""
    expected = "a face file, as DynamicID saves it"
    try:
        tensors, metadata = read_safetensors(path)
    except DynamicIDError as error:
        raise DynamicIDError(f"{error} Expected {expected}.") from error
    if metadata.get("format") != FACE_FORMAT:
        seems = (
            "a file with the tensors of a face and other metadata" if "uncond_tokens" in tensors else describe(tensors)
        )
        raise DynamicIDError(f"{path} is {seems}; expected {expected}.")
    if metadata.get("version") != FACE_VERSION:
        raise DynamicIDError(
            f"{path} is a face file of version {one_line(metadata.get('version', 'unknown'), 40)}, but this DynamicID reads version "
            f"{FACE_VERSION}. Update DynamicID, or encode the photo again."
        )
    return tensors, metadata


def load_face(
    path: str | os.PathLike[str], encoder: str | None = None, warn: Callable[[str], object] | None = None
) -> Face:
    """Read a face file.

    With ``encoder`` (the sha256 of the loaded encoder), a file of another one is loaded with a warning that names both.
    Raises DynamicIDError for anything that is no face file.
    """
    path = Path(path)
    tensors, metadata = _read_face(path)
    made_by = one_line(metadata.get("encoder", ""))
    try:
        _check_tensors(tensors)
        face = Face(
            encoder=made_by,
            mix=build(tuple[float, ...], parse_json(metadata.get("mix", "[1.0]")), "mix"),
            expression=one_line(metadata.get("expression", "")) or None,
            name=one_line(path.stem),
            recogniser=one_line(metadata.get("recogniser", "")) or RECOGNISER,  # files written before it was noted
            thumbnail=_portrait(tensors),
            # Copies: a face must not hold on to its file, which may be written over.
            **{name: tensors[name].to(torch.float32, copy=True) for name in FACE_TENSORS if name in tensors},
        )
        if face.identity is not None and abs((length := float(face.identity.norm())) - 1) > IDENTITY_TOLERANCE:
            raise DynamicIDError(f"Its identity has the length {length:.3g}, not 1")
    except DynamicIDError as error:
        raise DynamicIDError(f"{path} is a damaged face file. {_sentence(str(error))}") from error
    if encoder and warn and (message := encoder_mismatch(made_by, encoder, str(path))):
        warn(message)
    return face


def _check_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Raise DynamicIDError for tensors that no face has, as far as :class:`types.Face` does not see it.

    Zeros are what a download that was broken off leaves in a file of full size; tokens come out of a normalisation.
    """
    if missing := [name for name in FACE_TENSORS[:2] if name not in tensors]:
        raise DynamicIDError(f"It has no {missing[0]}")
    values = {name: tensors[name] for name in FACE_TENSORS if name in tensors}
    if odd := [f"{name} ({value.dtype})" for name, value in values.items() if not value.is_floating_point()]:
        raise DynamicIDError(f"It has whole numbers as {odd[0]}")
    for name in {*values} - {"pose"}:  # which may be zero
        value = values[name].float()
        empty = value == 0
        if value.numel() and bool(empty.all(-1).any() if name in FACE_TENSORS[:2] and value.ndim else empty.all()):
            raise DynamicIDError(
                f"It has zeros as {name}, as downloads leave them that were broken off; get the file again."
            )


def _sentence(text: str) -> str:
    text = text if text.endswith(".") else f"{text}; encode the photo again."
    return text[:1].upper() + text[1:]


def _portrait(tensors: Mapping[str, Tensor]) -> Tensor | None:
    """[h, w, 3] in 0..1, of a file that holds one; a strange one is left out, since it is for previews only."""
    kept = tensors.get(PORTRAIT)
    whole = kept is not None and kept.dtype == torch.uint8 and kept.ndim == 3 and kept.shape[-1] == 3 and kept.numel()
    return kept.float() / 255 if kept is not None and whole else None


def encoder_mismatch(made_by: str, encoder: str, what: str) -> str | None:
    """A warning when a face was made by another encoder than the one in use, else None."""
    if made_by == encoder:
        return None
    return (
        f"{what} was made by the face encoder {made_by[:12] or 'unknown'}, but the loaded one is {encoder[:12]}; "
        "the likeness may suffer. Encode the photo again with the loaded DynamicID file."
    )
