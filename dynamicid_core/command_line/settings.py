"""What makes a picture: everything that ``generate`` needs to make it again, as JSON in the PNG's metadata.

Pictures are passed on. So photos, face files, masks and models are not stored but named, without their folders. What is read
back may be anybody's: each value has its type and range here, and :mod:`remembered` says what is taken up.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..animation import AnimationOptions
from ..evaluation.cases import parse_box
from ..faces import ON_NO_FACE, ORDERS
from ..keyframes import parse_keyframes
from ..motion import check_strength
from ..pictures import check_crop_factor, opened
from ..plain import build, one_line, parse_json
from ..refining import RefineOptions
from ..saving import PICTURE, SETTINGS_KEY, settings_in, write_film, write_picture
from ..types import MOST_FRAMES, DynamicIDError, SAAOptions, check_range
from ..writing import AnyPath

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 1
MODELS = ("model", "saa", "imr", "clip_vision", "detector", "stand_in")  # options whose values a picture tells
ONCE_TOLD = ("models", "config")  # ... and of those, which older pictures told too
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
    keyframes: str = ""  # what the face shows in which picture of a film
    driving: tuple[str, ...] = ()  # pictures whose motion it takes, one after another
    easing: str = AnimationOptions().easing
    smoothing: float = AnimationOptions().smoothing

    def __post_init__(self) -> None:
        if not self.files or not all(self.files):
            raise DynamicIDError("A person has no photo; name at least one.")
        if "" in (self.mask, self.pose_image, *self.driving):
            raise DynamicIDError(
                "A person's mask, pose image or driving picture has no name; name a file, or leave it out."
            )
        parse_box(self.box)
        check_range(self.weight, "--weight", -10.0, 10.0)
        check_strength(self.expression_strength)
        if self.keyframes:
            parse_keyframes(self.keyframes)
        if self.moves and (self.expression or self.pose_image):
            raise DynamicIDError(
                "A person has --keyframes or --driving besides --expression or --pose-image; give one kind."
            )
        check_range(self.index or 0, "--face-index", 0, MOST_FACES)

        self.animation(0)

    @property
    def moves(self) -> bool:
        """Whether the face is another one in every picture of a film."""
        return bool(self.keyframes or self.driving)

    def animation(self, frames: int) -> AnimationOptions:
        """How the face moves in a film of so many pictures; 0: as many as its own motion has."""
        return AnimationOptions(frames, self.easing, self.smoothing, self.expression_strength)

    @property
    def paths(self) -> list[str]:
        """Every file that is read for this person."""
        return [*self.files, *(path for path in (self.mask, self.pose_image, *self.driving) if path)]

    def with_files(self, change: Callable[[str], str]) -> PersonSettings:
        """The same with other paths of all files."""
        files, driving = tuple(map(change, self.files)), tuple(map(change, self.driving))
        mask, pose = (path and change(path) for path in (self.mask, self.pose_image))
        return dataclasses.replace(self, files=files, mask=mask, pose_image=pose, driving=driving)


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
    frames: int = 0  # pictures of a film; 0: as many as the face that moves longest has, or one picture
    fps: float = 8.0  # of a film
    models: dict[str, Any] = field(default_factory=dict)  # option of the command line -> the model file that is used

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            if getattr(self, name) % 8 or not 64 <= getattr(self, name) <= 8192:
                raise DynamicIDError(f"--size: {name} {getattr(self, name)} must be a multiple of 8 from 64 to 8192.")
        if not -(2**63) <= self.seed < 2**64:
            raise DynamicIDError(f"--seed {self.seed} is too large; it may have 64 bits.")
        if not 1 <= self.steps <= 1000:
            raise DynamicIDError(f"--steps {self.steps} must lie between 1 and 1000.")
        if not 1 <= self.cfg <= 100:
            raise DynamicIDError(f"--cfg {self.cfg:g} must lie between 1 (no guidance) and 100.")
        if self.sampler not in SAMPLERS:
            raise DynamicIDError(f"--sampler {self.sampler!r} is unknown; choose one of {', '.join(SAMPLERS)}.")
        if self.picture == "":
            raise DynamicIDError("The picture that is refined has no name; name a file, or leave it out.")
        if self.picture and self.refine is None:
            raise DynamicIDError("A picture that is given is there to be refined; leave out --no-refine.")
        check_range(self.frames, "--frames", 0, MOST_FRAMES)
        check_range(self.fps, "--fps", 0.1, 240)
        if self.picture and (self.frames or any(person.moves for person in self.people)):
            raise DynamicIDError(
                "A picture that is given is one picture; leave out --frames, --keyframes and --driving."
            )
        _check_photos(self.photos)
        _check_models(self.models)

    def shared(self) -> Settings:
        """As a picture carries them: files by their names alone."""
        models = {option: self.models[option] for option in MODELS if option in self.models}
        models = {option: bare(file) if isinstance(file, str) else file for option, file in models.items()}
        return dataclasses.replace(self.with_files(_names(self.paths).__getitem__), models=models)

    def with_files(self, change: Callable[[str], str]) -> Settings:
        """The same with other paths of :attr:`paths`."""
        people = tuple(person.with_files(change) for person in self.people)
        return dataclasses.replace(self, people=people, picture=self.picture and change(self.picture))

    @property
    def paths(self) -> list[str]:
        """Every file that is read for the picture, but for model files."""
        return [*([self.picture] if self.picture else []), *(path for person in self.people for path in person.paths)]

    def to_json(self) -> str:
        """As text, :meth:`shared`."""
        return json.dumps({"version": VERSION, **dataclasses.asdict(self.shared())}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """:meth:`shared`, whoever wrote them. Raises DynamicIDError for anything that :meth:`to_json` did not write."""
        try:
            values = parse_json(text)
            version = values.pop("version", None) if isinstance(values, dict) else None
            if type(version) is not int or version != VERSION:
                raise DynamicIDError("they were written by another version of DynamicID, or by something else")
            # Of people's files, which pictures held until they were to say less.
            build(dict[str, str], values.pop("checksums", {}), "checksums")
            settings: Settings = build(cls, values, "")
            return settings.shared()
        except DynamicIDError as error:
            raise DynamicIDError(f"The picture's settings cannot be read ({str(error).rstrip('.')}).") from error


def bare(path: str) -> str:
    """The name at the end of a path, of any system."""
    return re.split(r"[\\/]", path)[-1].replace("\0", "")


def _names(paths: Iterable[str]) -> dict[str, str]:
    """Path -> its name; where several files have one, a text that names none: none is taken for another later."""
    of_name: dict[str, list[str]] = {}
    for path in dict.fromkeys(paths):
        of_name.setdefault(bare(path), []).append(path)
    return {
        path: name if len(same) == 1 else f"{name} ({number} of {len(same)})"
        for name, same in of_name.items()
        for number, path in enumerate(same, 1)
    }


def _check_models(models: Mapping[str, Any]) -> None:
    """Raise DynamicIDError for what names no model file."""
    if unknown := sorted(models.keys() - {*MODELS, *ONCE_TOLD}):
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
    check_crop_factor(factor)


def need_file(path: str, what: str) -> None:
    """Raise DynamicIDError unless it is a file, as what names it: a photo, a mask."""
    if os.path.isdir(path):
        raise DynamicIDError(f"{path} is a folder; name a {what} in it.")
    if not os.path.exists(path):
        raise DynamicIDError(f"There is no {what} {path}. Check the name and the folder.")


def read_png(path: Path) -> Settings:
    """The settings of a picture that ``generate`` made, as written there; nothing that they name is looked for."""
    try:
        with opened(path, "picture", "It is damaged, or no PNG of `generate`.") as image:
            text = image.info[SETTINGS_KEY] if SETTINGS_KEY in image.info else settings_in(image)
    except DynamicIDError as error:
        raise DynamicIDError(f"--from: {error}") from error
    if text is None:
        raise DynamicIDError(
            f"--from: {path} holds no DynamicID settings. It was not made by `generate`, or something that saved it again "
            "dropped them."
        )
    return Settings.from_json(text)


def write_png(path: Path, picture: Image, settings: Settings | None, inputs: Iterable[AnyPath] = ()) -> Path:
    """The picture with its settings, or without any metadata. Raises DynamicIDError if it cannot be saved there."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if settings is not None:
        info.add_itxt(SETTINGS_KEY, settings.to_json())  # as text, but for any language
    return write_picture(path, picture, PICTURE, inputs, form="PNG", pnginfo=info)


def write_webp(
    path: Path, pictures: Sequence[Image], settings: Settings, told: bool, inputs: Iterable[AnyPath] = ()
) -> Path:
    """A film, with its settings where they are ``told``. Raises DynamicIDError if it cannot be saved there."""
    ascii_only = json.dumps(json.loads(settings.to_json())) if told else None
    return write_film(path, pictures, settings.fps, ascii_only, inputs)
