"""Sheets to look at: the first people and the first noise, whatever came of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from asked import SEEDS, Question, Series, alone, expressions, swapped, together
from making import Studio, photo_of
from PIL import Image

from dynamicid_core.blending import blend_faces
from dynamicid_core.drawn.world import ACTING
from dynamicid_core.types import Cast, Person

HEIGHT = 128
GAP = 4
Rows = list[list[Image.Image]]


def laid_out(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Rows of pictures of one height on white."""
    width = max(sum(p.width + GAP for p in row) for row in rows) - GAP
    sheet = Image.new("RGB", (width, len(rows) * (HEIGHT + GAP) - GAP), "white")
    for number, row in enumerate(rows):
        x = 0
        for picture in row:
            sheet.paste(picture, (x, number * (HEIGHT + GAP)))
            x += picture.width + GAP
    return sheet


class Sheets:
    """All sheets, from one studio; pictures are made anew, so that a sheet needs nothing that was measured."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def reference(self, number: int) -> Image.Image:
        return Image.open(photo_of(self.studio.people, number)).resize((HEIGHT, HEIGHT), Image.Resampling.LANCZOS)

    def row(self, question: Question, series: Series | None = None) -> list[Image.Image]:
        return self.studio.pictures(question, series or Series("", "", ()))

    def people(self, count: int = 8) -> Image.Image:
        """Reference, then a picture with each noise."""
        return laid_out([[self.reference(q.people[0]), *self.row(q)] for q in alone(count)])

    def expressions(self, count: int = 6) -> Image.Image:
        """Reference, then seven expressions by the IMR, all with the first noise."""
        rows: Rows = []
        for number in range(count):
            asked = [q for q in expressions(count) if q.people == (number,)]
            pictures = [self.studio.pictures(q, Series("", "", ()), SEEDS[:1])[0] for q in asked]
            rows.append([self.reference(number), *pictures])
        return laid_out(rows)

    def groups(self, count: int, groups: int = 4) -> Image.Image:
        """References, then a picture with each noise."""
        return laid_out([[*map(self.reference, q.people), *self.row(q)] for q in together(count, groups)])

    def boxes_swapped(self, groups: int = 4) -> Image.Image:
        """References; in their boxes; in each other's, with the same noise."""
        rows: Rows = []
        for q in together(2, groups):
            pair = [self.studio.pictures(each, Series("", "", ()), SEEDS[:1])[0] for each in (q, swapped(q))]
            rows.append([*map(self.reference, q.people), *pair])
        return laid_out(rows)

    def gate(self, groups: int = 4) -> Image.Image:
        """The plain model; with faces; with faces and no gate; all with the first noise."""
        kinds = (Series("", "", (), faces=False), Series("", "", ()), Series("", "", (), gated=False))
        return laid_out([
            [*map(self.reference, q.people), *(self.studio.pictures(q, kind, SEEDS[:1])[0] for kind in kinds)]
            for q in together(2, groups)
        ])  # fmt: skip

    def blends(self, count: int = 4) -> Image.Image:
        """Two people, and pictures of their blend with weights 1:0, 3:1, 1:1, 1:3, 0:1, all with the first noise."""
        rows: Rows = []
        for q in together(2, count):
            first, second = map(self.studio.face, q.people)
            single = replace(alone(1)[0], caption=q.caption.replace("two people", "one person"))
            pictures = []
            for share in (0.0, 0.25, 0.5, 0.75, 1.0):
                face = blend_faces([first, second], [1 - share, share])
                with self.studio.did.apply(Cast((Person(face),)), ACTING):
                    pictures += self.studio.plain(single, SEEDS[:1])
            rows.append([*map(self.reference, q.people), *pictures])
        return laid_out(rows)

    def write(self, folder: Path) -> list[Path]:
        """All of them as PNG files."""
        folder.mkdir(parents=True, exist_ok=True)
        made = {
            "people": self.people, "expressions": self.expressions, "two": lambda: self.groups(2),
            "three": lambda: self.groups(3), "four": lambda: self.groups(4), "swapped": self.boxes_swapped,
            "blends": self.blends, "gate": self.gate,
        }  # fmt: skip
        paths = []
        for name, make in made.items():
            paths.append(folder / f"{name}.png")
            make().save(paths[-1], optimize=True)
        return paths
