"""Model files for the command line: where they are looked for, and how they are loaded."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..catalogue import DRAWN, ModelFile, is_drawn, model_file
from ..types import DynamicIDError

if TYPE_CHECKING:
    import torch

    from ..faces import FaceDetector
    from ..hosts.diffusers import DynamicID, PhotoEncoder

CHECKPOINT, SAA, IMR, CLIP_VISION, FACE_PACK = map(model_file, ("checkpoint", "saa", "imr", "clip_vision", "face_pack"))


def _patterns(file: ModelFile) -> tuple[str, ...]:
    return tuple(f"{file.folder}/{pattern}" for pattern in file.serves)


# In a models folder laid out as ComfyUI's: option -> patterns, best first.
PLACES = {
    "model": (*_patterns(CHECKPOINT), "diffusers/*/model_index.json"),
    "saa": _patterns(SAA),
    "imr": _patterns(IMR),
    "clip_vision": (*_patterns(CLIP_VISION), f"{CLIP_VISION.folder}/{DRAWN}*"),
}
FETCH = "`python -m dynamicid_core download` fetches them"
WHAT = {
    "model": f"a Stable Diffusion 1.5 model ({CHECKPOINT.what} is what DynamicID was made with): a diffusers folder, "
    f"or a .safetensors file in {CHECKPOINT.folder}/",
    "saa": f"{SAA.what}, {SAA.name} or {SAA.published[0]}, in {SAA.folder}/; {FETCH}",
    "imr": f"{IMR.what}, {IMR.name} or {IMR.published[0]}, in {IMR.folder}/; {FETCH}",
    "clip_vision": f"{CLIP_VISION.name} (the file that IP-Adapter uses) in {CLIP_VISION.folder}/",
}


def add_arguments(parser: argparse.ArgumentParser, pipeline: bool) -> None:
    """Options for model files; ``pipeline``: also those that only generating needs."""
    group = parser.add_argument_group("models", "Looked for in a folder laid out as ComfyUI's models, unless given.")
    group.add_argument(
        "--models", type=Path, metavar="FOLDER",
        help="default: $DYNAMICID_MODELS, else the models folder of ComfyUI at $COMFYUI_PATH, else ./models",
    )  # fmt: skip
    group.add_argument("--saa", metavar="FILE", help=f"{SAA.name} or {SAA.published[0]}")
    group.add_argument("--clip-vision", metavar="PATH", help=f"{CLIP_VISION.what}: a file, or a folder as on the hub")
    group.add_argument(
        "--detector", metavar="PACK", help=f"InsightFace model pack: its name or folder (default: {FACE_PACK.name})"
    )
    if pipeline:
        group.add_argument(
            "--model", metavar="PATH", help="SD1.5 model: a diffusers folder, or a .safetensors or .ckpt file"
        )
        group.add_argument(
            "--config", metavar="FOLDER",
            help="for a single file: a diffusers folder with its configuration and tokenizer (default: from the hub's cache, "
            "fetched there once, a few MB)",
        )  # fmt: skip
        group.add_argument("--imr", metavar="FILE", help=f"{IMR.name} or {IMR.published[0]}, for --expression")
    group.add_argument(
        "--stand-in",
        action="store_true",
        help="the drawn world: small networks that the project brings, and drawn people",
    )
    group.add_argument("--device", metavar="NAME", help="cuda, mps, cpu (default: the best there is)")


@dataclass(frozen=True)
class ModelFiles:
    """Model files by option; None where none was found. Paths are as the user gave them."""

    folder: Path
    model: str | None
    saa: str | None
    imr: str | None
    clip_vision: str | None
    detector: str

    def need(self, name: str) -> str:
        """The path, or an error that says what is missing, where it was looked for and how to get it."""
        path: str | None = getattr(self, name)
        if path is None:
            raise DynamicIDError(
                f"Missing: {WHAT[name]}. Looked in {self.folder.absolute()}; give --models or --{name.replace('_', '-')}, "
                "or try it with --stand-in."
            )
        if not Path(path).exists():
            raise DynamicIDError(f"--{name.replace('_', '-')}: there is no {path}.")
        return path


def models_folder(given: Path | None) -> Path:
    if given is not None:
        if not given.is_dir():
            raise DynamicIDError(f"--models: there is no folder {given}.")
        return given
    if named := os.environ.get("DYNAMICID_MODELS"):
        return Path(named).expanduser()
    if comfyui := os.environ.get("COMFYUI_PATH"):
        return Path(comfyui).expanduser() / "models"
    return Path("models")


def find(options: argparse.Namespace) -> ModelFiles:
    """What is given, else what lies in the models folder."""
    folder = models_folder(options.models)

    def place(name: str) -> str | None:
        if given := getattr(options, name, None):
            return str(given)
        matches = [path for pattern in PLACES[name] for path in sorted(folder.glob(pattern))]
        found = min(matches, key=lambda path: is_drawn(path.name), default=None)  # the first; the drawn world's last
        return None if found is None else str(found.parent if found.name == "model_index.json" else found)

    return ModelFiles(folder, **{name: place(name) for name in PLACES}, detector=options.detector or FACE_PACK.name)


def named(options: argparse.Namespace, photos: bool, faces: bool, expressions: bool) -> dict[str, Any]:
    """Option -> what it names or what was found, of the models that :func:`load_dynamicid` takes."""
    if options.stand_in:
        return {"stand_in": True}
    needed = {"model": True, "saa": True, "imr": expressions, "clip_vision": photos, "detector": faces}
    files = find(options)
    return {name: getattr(files, name) for name, is_needed in needed.items() if is_needed and getattr(files, name)}


def device_of(options: argparse.Namespace) -> torch.device:
    """The device asked for, else the best there is."""
    import torch

    try:
        if options.device:
            torch.empty(0, device=options.device)
            return torch.device(options.device)
    except (RuntimeError, AssertionError) as error:
        raise DynamicIDError(f"--device {options.device} cannot be used here ({str(error).splitlines()[0]}).") from None
    best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return best or torch.device("cpu")


def need_packages() -> None:
    """Raise DynamicIDError if the extra packages are missing."""
    import importlib.util

    missing = [name for name in ("diffusers", "transformers", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise DynamicIDError(
            f"This command needs the Python package(s) {', '.join(missing)}. "
            'Install them with: python -m pip install "comfyui-dynamicid[diffusers]"'
        )


def load_detector(files: ModelFiles) -> FaceDetector:
    """The face detector; the packs' folder of a ComfyUI is searched too."""
    from ..detection import load_detector

    return load_detector(files.detector, [files.folder / "insightface"])


