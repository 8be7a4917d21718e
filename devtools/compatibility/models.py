"""A models folder for the matrix: the drawn world's files, and stand-ins of what other packs need besides them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from standins import dynamicid, neighbours
from standins.weights import MARK, Weights, read_metadata, tensors, write
from torch import Tensor

from dynamicid_core.checkpoints import load_saa
from dynamicid_core.drawn import vision, world
from dynamicid_core.drawn.make import portrait, posed
from dynamicid_core.drawn.people import HELD_OUT
from dynamicid_core.face_files import save_face
from dynamicid_core.files import read_tensors
from dynamicid_core.saving import write_safetensors

# What is made for each base, and where: a folder of the host's, and what describes it, given the base's checkpoint.
COMPANIONS: dict[str, tuple[str, Callable[[Mapping[str, Tensor]], Weights]]] = {
    "lora": ("loras", neighbours.lora),
    "controlnet": ("controlnet", neighbours.controlnet),
    "ip_adapter_plus": ("ipadapter", lambda checkpoint: neighbours.ip_adapter(checkpoint, vision.WIDTH)),
}
MOTION = "animatediff_models/stand_in_motion_module.safetensors"
SEED = 0
PEOPLE = (0, 1)  # of the drawn ones that nothing was trained on
PHOTO = 256  # px
MADE = {"dynamicid": MARK, "format": "pt", "for": "compatibility 1"}  # raise the number when the same code makes others


@dataclass(frozen=True)
class Base:
    """A base model beside the drawn world's: a UNet with random weights and the DynamicID weights for it.

    ``widths`` and ``sites``: of its cross attentions (origins.Origin); ``make``: its weights."""

    name: str
    about: str
    widths: tuple[int, ...]
    sites: tuple[str, ...]
    make: Callable[[], Weights]

    @property
    def unet(self) -> str:
        return f"diffusion_models/stand_in_{self.name}_unet.safetensors"

    @property
    def saa(self) -> str:
        return f"dynamicid/stand_in_{self.name}_saa.safetensors"


SMALL = Base(
    "small", "a base of two levels with random weights", (320, 320, 320, 640),
    ("down.0.0", "up.0.0", "up.1.0", "middle.0.0"), neighbours.small_unet,
)  # fmt: skip
FULL = Base(
    "full", "a base of SD1.5's size with random weights", dynamicid.PUBLISHED_WIDTHS,
    (*(f"down.{n}.0" for n in range(6)), *(f"up.{n}.0" for n in range(9)), "middle.0.0"), neighbours.full_unet,
)  # fmt: skip


def companion(kind: str, base: Base | None) -> str:
    """Where what is made for a base lies in the models folder; None: the drawn world's."""
    return f"{COMPANIONS[kind][0]}/stand_in_{base.name if base else 'drawn'}_{kind}.safetensors"


def fill(models: Path, bases: Sequence[Base]) -> None:
    """Make what is not there yet. With ``FULL`` among the bases, also a motion module; 3 GB."""
    world.fill(models)
    for base in (None, *bases):
        if base and not (models / base.saa).exists():
            _write_saa(models, base)
        if base:
            _write(models / base.unet, base.make)
        if base is FULL:  # for other packs' motion modules alone
            _write(models / MOTION, neighbours.motion_module)
            continue
        for kind, (_, describe) in COMPANIONS.items():
            _write(models / companion(kind, base), lambda d=describe, b=base: d(_checkpoint(models, b)))


def _write(path: Path, describe: Callable[[], Weights]) -> None:
    if read_metadata(path) != MADE:
        print(f"Making {path.name} ...", flush=True)
        write(path, describe(), SEED, MADE)


def _checkpoint(models: Path, base: Base | None) -> dict[str, Tensor]:
    """A base's UNet under the names that checkpoints have for it."""
    if base is None:
        return read_tensors(models / world.CHECKPOINT)
    return {neighbours.PREFIX + name: tensor for name, tensor in read_tensors(models / base.unet).items()}


def face_file(person: int) -> str:
    """Name of the file with the face of a drawn person, in the host's input folder."""
    return f"person{person}.safetensors"


def write_faces(folder: Path) -> Path:
    """Face files of the drawn people of the scenes, by the library: the narrow world makes the same faces, faster."""
    missing = [person for person in PEOPLE if not (folder / face_file(person)).exists()]
    if missing:
        from dynamicid_core.drawn.pipeline import clip_vision, detector, saa
        from dynamicid_core.hosts.diffusers import PhotoEncoder

        encoder = PhotoEncoder(saa(), clip_vision(), detector())
        for person in missing:
            photo = portrait(HELD_OUT + person, posed("neutral", "front view"), PHOTO)
            save_face(folder / face_file(person), encoder.encode(photo, crop_factor=world.CROP_FACTOR).face)
    return folder


def _write_saa(models: Path, base: Base) -> None:
    """DynamicID weights for a base: attention sites with random weights, and the drawn world's face encoder, so that all
    bases take the same faces."""
    drawn, text_widths = models / world.SAA, (neighbours.TEXT_WIDTH,) * len(base.widths)
    origin = replace(load_saa(drawn).origin, base="", widths=base.widths, text_widths=text_widths, sites=base.sites)
    sites = {name: weight for name, weight in dynamicid.saa(base.widths).items() if name.startswith("SAA_module.")}
    encoder = {name: tensor for name, tensor in read_tensors(drawn).items() if name.startswith("proj_module.")}
    write_safetensors(models / base.saa, {**encoder, **tensors(sites, SEED)}, {**origin.to_metadata(), **MADE})
