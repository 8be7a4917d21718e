"""A second pass over the faces of a picture, for ``generate``: what is typed, and the work."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

from ..refining import WHICH, RefineOptions
from ..types import Cast
from . import world
from .settings import RefineSettings, Settings

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..hosts.diffusers import DynamicID
    from ..refining import RefinedPicture

OPTION_HELP = {
    "which": "whose faces: all of the people, only small ones, or only those that are unlike",
    "below": "unlike: a similarity below this",
    "small": "small: faces of less than so many px",
    "size": "px of the square in which a face is sampled",
    "crop_factor": "how much is cut out, in sizes of the face",
    "padding": "how far around a face new fades into old, in sizes of the face",
    "denoise": "how much changes",
    "tries": "seeds for each face, of which the best is kept",
    "mend": "also sample again, in place, who is missing and what shows somebody twice",
    "mend_denoise": "how much changes there",
}
PLAIN = ("mend", "mend_denoise")  # whose names say enough without "refine" before them
FIELDS = tuple(
    field.name for field in dataclasses.fields(RefineOptions) if field.name != "seed"
)  # which is the picture's
# What a command has set that makes pictures without these options.
UNASKED = dict.fromkeys(("refine", "picture", "refine_prompt", "refine_steps", *(f"refine_{name}" for name in FIELDS)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "second pass", "Faces are sampled again, each enlarged and with its person alone."
    )
    group.add_argument(
        "--refine",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="make that pass, as any option of it does; or not, with --from a picture that had one",
    )
    group.add_argument("--picture", metavar="FILE", help="refine this picture, of any origin, in place of a new one")
    group.add_argument("--refine-prompt", metavar="TEXT", help="what shows one face (default: the picture's prompt)")
    group.add_argument(
        "--refine-steps", type=int, metavar="N", help=f"for each face (default: {RefineSettings().steps})"
    )
    for name in FIELDS:
        default = getattr(RefineOptions(), name)
        kind: dict[str, Any] = {"type": type(default), "metavar": "X"}
        if name == "which":
            kind = {"choices": WHICH}
        elif name == "mend":
            kind = {"action": "store_true", "default": None}
        flag = f"--{'' if name in PLAIN else 'refine-'}{name.replace('_', '-')}"
        text = OPTION_HELP[name] + ("" if name == "mend" else f" (default: {default})")
        group.add_argument(flag, dest=f"refine_{name}", help=text, **kind)


def settings_of(options: argparse.Namespace, base: RefineSettings | None) -> RefineSettings | None:
    """What is typed, over what a picture remembers; None: no second pass."""
    if options.refine is False:
        return None
    typed = {name: value for name in FIELDS if (value := getattr(options, f"refine_{name}")) is not None}
    named = {"prompt": options.refine_prompt, "steps": options.refine_steps}
    named = {name: value for name, value in named.items() if value is not None}
    if base is None:
        if not (options.refine or options.picture or typed or named):
            return None
        base = world.refine_defaults() if options.stand_in else RefineSettings()
    return dataclasses.replace(base, options=dataclasses.replace(base.options, **typed), **named)


def given_picture(settings: Settings, stand_in: bool) -> Image:
    """The picture that is refined in place of a new one. Raises DynamicIDError if it cannot be read."""
    from PIL import Image

    from ..pictures import to_rgb

    assert settings.picture is not None
    picture = Image.fromarray(to_rgb(settings.picture))
    return world.reduced(picture) if stand_in else picture


def refined(did: DynamicID, picture: Image, cast: Cast, settings: Settings, progress: bool) -> RefinedPicture:
    """The picture after the second pass, by the pipeline's scheduler as it stands."""
    how = settings.refine
    assert how is not None
    did.pipe.set_progress_bar_config(disable=not progress, desc="refining", file=sys.stderr)
    return did.refine(
        picture,
        cast,
        how.prompt or settings.prompt,
        dataclasses.replace(how.options, seed=settings.seed),
        negative_prompt=settings.negative,
        steps=how.steps,
        guidance_scale=settings.cfg,
        options=settings.options,
        watch=(lambda text: print(text, file=sys.stderr)) if progress else lambda text: None,
    )
