"""Path -> tensors, safely: published pickles and safetensors (docs/nodes.md, file formats).

Pickles are read with weights only and never execute code. A file is known by its tensors, not by its name.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .catalogue import model_file
from .types import DynamicIDError

HUB_FILES = model_file("saa").published + model_file("imr").published  # the last is the key point encoder
LARGEST_PICKLE = 1 << 26  # bytes of the part of an archive that names its tensors
DAMAGED = "its checksum is wrong, so it is damaged; download it again"
CHECKPOINT_SUFFIXES = (".safetensors", ".sft", ".bin", ".pt", ".pth", ".ckpt")

# How a tensor's name begins in a file without prefixes -> the prefix that our safetensors files give its tensors.
PREFIX_OF = {
    "feature_fusion.": "IMR.",
    "blocks.0.0.conv_block.": "key_point_encoder.",
    "perceiver_resampler.": "proj_module.",
    "0.to_q_lora.": "SAA_module.",
}

SAFE_PICKLES = (2, 6)  # the PyTorch from which on weights-only loading holds what it promises (CVE-2025-32434)
DEEPEST, MOST_ENTRIES = 16, 100_000  # of a pickle; checkpoints of SDXL have 2,500 tensors

# What users pick by mistake: a part of a tensor's name -> what such a file is. The first that fits is taken.
_FAMILIAR = (
    ("proj_module.", "a DynamicID SAA file"),
    ("SAA_module.", "a DynamicID SAA file"),
    ("IMR.", "a DynamicID IMR file"),
    ("key_point_encoder.", "a DynamicID key point encoder"),
    ("uncond_tokens", "a DynamicID face file"),
    ("ip_adapter.", "an IP-Adapter file"),
    ("image_proj.", "an IP-Adapter file"),
    ("to_k_ip", "an IP-Adapter file"),
    ("lora_down", "a LoRA"),
    ("lora_up", "a LoRA"),
    ("lora_A", "a LoRA"),
    ("lora.down", "a LoRA"),
    ("control_model.", "a ControlNet"),
    ("controlnet_", "a ControlNet"),
    ("zero_convs.", "a ControlNet"),
    ("input_hint_block", "a ControlNet"),
    ("model.diffusion_model.", "a complete checkpoint (Stable Diffusion or similar)"),
    ("input_blocks.", "a Stable Diffusion UNet"),
    ("down_blocks.", "a diffusers UNet or VAE"),
    ("vision_model.", "a CLIP vision model"),
    ("visual.", "a CLIP vision model"),
    ("text_model.", "a text encoder"),
    ("first_stage_model.", "a VAE"),
    ("decoder.", "a VAE"),
)

# Prefixes that training wrappers (DistributedDataParallel, torch.compile) put before names.
_WRAPPER = re.compile(r"(?<![^.])(?:module|_orig_mod)\.")


def describe(names: Iterable[str]) -> str:
    """What a file seems to be, by its tensor names, in words a user knows."""
    names = list(names)
    if not names:
        return "a file without tensors"
    for part, description in _FAMILIAR:
        if any(part in name for name in names):
            return description
    some = ", ".join(repr(name[:60]) for name in sorted(names)[:3])
    return f"something else ({len(names)} tensors, among them {some})"


def _is_safetensors(path: Path) -> bool:
    return path.suffix.lower() in (".safetensors", ".sft")


def _damage(path: Path, safetensors: bool) -> str:
    """Why a file could not be read as ``safetensors`` or else as a pickle, from its size and first bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
    if size == 0:
        return "the file is empty; download it again"
    cut = f"it seems to be a truncated download ({size:,} bytes are there); delete it and download it again"
    if head[4:9] == b"\0\0\0\0{":  # safetensors: the header's length in 8 bytes, then JSON
        return cut if safetensors else "it is a safetensors file under another name; rename it to .safetensors"
    if head.startswith((b"PK", b"\x80")):  # a zip archive or a bare pickle
        if safetensors:
            return "it is a PyTorch pickle, not a safetensors file (weights of that kind end in .bin)"
        return {None: cut, False: DAMAGED, True: "it is an archive, but not of PyTorch weights"}[_checksum_holds(path)]
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the weights; download the file itself"
    if head.lstrip().startswith(b"<"):
        return "it is a web page, not the weights; use the page's download link"
    return "it is neither a PyTorch nor a safetensors file, or is damaged; download it again"


def _check_is_file(path: Path) -> None:
    if os.path.isdir(path):
        raise DynamicIDError(f"{path} is a folder; choose a file in it.")
    if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe would wait for whoever writes into it
        raise DynamicIDError(f"{path} is a pipe or a device; choose a file.")
    if not os.path.isfile(path):
        raise DynamicIDError(f"There is no file {path}.")


def _checksum_holds(path: Path) -> bool | None:
    """Whether what a pickle in an archive says is what was written; None for a bare pickle, which has no checksum."""
    try:
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith("data.pkl") and info.file_size <= LARGEST_PICKLE:
                    archive.read(info)
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        return False
    return True


