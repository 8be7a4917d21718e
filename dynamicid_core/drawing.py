"""Faces, scores, casts and gate maps as pictures for people: uint8 RGB [h, w, 3], legible at any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor
from torch.nn.functional import interpolate

from .captions import PLATE, Color, Font, caption_font, caption_height, draw_caption, person_color
from .encode import EncodedFace
from .faces import DetectedFace, quality
from .regions import region_cells, region_weights, with_default_regions
from .scoring import SAME_PERSON, PictureScore
from .types import Cast, DynamicIDError, Face, Person

PREVIEW_SIZE = 1024  # px of the longer side
SMALLEST_PREVIEW = 512  # ... at least, so that names can be read on drawings of pictures of 128 px
LARGEST_DRAWING = 2048  # px of the longer side of a drawn cast, whose pixels take a hundred bytes each
SHARED_LETTERS = 2.0  # times as large, where several pictures share the room of one in a node
CHOSEN: Color = (64, 255, 96)
OTHER: Color = (255, 208, 48)
ALIKE: Color = (64, 224, 96)
UNLIKE: Color = (255, 160, 48)
WRONG: Color = (255, 80, 80)
HINT: Color = (255, 120, 72)  # what may make a photo a bad one
STRANGER: Color = (192, 192, 192)

GROUND = (46, 48, 52)
FILL = 0.45  # opacity of a region
FREE = 0.12  # ... of the part that people without a region share
# Black over blue and red to white: dark where nothing happens, even steps in lightness.
HEAT = np.array(
    [(0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191)], np.float32
)


# --- Detected faces -----------------------------------------------------------------------------------------------


def _line_width(image: np.ndarray) -> int:
    height, width = image.shape[:2]
    return max(2, round(min(int(height), int(width)) / 250))


def _caption_box(
    picture: Image.Image,
    lines: Sequence[str],
    box: Sequence[float],
    color: Color,
    last: Color | None = None,
    scale: float = 1.0,
) -> None:
    """Lines under a face's box, or above it where there is no room; the last one may have another colour."""
    font = caption_font(round(picture.width * scale), round(picture.height * scale))
    high = caption_height(len(lines), font)
    top = box[3] if box[3] + high <= picture.height else box[1] - high
    draw_caption(picture, lines, box[0], top, color, font, last)


def _face_lines(face: DetectedFace, number: int, chosen: bool, name: str) -> list[str]:
    lines = [f"face {number}: {name or 'chosen'}" if chosen else f"face {number}"]
    if chosen and face.pose is not None:
        lines.append("pitch {}  yaw {}  roll {}".format(*(round(angle) for angle in face.pose)))
    return lines


def draw_faces(
    image: np.ndarray, faces: Sequence[DetectedFace], chosen: int | None = None, name: str = ""
) -> np.ndarray:
    """A copy of the picture with every face boxed and numbered from 0, in the order of ``faces``.

    The chosen face, by its number, is green with its ``name``, landmarks and pose, the others yellow with their number; hints
    about quality stand below in a colour of their own.
    """
    picture, line = Image.fromarray(image), _line_width(image)
    draw = ImageDraw.Draw(picture)
    order = sorted(range(len(faces)), key=lambda i: i == chosen)  # the chosen one last, on top
    colors = [CHOSEN if i == chosen else OTHER for i in range(len(faces))]
    for i in order:
        x0, y0, x1, y1 = faces[i].box
        draw.rectangle((x0 - line, y0 - line, x1 + line, y1 + line), outline=PLATE, width=line * 3)
        draw.rectangle((x0, y0, x1, y1), outline=colors[i], width=line)
        if i == chosen and (landmarks := faces[i].landmarks) is not None:
            radius = max(1.0, faces[i].size / 150)
            for x, y in landmarks:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colors[i])
    for i in order:  # over all boxes
        lines, hints = _face_lines(faces[i], i, i == chosen, name), quality(image, faces[i])
        _caption_box(
            picture, [*lines, *filter(None, [", ".join(hints)])], faces[i].box, colors[i], HINT if hints else None
        )
    return np.asarray(picture)


