"""What ``--stand-in`` sets where nothing is typed: pictures as the drawn world makes them, and two of its people."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..prompts import preset_prompt
from ..saving import write_picture
from .settings import PersonSettings, RefineSettings

if TYPE_CHECKING:
    from PIL.Image import Image

HEIGHT = 128  # px; as wide as it is high for one person
PHOTO = 256  # px of a drawn portrait
SHOWN = ("happy", "surprised")  # who is shown where nobody is given: held-out people, with these expressions
LARGE = 512  # px: pictures are enlarged to about this height, so that people see something
NUMBERS = ("no people", "one person", "two people", "three people", "four people")


def width_for(people: int) -> int:
    """Pixels: as the training pictures of so many people were."""
    return HEIGHT if people < 2 else HEIGHT * 3 // 2 if people == 2 else HEIGHT * 2


def photo_defaults() -> dict[str, Any]:
    """How photos are read, as :func:`encode.encode_photos` takes it: as those that the world was trained on."""
    from ..drawn.world import CROP_FACTOR

    return {"crop_factor": CROP_FACTOR}


def defaults(people: int) -> dict[str, Any]:
    """Fields of :class:`settings.Settings` for a picture of so many people."""
    from ..drawn.world import ACTING, GUIDANCE, STEPS

    who = NUMBERS[people] if people < len(NUMBERS) else "people"
    return {
        "prompt": f"a drawing of {who}, blue background",
        "width": width_for(people),
        "height": HEIGHT,
        "steps": STEPS,
        "cfg": GUIDANCE,
        "photos": photo_defaults(),
        "options": ACTING,
    }


def refine_defaults() -> RefineSettings:
    """A second pass as the world's networks make it best."""
    from ..drawn.world import ONE, REFINE_STEPS, REFINING

    return RefineSettings(ONE, REFINE_STEPS, REFINING)


def shown_people(folder: Path) -> tuple[PersonSettings, ...]:
    """The first people that nothing was trained on, as portraits in ``folder``, with the expressions of :data:`SHOWN`."""
    from PIL import Image

    from ..drawn.make import portrait, posed
    from ..drawn.people import HELD_OUT

    print("No photos were given, so two drawn people are shown, asked to look happy and surprised.", file=sys.stderr)
    people = []
    for number, expression in enumerate(SHOWN):
        path = folder / f"person_{number + 1}.png"
        write_picture(path, Image.fromarray(portrait(HELD_OUT + number, posed("neutral", "front view"), PHOTO)))
        people.append(PersonSettings((str(path),), expression=preset_prompt(expression)))
    return tuple(people)


def enlarged(picture: Image) -> Image:
    """The world's small picture by a whole factor; nothing is added to it."""
    from PIL import Image

    factor = max(LARGE // picture.height, 1)
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Image.Resampling.LANCZOS)


def reduced(picture: Image) -> Image:
    """A picture that was enlarged, as small as the world's networks know it."""
    from PIL import Image

    if picture.height <= HEIGHT:
        return picture
    return picture.resize((round(picture.width * HEIGHT / picture.height), HEIGHT), Image.Resampling.LANCZOS)