def _unreadable(path: Path, error: Exception, safetensors: bool) -> DynamicIDError:
    """The readers raise many kinds of errors for damaged files; this tells what happened instead."""
    if isinstance(error, PermissionError):
        return DynamicIDError(f"{path} could not be read: you lack the permission to read it.")
    with path.open("rb") as file:
        is_pickle = file.read(2).startswith((b"PK", b"\x80"))
    if isinstance(error, pickle.UnpicklingError) and is_pickle and "unsupported" in str(error).lower():
        whole = _checksum_holds(path)
        if whole is False:
            return DynamicIDError(f"{path} could not be read: {DAMAGED}.")
        or_damaged = "" if whole else ", or is damaged"
        return DynamicIDError(
            f"{path} holds Python objects besides tensors{or_damaged}; reading them could execute code, so it was "
            "refused. Get the weights from a source that ships plain tensors (safetensors)."
        )
    return DynamicIDError(f"{path} could not be read: {_damage(path, safetensors)}.")


def _tensors_of(value: Any) -> dict[str, Tensor]:
    """The tensors of nested dictionaries, by dotted names.

    Raises ValueError for more of them than any model has: entries of a pickle may refer to one another, so that a few bytes
    would unfold without end; tensors may repeat one stored value.
    """
    found: dict[str, Tensor] = {}
    entries, todo = 0, [("", value)]
    while todo:
        name, item = todo.pop()
        entries += 1
        if entries > MOST_ENTRIES or name.count("\0") > DEEPEST:
            raise ValueError("its dictionaries hold too much")
        if isinstance(item, Tensor):
            if item.layout == torch.strided and 0 in item.stride() and item.numel() > 1:
                raise ValueError("its tensors are larger than what it stores")
            found[name[1:].replace("\0", ".")] = item.detach()
        elif isinstance(item, Mapping):
            todo += [(f"{name}\0{key}", inner) for key, inner in reversed(list(item.items()))]
    return found


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """All tensors of a file, on the CPU, in their own dtypes; nested dictionaries become dotted names.

    Large files are memory-mapped where their format allows. Raises DynamicIDError naming the file and what is
    wrong with it; pickles that would execute code are refused.
    """
    path = Path(path)
    if _is_safetensors(path):
        return read_safetensors(path)[0]
    _check_is_file(path)
    check_pickles_are_safe(str(path))
    try:
        values = _read_pickle(path)
    except Exception as error:
        raise _unreadable(path, error, safetensors=False) from error
    try:
        return _tensors_of(values)
    except ValueError as error:
        raise DynamicIDError(f"{path} is refused: {error}. Get the weights from a source that you trust.") from error


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, whatever it is called. Errors as in :func:`read_tensors`."""
    from safetensors import safe_open

    path = Path(path)
    _check_is_file(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except Exception as error:
        raise _unreadable(path, error, safetensors=True) from error


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Metadata of a safetensors file; none in files of another format. Errors as in :func:`read_tensors`."""
    from safetensors import safe_open

    path = Path(path)
    if not _is_safetensors(path):
        return {}
    _check_is_file(path)
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except Exception as error:
        raise _unreadable(path, error, safetensors=True) from error


def tensor_names(path: str | os.PathLike[str]) -> list[str]:
    """Names of a file's tensors; of safetensors files, without reading the tensors. Errors as in :func:`read_tensors`."""
    from safetensors import safe_open

    path = Path(path)
    if not _is_safetensors(path):
        return list(read_tensors(path))
    _check_is_file(path)
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except Exception as error:
        raise _unreadable(path, error, safetensors=True) from error


def check_pickles_are_safe(what: str) -> None:
    """Raise DynamicIDError where this PyTorch could be made to run what a pickle holds, weights only or not."""
    if tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < SAFE_PICKLES:
        needed = ".".join(map(str, SAFE_PICKLES))
        raise DynamicIDError(
            f"{what} is a PyTorch pickle, which PyTorch {torch.__version__} may execute (CVE-2025-32434). Update PyTorch to {needed} "
            "or newer, or take a .safetensors file."
        )


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    return torch.load(str(path), map_location="cpu", weights_only=True, mmap=is_zip or None)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors of a DynamicID file under the names of our safetensors layout, whichever format it has.

    That is ``proj_module.*`` and ``SAA_module.*``, or ``IMR.*`` and ``key_point_encoder.*``.
    """
    tensors = {_WRAPPER.sub("", name): tensor for name, tensor in read_tensors(path).items()}
    for beginning, prefix in PREFIX_OF.items():
        if any(name.startswith(beginning) for name in tensors):
            return {prefix + name: tensor for name, tensor in tensors.items()}
    return tensors


def keypoint_file(path: str | os.PathLike[str]) -> Path:
    """Where the key point encoder of a published IMR file lies: beside it.

    Its name is that of the IMR file with ``IMR`` replaced by ``key_point_encoder``, or else the published name.
    """
    path = Path(path)
    beside = path.with_name(path.name.replace("IMR", "key_point_encoder"))
    return beside if beside != path and beside.is_file() else path.with_name(HUB_FILES[2])


def motion_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors of the IMR and the key point encoder; published, they are two files side by side."""
    tensors = read_checkpoint(path)
    has_imr, has_keypoints = (any(n.startswith(p) for n in tensors) for p in ("IMR.", "key_point_encoder."))
    beside = keypoint_file(path)
    if not has_imr or has_keypoints or not beside.is_file():
        return tensors
    keypoints = read_checkpoint(beside)
    if not all(name.startswith("key_point_encoder.") for name in keypoints):
        raise DynamicIDError(f"{beside} is {describe(keypoints)}; expected the key point encoder of {path}.")
    return tensors | keypoints
