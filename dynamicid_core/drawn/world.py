"""The drawn world's files in a models folder laid out as ComfyUI's: wide as hosts know them, or narrow for diffusers.

A file that is there and was made from the same weights stays; one that others put there is never touched.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..catalogue import DRAWN
from ..checkpoints import load_saa
from ..files import read_metadata, read_tensors
from ..refining import RefineOptions
from ..saving import write_safetensors
from ..types import DynamicIDError, SAAOptions
from ..writing import copy, write
from . import carried
from .autoencoder import taesd_weights
from .pipeline import NARROW_HIDDEN, narrow_pipeline
from .text import text_encoder_weights
from .unet import FACTOR, ldm_names, widened, widened_saa
from .vision import vision_weights

CHECKPOINT = f"checkpoints/{DRAWN}.safetensors"
VAE = f"vae/{DRAWN}_vae.safetensors"
CLIP_VISION = f"clip_vision/{DRAWN}_vision.safetensors"
SAA, IMR = (f"dynamicid/{DRAWN}_{part}.safetensors" for part in ("saa", "imr"))
FACES = "insightface/models/drawn"  # a folder: InsightFace takes every .onnx file in it
PIPELINE = f"diffusers/{DRAWN}"

FORMAT = "1"  # raise it when the same weights make other files
SCALE = 0.18215  # ComfyUI multiplies SD1.5's latents by it
Progress = Callable[[str, int, int], None]
Made = tuple[Mapping[str, Tensor], Mapping[str, str]]  # tensors and metadata of a file

CROP_FACTOR = 2.0  # of the photos that the face encoder was trained on
STEPS, GUIDANCE = 25, 4.0  # of sampling
GATE_THRESHOLD = 0.0  # that the weights were trained with
LAYOUT_STRENGTH = 0.5  # of boxes: more turns small networks garish
ACTING = SAAOptions(gate_threshold=GATE_THRESHOLD, layout_strength=LAYOUT_STRENGTH)
REFINE_STEPS = 12
REFINING = RefineOptions(size=128, crop_factor=CROP_FACTOR, denoise=0.6)  # faces are as large as in trained pictures
ONE = "a drawing of one person, blue background"  # what a crop shows


def _vae(weights: Path) -> dict[str, Tensor]:
    """TAESD as ComfyUI takes it: latents come out in the scale of SD1.5's VAE, which the model undoes."""
    state = {f"taesd_{name}": tensor.half() for name, tensor in taesd_weights(carried.autoencoder(weights)).items()}
    return state | {"vae_scale": torch.tensor(SCALE), "vae_shift": torch.tensor(0.0)}


def _checkpoint(weights: Path) -> dict[str, Tensor]:
    """Widened UNet, text encoder and autoencoder under the names of SD1.5's checkpoints."""
    wide = widened(read_tensors(carried.path_of(carried.UNET, weights)))
    names = ldm_names(wide)
    state = {f"model.diffusion_model.{names[name]}": tensor for name, tensor in wide.items()}
    state |= {f"cond_stage_model.transformer.{name}": tensor for name, tensor in text_encoder_weights().items()}
    return state | {f"first_stage_model.{name}": tensor for name, tensor in _vae(weights).items()}


def _wide_saa(weights: Path) -> Made:
    path = carried.path_of(carried.SAA, weights)
    narrow = load_saa(path)
    sites = widened_saa(narrow.saa.state_dict())
    tensors = {name: tensor for name, tensor in read_tensors(path).items() if name.startswith("proj_module.")}
    tensors |= {f"SAA_module.{name}": tensor for name, tensor in sites.items()}
    widths = tuple(width * FACTOR for width in narrow.origin.widths)
    return tensors, replace(narrow.origin, base="drawn world", widths=widths).to_metadata()


def _as_carried(name: str, weights: Path) -> Made:
    path = carried.path_of(name, weights)
    return read_tensors(path), read_metadata(path)


@dataclass(frozen=True)
class WorldFile:
    """One file of a models folder: what it is made of, and how."""

    path: str  # below the models folder
    sources: tuple[str, ...]  # of the carried weights
    make: Callable[[Path], Made]


