"""Pictures of real people, composed at test time from the group photo that InsightFace brings; none is kept.

Of each of the six people there is a portrait (the reference) and its mirror image: another photo of the same person.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

NAMES = ("ann", "ben", "cem", "dia", "eli", "fay")
FACES = (
    (1118, 283, 108),
    (67, 283, 108),
    (724, 367, 108),
    (450, 295, 107),
    (870, 67, 129),
    (275, 176, 89),
)  # x, y, side
SIDE = 200  # px of a portrait, twice its face
ABOVE = 40  # px over people in a scene


@functools.cache
def group_photo() -> Image.Image:
    import insightface

    with Image.open(Path(insightface.__file__).parent / "data/images/t1.jpg") as photo:
        return photo.convert("RGB")


def portrait(number: int) -> Image.Image:
    x, y, side = FACES[number]
    part = (x - side // 2, y - side // 2, x + side + side // 2, y + side + side // 2)
    return group_photo().crop(part).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def mirrored(number: int) -> Image.Image:
    return ImageOps.mirror(portrait(number))


def scene(*people: Image.Image | None) -> Image.Image:
    """People side by side; None: a place where nobody is."""
    picture = Image.new("RGB", (SIDE * len(people), SIDE + ABOVE), (110, 120, 130))
    for place, person in enumerate(people):
        if person:
            picture.paste(person, (place * SIDE, ABOVE))
    return picture


def places(count: int) -> list[list[float]]:
    """The box of each in a scene of so many, below the strip above their heads."""
    top = ABOVE / (SIDE + ABOVE)
    return [[place / count, top, (place + 1) / count, 1] for place in range(count)]


def scenes() -> dict[str, tuple[Image.Image, tuple[int, ...]]]:
    """Name -> a picture and who was asked for, from left to right."""
    one, other = mirrored(0), mirrored(1)
    both = Image.blend(one, other, 0.5)
    return {
        "right": (scene(one, other), (0, 1)),
        "copied": (scene(portrait(0), portrait(1)), (0, 1)),
        "swapped": (scene(other, one), (0, 1)),
        "doubled": (scene(one, other, one), (0, 1)),
        "missing": (scene(one, None), (0, 1)),
        "strangers": (scene(mirrored(3), mirrored(4)), (0, 1)),
        "blended": (scene(both, both), (0, 1)),
        "three": (scene(mirrored(2), mirrored(3), mirrored(4)), (2, 3, 4)),
        "nobody": (scene(None), (5,)),
    }


def write_scenes(folder: Path) -> Path:
    """The scenes with a list of what was asked for, references, a ground truth and a baseline; returns the list."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NAMES):
        portrait(number).save(folder / f"{name}.png")
    rows = []
    for name, (picture, people) in scenes().items():
        picture.save(folder / f"{name}.png")
        who = [
            {"photos": f"{NAMES[person]}.png", "name": NAMES[person], "box": box}
            for person, box in zip(people, places(len(people)), strict=True)
        ]
        rows.append({"picture": f"{name}.png", "people": who, "prompt": f"{len(people)} people, {name}"})
    scenes()["right"][0].save(folder / "truth.png")
    darker = np.asarray(scenes()["right"][0]).copy()
    darker[:ABOVE] -= 51  # by a fifth of the range, above the people
    Image.fromarray(darker).save(folder / "baseline.png")
    for row in rows[:2]:
        row["ground_truth"] = "truth.png"
    rows[0]["baseline"] = "baseline.png"
    path = folder / "list.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
