"""Path -> tensors, safely: published pickles, safetensors, and face files (interface.md, *Files*).

Pickles are read with weights only and never execute code. A file is known by its tensors, not by its name.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from .types import DynamicIDError, Face

HUB_REPOSITORY = "meteorite2023/DynamicID"
HUB_FILES = ("SAA.bin", "IMR.bin", "key_point_encoder.bin")
FACE_FORMAT, FACE_VERSION = "dynamicid-face", "1"
CHECKPOINT_SUFFIXES = (".safetensors", ".sft", ".bin", ".pt", ".pth", ".ckpt")

# The tensor by which a file without prefixes is known -> the prefix that our safetensors files give its tensors.
PREFIX_OF = {
    "feature_fusion.1.weight": "IMR.",
    "blocks.0.0.conv_block.0.weight": "key_point_encoder.",
    "perceiver_resampler.proj_in.weight": "proj_module.",
    "0.to_q_lora.down.weight": "SAA_module.",
}

# What users pick by mistake: a part of a tensor's name -> what such a file is.
_FAMILIAR = (
    ("ip_adapter.", "an IP-Adapter file"),
    ("image_proj.", "an IP-Adapter file"),
    ("to_k_ip", "an IP-Adapter file"),
    ("SAA_module.", "a DynamicID SAA file"),
    ("IMR.", "a DynamicID IMR file"),
    ("key_point_encoder.", "a DynamicID key point encoder"),
    ("lora_down", "a LoRA"),
    ("lora_up", "a LoRA"),
    ("lora_A", "a LoRA"),
    ("lora.down", "a LoRA"),
    ("control_model.", "a ControlNet"),
    ("controlnet_cond_embedding", "a ControlNet"),
    ("zero_convs.", "a ControlNet"),
    ("input_hint_block", "a ControlNet"),
    ("model.diffusion_model.", "a complete checkpoint (Stable Diffusion or similar)"),
    ("down_blocks.", "a diffusers UNet or VAE"),
    ("vision_model.", "a CLIP vision model"),
    ("visual.", "a CLIP vision model"),
    ("text_model.", "a text encoder"),
    ("first_stage_model.", "a VAE"),
    ("decoder.", "a VAE"),
)


def describe(names: Mapping[str, Tensor] | list[str]) -> str:
    """What a file seems to be, by its tensor names, in words a user knows."""
    names = list(names)
    if not names:
        return "a file without tensors"
    for part, description in _FAMILIAR:
        if any(part in name for name in names):
            return description
    return f"something else ({len(names)} tensors, among them {', '.join(map(repr, sorted(names)[:3]))})"


def _damage(path: Path) -> str:
    """Why a file could not be read, from its size and first bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
    if size == 0:
        return "the file is empty; download it again"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the weights; download the file itself"
    if head.lstrip()[:1] == b"<":
        return "it is a web page, not the weights; use the page's download link"
    if path.suffix in (".safetensors", ".sft"):
        return _safetensors_damage(head, size)
    if head.startswith(b"PK") or head[:1] == b"\x80":
        return "it seems to be a truncated download; delete it and download it again"
    return "it is neither a PyTorch nor a safetensors file, or is damaged; download it again"


def _safetensors_damage(head: bytes, size: int) -> str:
    length = struct.unpack("<Q", head[:8])[0] if len(head) >= 8 else 0
    if head.startswith(b"PK") or head[:1] == b"\x80":
        return "it is a PyTorch pickle under a safetensors name; rename it to .bin"
    if head[8:9] == b"{" and length:
        return f"it seems to be a truncated download ({size:,} bytes are there); delete it and download it again"
    return "it is not a safetensors file, or is damaged; download it again"


def _flatten(value, prefix: str = "") -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        return {prefix[:-1]: value}
    if not isinstance(value, Mapping):
        return {}
    return {k: v for name, item in value.items() for k, v in _flatten(item, f"{prefix}{name}.").items()}


def read_tensors(path: str | os.PathLike) -> dict[str, Tensor]:
    """All tensors of a file, on the CPU, in their own dtypes; nested dictionaries become dotted names.

    Large files are memory-mapped where their format allows. Raises DynamicIDError naming the file and what is
    wrong with it; pickles that would execute code are refused.
    """
    path = Path(path)
    if not path.is_file():
        raise DynamicIDError(f"There is no file {path}.")
    try:
        if path.suffix in (".safetensors", ".sft"):
            from safetensors.torch import load_file

            return load_file(path)
        return _flatten(_read_pickle(path))
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "not an allowed global" in str(error) or "GLOBAL" in str(error):
            raise DynamicIDError(
                f"{path} holds Python objects besides tensors; reading them could execute code, so it was refused. "
                "Get the weights from a source that ships plain tensors (safetensors)."
            ) from error
        raise DynamicIDError(f"{path} could not be read: {_damage(path)}.") from error
    except DynamicIDError:
        raise
    except Exception as error:  # the readers raise many kinds for damaged files
        raise DynamicIDError(f"{path} could not be read: {_damage(path)}.") from error