def draw_encoded(encoded: EncodedFace) -> list[np.ndarray]:
    """Each photo of an encoded face, its faces numbered and the chosen one marked, at most ``PREVIEW_SIZE`` px long."""
    pictures = []
    for photo, found, chosen in zip(encoded.photos, encoded.found, encoded.chosen, strict=True):
        number = next((i for i, face in enumerate(found) if face is chosen), None)
        picture = Image.fromarray(draw_faces(photo, found, number, encoded.face.name))
        picture.thumbnail((PREVIEW_SIZE, PREVIEW_SIZE))
        pictures.append(np.asarray(picture))
    return pictures


def draw_labelled(
    image: np.ndarray, faces: Sequence[DetectedFace], labels: Mapping[int, tuple[str, Color]], scale: float = 1.0
) -> np.ndarray:
    """A copy of the picture with faces boxed, by their number in ``faces``, each with a text, in its colour.

    ``scale``: of lines and letters, for pictures that are shown small.
    """
    picture, line = Image.fromarray(image), round(_line_width(image) * scale)
    for i, (_, color) in labels.items():
        ImageDraw.Draw(picture).rectangle(faces[i].box, outline=color, width=line)
    for i, (text, color) in labels.items():  # over all boxes
        _caption_box(picture, [text], faces[i].box, color, scale=scale)
    return np.asarray(picture)


def draw_scores(image: np.ndarray, score: PictureScore) -> np.ndarray:
    """A copy of the picture with every face boxed, named and judged: green alike, orange not, red duplicates, grey others."""
    labels: dict[int, tuple[str, Color]] = dict.fromkeys(score.bystanders, ("bystander", STRANGER))
    for person in score.people:
        if person.face is not None:
            verdict, color = ("alike", ALIKE) if person.similarity >= SAME_PERSON else ("not alike", UNLIKE)
            labels[person.face] = (f"{person.name}: {verdict}, {person.similarity:.2f}", color)
        labels |= dict.fromkeys(person.duplicates, (f"{person.name} again", WRONG))
    picture = Image.fromarray(draw_labelled(image, score.faces, labels))
    if missing := [person.name for person in score.people if person.face is None]:
        draw_caption(picture, [f"missing: {', '.join(missing)}"], 0, 0, WRONG, caption_font(*picture.size))
    return np.asarray(picture)