WIDE = (
    WorldFile(CHECKPOINT, (carried.UNET, carried.AUTOENCODER), lambda weights: (_checkpoint(weights), {})),
    WorldFile(VAE, (carried.AUTOENCODER,), lambda weights: (_vae(weights), {})),
    WorldFile(CLIP_VISION, (), lambda _: (vision_weights(), {})),
    WorldFile(SAA, (carried.SAA,), _wide_saa),
    WorldFile(IMR, (carried.IMR,), lambda weights: _as_carried(carried.IMR, weights)),
)
NARROW = (
    WorldFile(CLIP_VISION, (), lambda _: (vision_weights(1, NARROW_HIDDEN), {})),
    WorldFile(SAA, (carried.SAA,), lambda weights: _as_carried(carried.SAA, weights)),
    WorldFile(IMR, (carried.IMR,), lambda weights: _as_carried(carried.IMR, weights)),
)


def fill(
    models: Path, weights: Path = carried.WEIGHTS, narrow: bool = False, progress: Progress | None = None
) -> dict[str, Path]:
    """Make what is not there yet; a few seconds. Returns the paths by their place in ``models``.

    ``narrow``: for training and for diffusers, with a pipeline's folder instead of a checkpoint, as far as weights are
    carried; else all is needed. ``progress(name, done, total)`` is called before each file and once at the end.
    Raises DynamicIDError, before anything is written, where weights are missing, or where a file or folder of the same
    name is somebody else's.
    """
    files = [file for file in (NARROW if narrow else WIDE) if not narrow or _carried(file, weights)]
    faces = not narrow or (weights / carried.FACES).is_dir()
    folders = ([FACES] if faces else []) + ([PIPELINE] if narrow else [])
    keys = {file.path: _key(file.sources, weights, narrow) for file in files}
    keys |= {FACES: _key((carried.FACES,), weights, False)} if faces else {}
    keys |= {PIPELINE: _key((carried.UNET, carried.AUTOENCODER), weights, True)} if narrow else {}
    found = {name: _found(models / name) for name in keys}
    missing = [name for name, key in keys.items() if found[name] != key]
    for done, name in enumerate(missing):
        if progress:
            progress(name, done, len(missing))
        if name in folders:
            _make_folder(models / name, name, weights, keys[name])
        else:
            tensors, metadata = next(file for file in files if file.path == name).make(weights)
            write_safetensors(models / name, tensors, {**metadata, "format": "pt", MARK: keys[name]}, sparse=True)
    if progress and missing:
        progress(missing[-1], len(missing), len(missing))
    return {name: models / name for name in keys}


# --- what is there ------------------------------------------------------------------------------------------------

MARK = "drawn_world"  # in a file's metadata, and the name of a file in each folder: what it was made from


def _carried(file: WorldFile, weights: Path) -> bool:
    return all((weights / name).exists() for name in file.sources)


def _key(sources: tuple[str, ...], weights: Path, narrow: bool) -> str:
    """Changes with the weights that a file is made from. Raises DynamicIDError where they are missing."""
    digest = hashlib.sha256(f"{FORMAT} {narrow}".encode())
    for source in sources:
        path = carried.path_of(source, weights)
        for part in carried.pack_files(path) if path.is_dir() else [path]:
            digest.update(part.name.encode() + part.read_bytes())
    return digest.hexdigest()[:16]


def _found(path: Path) -> str | None:
    """What is there was made from; None where nothing is there.

    Raises DynamicIDError for what was not made here, which stays.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    try:
        mark = (path / MARK).read_text("ascii") if path.is_dir() else read_metadata(path).get(MARK)
    except (OSError, ValueError, DynamicIDError):
        mark = None
    if mark is None:
        raise DynamicIDError(f"{path} is not the drawn world's, so it stays. Rename it, or fill another folder.")
    return mark


def _make_folder(folder: Path, name: str, weights: Path, key: str) -> None:
    """Make it beside its place, and put it there when it is complete."""
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        if name == FACES:
            for file in carried.pack_files(carried.path_of(carried.FACES, weights)):
                copy(file, fresh / file.name)
        else:
            pipe = narrow_pipeline(weights)
            pipe.text_encoder.half()  # what it was made in; half the room
            pipe.save_pretrained(fresh)
        write(fresh / MARK, key)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    except OSError as error:
        raise DynamicIDError(f"{folder} could not be written: {error}.") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
