"""What makes a picture: everything that ``generate`` needs to make it again, as JSON in the PNG's metadata.

Photos, face files and masks are not stored, only their paths, as they were given, and checksums to notice changes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..refining import RefineOptions
from ..types import DynamicIDError, SAAOptions

if TYPE_CHECKING:
    from PIL.Image import Image

PNG_KEY = "dynamicid"
VERSION = 1
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

    @property
    def paths(self) -> list[str]:
        """Every file that is read for this person."""
        return [*self.files, *(path for path in (self.mask, self.pose_image) if path)]


@dataclass(frozen=True)
class RefineSettings:
    """A second pass over the faces; its seed is the picture's."""

    prompt: str = ""  # of one face; "": the picture's
    steps: int = 20  # that are taken for each face
    options: RefineOptions = field(default_factory=RefineOptions)

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 1000:
            raise DynamicIDError(f"--refine-steps {self.steps} must lie between 1 and 1000.")


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
    picture: str | None = None  # that is refined in place of a new one
    refine: RefineSettings | None = None  # None: no second pass
    models: dict[str, Any] = field(default_factory=dict)  # options of the command line that name model files
    checksums: dict[str, str] = field(default_factory=dict)  # path -> sha256 of the picture and of people's files

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

    @property
    def paths(self) -> list[str]:
        """Every file that is read for the picture, but for model files."""
        return [*([self.picture] if self.picture else []), *(path for person in self.people for path in person.paths)]

    def to_json(self) -> str:
        return json.dumps({"version": VERSION, **dataclasses.asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Raises DynamicIDError for anything that :meth:`to_json` of this version did not write."""
        try:
            values = json.loads(text)
            if values.pop("version") != VERSION:
                raise DynamicIDError("its settings were written by another version of DynamicID")
            values["options"] = SAAOptions(**values["options"])
            if refine := values.get("refine"):
                values["refine"] = RefineSettings(**{**refine, "options": RefineOptions(**refine["options"])})
            values["people"] = tuple(
                PersonSettings(**{**p, "files": tuple(p["files"]), "box": p["box"] and tuple(p["box"])})
                for p in values["people"]
            )
            return cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DynamicIDError(f"The picture's settings cannot be read ({error}).") from error


def checksum(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def read_png(path: Path) -> Settings:
    """The settings of a picture that ``generate`` made."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            text = image.info.get(PNG_KEY)
    except (OSError, SyntaxError) as error:
        raise DynamicIDError(f"--from: {path} cannot be read as a picture ({error}).") from error
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
