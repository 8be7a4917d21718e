"""What makes a picture: everything that ``generate`` needs to make it again, as JSON in the PNG's metadata.

Photos, face files and masks are not stored, only their paths, as they were given, and checksums to notice changes. What is
read back may be anybody's: each value has its type and range here, and :mod:`remembered` says what is taken up.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..evaluation.cases import parse_box
from ..faces import ON_NO_FACE, ORDERS
from ..motion import MAX_STRENGTH
from ..pictures import opened
from ..plain import build, one_line, parse_json
from ..types import DynamicIDError, SAAOptions, check_range

if TYPE_CHECKING:
    from PIL.Image import Image

PNG_KEY = "dynamicid"
VERSION = 1
MODEL_OPTIONS = ("models", "model", "config", "saa", "imr", "clip_vision", "detector")  # of the command line
MOST_FACES = 999  # in a photo that anybody numbers
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {  # as typed -> diffusers' class and its settings
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm++ 2m": ("DPMSolverMultistepScheduler", {}),
    "dpm++ 2m karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
}


@dataclass(frozen=True)
class PersonSettings:
    """One person: photos or a face file, and where and how they appear."""

    files: tuple[str, ...]
    box: tuple[float, float, float, float] | None = None  # left, top, right, bottom: fractions of the picture
    mask: str | None = None  # a picture, white where the person may be
    weight: float = 1.0
    name: str = ""
    index: int | None = None  # which face of the photos
    expression: str = ""
    expression_strength: float = 1.0
    pose_image: str | None = None
    expression_source: str = ""  # what the person's own photo shows; "": read off it

    def __post_init__(self) -> None:
        if not self.files or not all(self.files):
            raise DynamicIDError("A person has no photo; name at least one.")
        parse_box(self.box)
        check_range(self.weight, "--weight", -10.0, 10.0)
        check_range(self.expression_strength, "--expression-strength", 0.0, MAX_STRENGTH)
        check_range(self.index or 0, "--face-index", 0, MOST_FACES)

    @property
    def paths(self) -> list[str]:
        """Every file that is read for this person."""
        return [*self.files, *(path for path in (self.mask, self.pose_image) if path)]


@dataclass(frozen=True)
class Settings:
    """All settings of a picture. The defaults are the published ones (docs/method.md, section 3)."""

    prompt: str = "two people in a park, photo"
    negative: str = ""
    people: tuple[PersonSettings, ...] = ()
    width: int = 768
    height: int = 768
    steps: int = 50
    cfg: float = 5.0
    seed: int = 0
    sampler: str = "ddim"
    photos: dict[str, Any] = field(default_factory=dict)  # order, index, crop_factor, on_no_face where not the defaults
    options: SAAOptions = field(default_factory=SAAOptions)
    models: dict[str, Any] = field(default_factory=dict)  # options of the command line that name model files
    checksums: dict[str, str] = field(default_factory=dict)  # path -> sha256 of people's files

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            if getattr(self, name) % 8 or not 64 <= getattr(self, name) <= 8192:
                raise DynamicIDError(f"--size: {name} {getattr(self, name)} must be a multiple of 8 from 64 to 8192.")
        if not 1 <= self.steps <= 1000:
            raise DynamicIDError(f"--steps {self.steps} must lie between 1 and 1000.")
        if not 1 <= self.cfg <= 100:
            raise DynamicIDError(f"--cfg {self.cfg:g} must lie between 1 (no guidance) and 100.")
        if self.sampler not in SAMPLERS:
            raise DynamicIDError(f"--sampler {self.sampler!r} is unknown; choose one of {', '.join(SAMPLERS)}.")
        _check_photos(self.photos)
        _check_models(self.models)

    def to_json(self) -> str:
        return json.dumps({"version": VERSION, **dataclasses.asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Raises DynamicIDError for anything that :meth:`to_json` of this version did not write."""
        try:
            values = parse_json(text)
            version = values.pop("version", None) if isinstance(values, dict) else None
            if type(version) is not int or version != VERSION:
                raise DynamicIDError("they were written by another version of DynamicID, or by something else")
            settings: Settings = build(cls, values, "")
            return settings
        except DynamicIDError as error:
            raise DynamicIDError(f"The picture's settings cannot be read ({str(error).rstrip('.')}).") from error


def _check_models(models: Mapping[str, Any]) -> None:
    """Raise DynamicIDError for what names no model file."""
    if unknown := sorted(models.keys() - {*MODEL_OPTIONS, "stand_in"}):
        raise DynamicIDError(f"{one_line(unknown[0], 40)!r} names no model.")
    for name, value in models.items():
        build(bool if name == "stand_in" else str, value, name)


def _check_photos(how: Mapping[str, Any]) -> None:
    """Raise DynamicIDError for what is no argument of :func:`encode.encode_photos`, and for values that it does not take."""
    if unknown := sorted(how.keys() - {"order", "index", "crop_factor", "on_no_face"}):
        raise DynamicIDError(f"{one_line(unknown[0], 40)!r} says nothing of photos.")
    for name, choices in (("order", ORDERS), ("on_no_face", ON_NO_FACE)):
        if name in how and how[name] not in choices:
            raise DynamicIDError(f"--{name.replace('_', '-')} is none of {', '.join(choices)}.")
    index, factor = build(int, how.get("index", 0), "index"), build(float, how.get("crop_factor", 0.0), "crop_factor")
    check_range(index, "--index", 0, MOST_FACES)
    check_range(factor, "--crop-factor", 0.0, 100.0)


def checksum(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def read_png(path: Path) -> Settings:
    """The settings of a picture that ``generate`` made, as they are written there; nothing that they name is looked for."""
    try:
        with opened(path, "picture", "It is damaged, or no PNG of `generate`.") as image:
            text = image.info.get(PNG_KEY)
    except DynamicIDError as error:
        raise DynamicIDError(f"--from: {error}") from error
    if text is None:
        raise DynamicIDError(
            f"--from: {path} holds no DynamicID settings. It was not made by `generate`, or something that saved it again "
            "dropped them."
        )
    return Settings.from_json(text)


def write_png(path: Path, picture: Image, settings: Settings) -> Path:
    """Raises DynamicIDError if it cannot be saved there."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt(PNG_KEY, settings.to_json())  # as text, but for any language
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, format="PNG", pnginfo=info)
    except OSError as error:
        raise DynamicIDError(f"The picture cannot be saved ({error}). Give another place with --output.") from error
    return path