def stand_ins() -> ModuleType:
    """What ``--stand-in`` takes instead of model files: the drawn world's networks on diffusers (``drawn.pipeline``)."""
    from ..drawn import pipeline

    return pipeline


def load_photo_encoder(options: argparse.Namespace) -> PhotoEncoder:
    """What turns photos into faces."""
    need_packages()
    from ..checkpoints import load_saa
    from ..hosts.diffusers import PhotoEncoder, load_clip_vision

    device = device_of(options)
    if options.stand_in:
        world = stand_ins()
        note_stand_in()
        return PhotoEncoder(world.saa(), world.clip_vision(), world.detector())
    files = find(options)
    saa, detector = load_saa(files.need("saa")), load_detector(files)
    return PhotoEncoder(saa, load_clip_vision(files.need("clip_vision")), detector, lambda: device)


def note_stand_in() -> None:
    print(
        "The drawn world: small networks that know drawn people; faces in photos mean nothing to them.", file=sys.stderr
    )


def load_pipeline(
    files: ModelFiles, config: str | None, device: torch.device, offload: bool = False, dtype: torch.dtype | None = None
) -> Any:
    """The diffusers pipeline from text to a picture, of whatever family the model is.

    In half precision on an accelerator, in float32 on the CPU, unless ``dtype`` says otherwise; ``offload``: only what is at work stays there.
    """
    import torch

    path = files.need("model")
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.float16)
    try:
        if Path(path).is_dir():
            pipe = _pipeline_class(Path(path)).from_pretrained(path, local_files_only=True, **_options(path, dtype))
        else:
            source = {"config": config} if config else {}
            pipe = _pipeline_class(Path(path)).from_single_file(path, **source, **_options(path, dtype))
    except Exception as error:  # diffusers' own kinds, those of the hub and of the file readers
        hint = "" if config or Path(path).is_dir() else (
            " A single file needs its configuration and tokenizer from the hub (those of its base model, such as "
            "stable-diffusion-v1-5): go online once, or give --config with a diffusers folder of such a model."
        )  # fmt: skip
        raise DynamicIDError(
            f"The model {path} cannot be loaded ({str(error).strip().splitlines()[0]}).{hint}"
        ) from error
    if offload and device.type != "cpu":
        pipe.enable_model_cpu_offload(device=device)
        return pipe
    return pipe.to(device)


def _is_xl(path: str | Path) -> bool:
    """Whether a model is of SDXL's kind: two text encoders."""
    if Path(path).is_dir():
        return (Path(path) / "text_encoder_2").is_dir()
    from ..files import tensor_names

    return any(name.startswith("conditioner.embedders.1.") for name in tensor_names(path))


def _pipeline_class(path: Path) -> Any:
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    return StableDiffusionXLPipeline if _is_xl(path) else StableDiffusionPipeline


def _options(path: str, dtype: torch.dtype) -> dict[str, Any]:
    checker = {} if _is_xl(path) else {"safety_checker": None, "requires_safety_checker": False}
    return {"torch_dtype": dtype, **checker}


def load_dynamicid(options: argparse.Namespace, photos: bool, faces: bool, expressions: bool) -> DynamicID:
    """DynamicID on a pipeline, with what is needed: ``photos`` to encode, ``faces`` to find, ``expressions`` to edit."""
    need_packages()
    if options.stand_in:
        world = stand_ins()
        note_stand_in()
        made: DynamicID = world.drawn_dynamicid()
        return made
    from ..checkpoints import load_motion, load_saa
    from ..hosts.diffusers import DynamicID, load_clip_vision

    files = find(options)
    # What is missing shall be said before gigabytes are read.
    for name in ("model", "saa", *(["imr"] if expressions else []), *(["clip_vision"] if photos else [])):
        files.need(name)
    detector = load_detector(files) if faces else None
    pipe = load_pipeline(files, options.config, device_of(options), options.offload)
    return DynamicID(
        pipe,
        load_saa(files.need("saa")),
        load_motion(files.need("imr")) if expressions else None,
        clip_vision=load_clip_vision(files.need("clip_vision")) if photos else None,
        detector=detector,
    )
