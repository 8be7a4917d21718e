"""Tensors and pictures -> files, by :mod:`writing`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .types import DynamicIDError
from .writing import AnyPath, Kind, writing

# As safetensors spells them, in the order in which it sorts tensors, the last first, so that all lie aligned.
_DTYPES: dict[torch.dtype, str] = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float32: "F32",
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint64: "U64",
}
_ORDER = {dtype: number for number, dtype in enumerate(_DTYPES)}

SETTINGS_KEY = "dynamicid"  # of a PNG's text: how `generate` made the picture
MAKER, SOFTWARE_TAG = "DynamicID", 0x0131  # in the EXIF data of our other pictures
DESCRIPTION_TAG = 0x010E  # in that of a film: its settings, JSON in ASCII


# --- tensors ------------------------------------------------------------------------------------------------------


def write_safetensors(
    path: AnyPath,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    *,
    kind: Kind | None = None,
    inputs: Iterable[AnyPath] = (),
    sparse: bool = False,
) -> Path:
    """Write tensors of any device, strides and sharing; equal ones, equal bytes.

    ``sparse``: what is zero throughout is skipped over; most file systems store nothing for it, others (Windows by
    default) zeros. ``kind``, ``inputs`` and errors as in :func:`writing.writing`.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise DynamicIDError(f"{path} cannot hold the tensor {name!r}: it is of type {tensor.dtype}.")
    ordered = sorted(tensors.items(), key=lambda item: (-_ORDER[item[1].dtype], item[0]))
    with writing(path, kind, inputs) as file:
        file.write(_header(ordered, metadata))
        for _, tensor in ordered:
            if sparse and _all_zero(tensor):
                file.seek(tensor.numel() * tensor.element_size(), os.SEEK_CUR)
            else:
                file.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        file.truncate()
    return Path(path)


def _header(tensors: Iterable[tuple[str, Tensor]], metadata: Mapping[str, str]) -> bytes:
    """Its length in 8 bytes, then JSON, filled up to a multiple of 8."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _all_zero(tensor: Tensor) -> bool:
    one = not any(tensor.stride())  # a value that is expanded, as zeros are where they shall take no memory
    return not bool((tensor.flatten()[:1] if one else tensor).any())


def header_of(path: AnyPath) -> tuple[set[str], dict[str, str]]:
    """Tensors' names and metadata of a safetensors file, whatever it is called; none of any other file."""
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            return set(file.keys()), file.metadata() or {}
    except Exception:  # the reader raises many kinds for what is no such file
        return set(), {}


def same_network(names: Iterable[str]) -> Kind:
    """Weights of a network whose tensors are called so."""
    wanted = set(names)
    return Kind("weights of the same network", lambda path: header_of(path)[0] == wanted)


# --- pictures -----------------------------------------------------------------------------------------------------


def _is_our_picture(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return SETTINGS_KEY in image.info or image.getexif().get(SOFTWARE_TAG) == MAKER
    except Exception:  # whatever a file that is no picture makes of its reader
        return False


PICTURE = Kind("a picture that DynamicID made (with its metadata)", _is_our_picture)


def form_of(path: AnyPath) -> str:
    """PIL's name for the kind of picture that a file's ending asks for. DynamicIDError for what PIL cannot write."""
    form = Image.registered_extensions().get(Path(path).suffix.lower())
    if form not in Image.SAVE:
        raise DynamicIDError(f"{path} is no kind of picture that is known here; end it in .png or .jpg.")
    return form


def settings_in(image: Image.Image) -> str | None:
    """How `generate` made a film, as JSON; None of any other picture."""
    exif = image.getexif()
    return exif.get(DESCRIPTION_TAG) if exif.get(SOFTWARE_TAG) == MAKER else None


def write_film(
    path: AnyPath, pictures: Sequence[Image.Image], fps: float, settings: str | None, inputs: Iterable[AnyPath] = ()
) -> Path:
    """Pictures of one size as an animated WebP without loss, shown over and over; ``settings``: ASCII, None for no metadata."""
    exif = Image.Exif()
    if settings is not None:
        exif[SOFTWARE_TAG], exif[DESCRIPTION_TAG] = MAKER, settings
    how: dict[str, Any] = {
        "save_all": True,
        "append_images": pictures[1:],
        "duration": round(1000 / fps),
        "loop": 0,
        "lossless": True,
    }
    return write_picture(path, pictures[0], PICTURE, inputs, form="WEBP", exif=exif, **how)


def write_picture(
    path: AnyPath,
    picture: Image.Image,
    kind: Kind | None = None,
    inputs: Iterable[AnyPath] = (),
    *,
    form: str = "",
    marked: bool = False,
    **how: Any,
) -> Path:
    """A picture as a file of the kind that its ending says, or of ``form``; ``how`` as PIL takes it.

    ``marked``: it says that DynamicID made it, so that it is of the kind :data:`PICTURE` and may be replaced later.
    """
    form = form or form_of(path)
    if marked:
        how["exif"] = Image.Exif()
        how["exif"][SOFTWARE_TAG] = MAKER
    with writing(path, kind, inputs) as file:
        picture.save(file, form, **how)
    return Path(path)