def _read_pickle(path: Path):
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip or None)


def read_checkpoint(path: str | os.PathLike) -> dict[str, Tensor]:
    """Tensors of a DynamicID file under the names of our safetensors layout, whichever format it has.

    That is ``proj_module.*`` and ``SAA_module.*``, or ``IMR.*`` and ``key_point_encoder.*``.
    """
    tensors = read_tensors(path)
    for known, prefix in PREFIX_OF.items():
        if known in tensors:
            return {prefix + name: tensor for name, tensor in tensors.items()}
    return tensors


def write_safetensors(path: str | os.PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write tensors so that a file of that name is either the old one or whole."""
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, partial, dict(metadata))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def motion_tensors(path: str | os.PathLike) -> dict[str, Tensor]:
    """Tensors of the IMR and the key point encoder; published, they are two files side by side.

    The second is looked for under the name of the first with ``IMR`` replaced by ``key_point_encoder``.
    """
    path = Path(path)
    tensors = read_checkpoint(path)
    if any(name.startswith("key_point_encoder.") for name in tensors):
        return tensors
    beside = path.with_name(path.name.replace("IMR", "key_point_encoder"))
    if beside == path or not beside.is_file():
        beside = path.with_name(HUB_FILES[2])
    if any(name.startswith("IMR.") for name in tensors) and beside.is_file():
        tensors |= read_checkpoint(beside)
    return tensors


def download(folder: str | os.PathLike, files: tuple[str, ...] = HUB_FILES, repository: str = HUB_REPOSITORY) -> list[Path]:
    """Fetch the published weights (Apache-2.0) from the Hugging Face hub into ``folder``, with its progress bar.

    An interrupted download is resumed. Raises DynamicIDError when the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    Path(folder).mkdir(parents=True, exist_ok=True)
    try:
        return [Path(hf_hub_download(repository, name, local_dir=folder)) for name in files]
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise DynamicIDError(
            f"The weights could not be fetched ({error}). Download {', '.join(files)} from the Hugging Face repository "
            f"{repository} in a browser and put them into {folder}."
        ) from error


def save_face(path: str | os.PathLike, face: Face) -> Path:
    """Write a face file. It holds numbers only, no photo; yet they identify a person: treat it like a photo."""
    tensors = {"tokens": face.tokens, "uncond_tokens": face.uncond_tokens}
    tensors |= {n: getattr(face, n) for n in ("identity", "landmarks", "pose") if getattr(face, n) is not None}
    metadata = {"format": FACE_FORMAT, "version": FACE_VERSION, "encoder": face.encoder}
    if len(face.mix) > 1:
        metadata["mix"] = json.dumps(face.mix)
    if face.expression:
        metadata["expression"] = face.expression
    return write_safetensors(path, {name: t.float() for name, t in tensors.items()}, metadata)


def _face_metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except Exception as error:  # safetensors raises its own error and OSError
        raise DynamicIDError(f"{path} could not be read as a face file: {_damage(path)}.") from error


def load_face(path: str | os.PathLike, encoder: str | None = None, warn: Callable[[str], None] | None = None) -> Face:
    """Read a face file.

    With ``encoder`` (the sha256 of the loaded encoder), a file of another one is loaded with a warning that names both.
    Raises DynamicIDError for anything that is no face file.
    """
    path = Path(path)
    if not path.is_file():
        raise DynamicIDError(f"There is no face file {path}.")
    metadata = _face_metadata(path)
    tensors = read_tensors(path)
    if metadata.get("format") != FACE_FORMAT or not {"tokens", "uncond_tokens"} <= tensors.keys():
        raise DynamicIDError(f"{path} is {describe(tensors)}; expected a face file, as Save Face writes it.")
    if metadata.get("version") != FACE_VERSION:
        raise DynamicIDError(
            f"{path} is a face file of version {metadata.get('version')}; this DynamicID reads version {FACE_VERSION}. Update it."
        )
    made_by = metadata.get("encoder", "")
    message = encoder_mismatch(made_by, encoder, str(path)) if encoder else None
    if message and warn:
        warn(message)
    known = {name: tensors[name] for name in ("tokens", "uncond_tokens", "identity", "landmarks", "pose") if name in tensors}
    mix = tuple(json.loads(metadata["mix"])) if "mix" in metadata else (1.0,)
    return Face(encoder=made_by, mix=mix, expression=metadata.get("expression"), name=path.stem, **known)


def encoder_mismatch(made_by: str, encoder: str, what: str) -> str | None:
    """A warning when a face was made by another encoder than the one in use, else None."""
    if made_by == encoder:
        return None
    return (
        f"{what} was made by the face encoder {made_by[:12] or 'unknown'}, but the loaded one is {encoder[:12]}; "
        "the likeness may suffer. Encode the photo again with the loaded DynamicID file."
    )