def draw_portrait(face: Face, size: int = 256) -> np.ndarray:
    """A face's portrait with its name below: uint8 RGB [size, size, 3]; without a portrait, the name alone."""
    picture, font = Image.new("RGB", (size, size), GROUND), caption_font(size * 3 // 2, size * 3 // 2)
    if face.thumbnail is not None:
        picture.paste(_thumbnail(face.thumbnail).resize((size, size), Image.Resampling.LANCZOS))
    lines = [
        f"{face.name or 'no name'}{_frames(face)}",
        *(["no portrait in this file"] if face.thumbnail is None else []),
    ]
    draw_caption(picture, lines, 0, size, (255, 255, 255), font, last=None if face.thumbnail is not None else STRANGER)
    return np.asarray(picture)


def _thumbnail(values: Tensor) -> Image.Image:
    """[h, w, 3] in 0..1 as a picture."""
    return Image.fromarray((values.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy())


# --- A cast -------------------------------------------------------------------------------------------------------


def person_label(number: int, person: Person) -> str:
    """ "1 Anna x 0.8, 24 frames": number from 1, name, the weight where it is not 1, and how long the face moves."""
    name = f" {person.face.name}" if person.face.name else ""
    return f"{number + 1}{name}" + (f" x {person.weight:g}" if person.weight != 1 else "") + _frames(person.face)


def _frames(face: Face) -> str:
    return f", {face.frames} frames" if face.frames > 1 else ""


def _ground(width: int, height: int, image: np.ndarray | None) -> Image.Image:
    if width < 1 or height < 1:
        raise DynamicIDError(f"A picture of {width}x{height} px cannot be drawn; use at least 1x1.")
    if image is None:
        return Image.new("RGB", (width, height), GROUND)
    return Image.fromarray(np.ascontiguousarray(image[..., :3])).resize((width, height), Image.Resampling.BICUBIC)


def _border(cells: np.ndarray, line: int) -> Image.Image:
    """The rim, ``line`` px wide, of where a region has more than half of its peak."""
    inside = Image.fromarray(((cells > cells.max() / 2) * 255).astype(np.uint8))
    framed = Image.new("L", (inside.width + 2, inside.height + 2))  # a rim at the picture's edge too
    framed.paste(inside, (1, 1))
    for _ in range(line):
        framed = framed.filter(ImageFilter.MinFilter(3))
    inner = framed.crop((1, 1, inside.width + 1, inside.height + 1))
    return Image.fromarray(np.asarray(inside) - np.asarray(inner))


def _bounds(cells: np.ndarray) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of where a region has more than half of its peak, ends excluded."""
    rows, columns = (np.flatnonzero((cells > cells.max() / 2).any(axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _paint(picture: Image.Image, cells: np.ndarray, color: Color, opacity: float) -> None:
    picture.paste(Image.new("RGB", picture.size, color), mask=Image.fromarray((cells * opacity * 255).astype(np.uint8)))


def _label(picture: Image.Image, number: int, person: Person, bounds: tuple[int, int, int, int], font: Font) -> None:
    """The face's thumbnail and the person's label in the upper left of ``bounds``."""
    x0, y0, x1, y1 = bounds
    color, gap = person_color(number), max(2, min(picture.size) // 100)
    x, y = x0 + gap, y0 + gap
    side = min(round(min(picture.size) * 0.22), x1 - x0 - 2 * gap, y1 - y0 - 2 * gap)
    if person.face.thumbnail is not None and side >= 12:
        face = _thumbnail(person.face.thumbnail).resize((side, side), Image.Resampling.LANCZOS)
        picture.paste(face, (x, y))
        ImageDraw.Draw(picture).rectangle((x, y, x + side - 1, y + side - 1), outline=color)
        y += side + gap
    draw_caption(picture, [person_label(number, person)], x, y, color, font)


def _list_unplaced(picture: Image.Image, cast: Cast, font: Font) -> None:
    """People without a region, one above the other at the bottom."""
    top = picture.height
    for number, person in reversed(list(enumerate(cast.people))):
        if person.region is None:
            where = "whole picture" if len(cast.people) == 1 else "where nobody else is"
            text = f"{person_label(number, person)}: {where}"
            top = draw_caption(picture, [text], 2, top - caption_height(1, font), person_color(number), font)


def drawn_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of the drawing of a picture of that size: at most ``LARGEST_DRAWING`` px long, in its shape."""
    scale = min(1.0, LARGEST_DRAWING / max(width, height, 1))
    return (width, height) if scale == 1 else (max(round(width * scale), 1), max(round(height * scale), 1))


def preview_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of what a node shows of a picture of that size, in its shape: neither too small to read nor large."""
    scale = min(max(max(width, height, 1), SMALLEST_PREVIEW), PREVIEW_SIZE) / max(width, height, 1)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def draw_cast(
    cast: Cast, width: int, height: int, image: np.ndarray | None = None, frame: int = 0, letters: float = 1.0
) -> np.ndarray:
    """Who may appear where: uint8 RGB [height, width, 3].

    Regions are translucent colours with a border where half of their strength is reached; soft masks are shown with
    their softness, overlaps as mixed colours. Each has the person's number (from 1), name, weight if it is not 1, and
    the face's thumbnail. People without a region are listed at the bottom and share what is tinted faintly.
    ``image``: uint8 [h, w, 3 or 4] of any size, to draw on; ``frame``: which one of masks with several. What is longer than
    ``LARGEST_DRAWING`` px is drawn at that size: nobody sees more of it. ``letters``: how much larger than usual they are.
    Raises DynamicIDError for an empty cast.
    """
    cast = with_default_regions(cast)
    width, height = drawn_size(width, height)
    picture, font = _ground(width, height, image), caption_font(round(width * letters), round(height * letters))
    line = max(1, round(min(width, height) / 256))
    weights = region_weights(cast, height, width, pictures=(frame,))
    everywhere = weights.visible[0].reshape(-1, height, width).numpy()
    placed = []
    for number, person in enumerate(cast.people):
        if person.region is None:
            _paint(picture, everywhere[number], person_color(number), FREE)
            continue
        cells = region_cells(person.region, height, width, (frame,))[0].numpy()
        _paint(picture, cells, person_color(number), FILL)
        if cells.max() > 0:
            placed.append((number, person, cells))
    for number, _, cells in placed:
        rim = Image.new("RGB", picture.size, person_color(number))
        picture.paste(rim, mask=_border(cells, line))
    for number, person, cells in placed:
        _label(picture, number, person, _bounds(cells), font)
    if len(cast.people) == 1 and not placed and cast.people[0].face.thumbnail is not None:
        _label(picture, 0, cast.people[0], (0, 0, width, height), font)
    _list_unplaced(picture, cast, font)
    return np.asarray(picture)


# --- Gate maps ----------------------------------------------------------------------------------------------------


def heat_colors(values: Tensor) -> np.ndarray:
    """Values in 0..1, [..] -> uint8 RGB [.., 3], dark to light."""
    place = values.clamp(0, 1).float().cpu().numpy() * (len(HEAT) - 1)
    low = np.minimum(place.astype(int), len(HEAT) - 2)
    part = (place - low)[..., None]
    colors: np.ndarray = HEAT[low] * (1 - part) + HEAT[low + 1] * part
    return (colors + 0.5).astype(np.uint8)


def draw_gate_maps(
    maps: Tensor, cast: Cast | None = None, image: np.ndarray | None = None, frame: int = 0, letters: float = 1.0
) -> np.ndarray:
    """Where identity went in: uint8 RGB [P + 1, h, w, 3], one picture for each person and, last, one for the gate.

    ``maps`` [P + 1, h, w] of :meth:`gate_maps.GateRecorder.maps` for one picture. All share one scale, from 0 to the
    largest value, which is written in each. ``cast``: the people, whose names are written and whose regions get a rim in their
    colour, all of them in the gate's picture; ``frame``: which one of masks with several; ``image``: uint8 [h', w', 3 or 4],
    shown underneath; ``letters``: how much larger than usual they are.
    """
    people, height, width = len(maps) - 1, *maps.shape[1:]
    if cast is not None and len(cast.people) != people:
        raise DynamicIDError(f"There are maps of {people} people but a cast of {len(cast.people)}.")
    names = ["" for _ in range(people)] if cast is None else [person.face.name for person in cast.people]
    rims = {} if cast is None else _rims(cast, height, width, frame)
    largest = float(maps.max())
    scaled = maps / largest if largest > 0 else maps
    font = caption_font(round(width * letters), round(height * letters))
    drawn = []
    for number, values in enumerate(scaled):
        picture = Image.fromarray(heat_colors(values))
        if image is not None:
            picture = Image.blend(_ground(width, height, image), picture, 0.7)
        for whose, rim in rims.items():
            if number in (whose, people):
                picture.paste(Image.new("RGB", picture.size, person_color(whose)), mask=rim)
        who = f"where {number + 1} {names[number]}".rstrip() if number < people else "where anybody"
        color = person_color(number) if number < people else (255, 255, 255)
        lines = [f"{who} went in", f"bright: most, up to {float(maps[number].max()):.2f}"]
        lines += ["no place of their own"] if rims and number < people and number not in rims else []
        draw_caption(picture, lines, 2, 2, color, font, last=STRANGER)
        drawn.append(np.asarray(picture))
    return np.stack(drawn)


def enlarged_maps(maps: Tensor, width: int, height: int) -> Tensor:
    """Maps [P + 1, h, w] in another size: [P + 1, height, width]."""
    size = (height, width)
    return maps if maps.shape[1:] == size else interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]


def _rims(cast: Cast, height: int, width: int, frame: int) -> dict[int, Image.Image]:
    """By number, the rim of the region of each person who has one in this frame."""
    rims: dict[int, Image.Image] = {}
    line = max(1, round(min(width, height) / 256))
    for number, person in enumerate(cast.people):
        if person.region is not None:
            cells = region_cells(person.region, height, width, (frame,))[0].numpy()
            if cells.max() > 0:
                rims[number] = _border(cells, line)
    return rims


def side_by_side(pictures: Sequence[np.ndarray] | np.ndarray, columns: int = 4) -> np.ndarray:
    """Pictures of one size in rows of at most ``columns``: uint8 RGB [h, w, 3]"""
    height, width = pictures[0].shape[:2]
    columns = min(columns, len(pictures))
    sheet = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), GROUND)
    for i, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(picture), (i % columns * width, i // columns * height))
    return np.asarray(sheet)
