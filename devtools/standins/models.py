"""All stand-in model files, laid out like a ComfyUI ``models`` folder."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dynamicid_core.catalogue import model_file
from dynamicid_core.types import DynamicIDError

from . import clip, dynamicid, sd15
from .weights import MARK, Weights, read_metadata, write

# Paths in the models folder, and what makes the weights.
FILES: dict[str, Callable[..., Weights]] = {
    model_file("checkpoint").path: sd15.checkpoint,
    model_file("vae").path: sd15.vae,
    model_file("clip_vision").path: clip.vision_encoder,
    model_file("saa").path: dynamicid.saa,
    model_file("imr").path: dynamicid.imr,
}
DETECTOR = model_file("face_pack").path  # a folder: InsightFace takes every .onnx file in it
DETECTOR_MARK = "stand-in.json"  # lies in that folder, since ONNX files come without safetensors' metadata


def make_models(
    models_dir: Path | str,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
    decoder_width: int = sd15.DECODER_WIDTH,
) -> dict[str, Path]:
    """Make every stand-in that is not there yet (about 300 MB, 3 seconds); what is there and complete stays.

    ``decoder_width``: of the autoencoder (:func:`decoder_width_for`).
    ``progress(name, done, total)`` is called before each file and once at the end. Returns the paths by their place in
    ``models_dir``: those of `FILES`, and `DETECTOR`, the folder of the face detector's models. Raises `DynamicIDError`
    before writing anything if a file that is no stand-in bears one of the names: real weights are never overwritten.
    """
    root = Path(models_dir)
    paths = {name: root / name for name in (*FILES, DETECTOR)}
    for path in paths.values():
        if _is_real(path):
            raise DynamicIDError(f"{path} is not a stand-in, so it stays. Give another folder for the stand-in models.")
    mark = {"dynamicid": MARK, "seed": str(seed), "sources": f"{sources_key()}-{decoder_width}"}
    for done, (name, path) in enumerate(paths.items()):
        if progress:
            progress(name, done, len(paths))
        if name == DETECTOR:
            _make_detector(path, seed, mark)
        elif read_metadata(path) != mark:
            describe = FILES[name]
            decoded = describe in (sd15.checkpoint, sd15.vae)
            write(path, describe(decoder_width) if decoded else describe(), seed, mark)
    if progress:
        progress(DETECTOR, len(paths), len(paths))
    return paths


def decoder_width_for(comfyui: Path) -> int:
    """The width of the autoencoder's decoder that a ComfyUI loads: before 0.19 the real one's alone."""
    from comfyui.finding import older, version_of

    return sd15.REAL_DECODER_WIDTH if older(version_of(comfyui), "0.19") else sd15.DECODER_WIDTH


def cached_models(decoder_width: int = sd15.DECODER_WIDTH) -> Path:
    """A models folder that is made once for each state of the sources, in ``DYNAMICID_STANDINS`` or the temporary folder.

    What is in it must not be changed. Those of older sources go when they have not been asked for in an hour.
    """
    named = os.environ.get("DYNAMICID_STANDINS")
    prefix = f"dynamicid-stand-ins-{getpass.getuser()}-"
    folder = Path(named) if named else Path(tempfile.gettempdir()) / f"{prefix}{sources_key()}-{decoder_width}"
    make_models(folder, decoder_width=decoder_width)
    if not named:
        for old in folder.parent.glob(f"{prefix}*"):
            if old != folder and time.time() - old.stat().st_mtime > 3600:  # runs under way have links of their own
                shutil.rmtree(old, ignore_errors=True)
        os.utime(folder)
    return folder


def is_stand_in(path: Path | str) -> bool:
    """True for a complete stand-in: a safetensors file written here, or the detector's folder or a file in it."""
    path = Path(path)
    if path.suffix == ".safetensors":
        return (read_metadata(path) or {}).get("dynamicid") == MARK
    return path.exists() and _detector_mark(path if path.is_dir() else path.parent).get("dynamicid") == MARK


def sources_key() -> str:
    """Changes whenever the code that makes the stand-ins does, so that old files are made anew."""
    digest = hashlib.sha256()
    for module in ("weights", "sd15", "clip", "dynamicid", "detector", "face_shape", "models"):
        digest.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    return digest.hexdigest()[:16]


def _make_detector(folder: Path, seed: int, mark: dict[str, str]) -> None:
    """Write the face detector's models beside ``folder`` and put them in its place when they are complete."""
    from .detector import write_detector_pack

    if _detector_mark(folder) == mark:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".part-") as temporary:
        made = Path(temporary) / folder.name
        write_detector_pack(made, seed=seed)
        (made / DETECTOR_MARK).write_text(json.dumps(mark), encoding="ascii")
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        made.rename(folder)


def _detector_mark(folder: Path) -> dict[str, str]:
    try:
        return json.loads((folder / DETECTOR_MARK).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return {}


def _is_real(path: Path) -> bool:
    """True for weights that were not made here. A stand-in that was cut short is none: its header bears the mark."""
    if path.is_dir():
        return any(path.iterdir()) and not _detector_mark(path)
    if not path.exists():
        return False
    with path.open("rb") as file:
        return f'"dynamicid": "{MARK}"'.encode() not in file.read(4096)
