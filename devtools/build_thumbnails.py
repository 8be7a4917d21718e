"""Write the templates' pictures: ``python devtools/build_thumbnails.py [--server URL]``, photos on the left, what came of
them on the right. The ComfyUI that runs there needs this pack and the drawn world's files.

The host's gallery asks for ``<title>.jpg`` and nothing else, but browsers go by a picture's content: a film is an animated
WebP of that name."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from build_blueprints import SHORT
from building.files import WORKFLOWS
from building.recipes import FPS, RECIPES, TITLES
from building.settings import WORLD
from comfyui.speaking import Client
from environment import run_script
from graphs import Graph, to_api
from PIL import Image, ImageDraw, ImageSequence

HEIGHT, PHOTO, GAP, ARROW = 512, 240, 24, 72  # px
GROUND = (32, 32, 32)


def compose(photos: list[Image.Image], result: Image.Image | None) -> Image.Image:
    """Photos in columns of two, then an arrow and the result; without one the photos alone."""
    shown = [photo.resize((photo.width * PHOTO // photo.height, PHOTO), Image.Resampling.LANCZOS) for photo in photos]
    columns = [shown[first : first + 2] for first in range(0, len(shown), 2)]
    left = GAP + sum(max(photo.width for photo in column) + GAP for column in columns)
    made = result and result.resize((result.width * HEIGHT // result.height, HEIGHT), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (left + (ARROW + made.width if made else 0), HEIGHT), GROUND)
    x = GAP
    for column in columns:
        top = (HEIGHT - len(column) * PHOTO - (len(column) - 1) * GAP) // 2
        for row, photo in enumerate(column):
            sheet.paste(photo, (x, top + row * (PHOTO + GAP)))
        x += max(photo.width for photo in column) + GAP
    if made:
        x, y = left + ARROW // 2 - 12, HEIGHT // 2
        ImageDraw.Draw(sheet).polygon([(x - 18, y - 28), (x + 18, y), (x - 18, y + 28)], fill=(220, 220, 220))
        sheet.paste(made, (left + ARROW - GAP, 0))
    return sheet


def pictures(client: Client, graph: dict[str, dict]) -> tuple[list[Image.Image], list[Image.Image]]:
    """The photos of a graph and its saved picture, or the frames of its film."""
    outputs = client.run_graph(graph).ui

    def shown(*kinds: str) -> list[Image.Image]:
        numbers = [number for number, node in graph.items() if node["class_type"] in kinds]
        return [Image.open(io.BytesIO(client.view(outputs[number]["images"][0]))) for number in numbers]

    (result,) = shown("SaveImage", "SaveAnimatedWEBP")
    frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(result)]
    return [photo.convert("RGB") for photo in shown("DynamicIDDrawnPerson")], frames


def save(sheets: list[Image.Image], path: Path) -> None:
    """A picture as JPEG; several as a film, of half the height: it is larger, and shown small."""
    if len(sheets) == 1:
        sheets[0].save(path, quality=88)
        return
    half = [sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.LANCZOS) for sheet in sheets]
    how = {
        "save_all": True,
        "append_images": half[1:],
        "duration": 1000 // FPS,
        "loop": 0,
        "quality": 70,
        "method": 6,
    }
    half[0].save(path, "WEBP", **how)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Write the templates' pictures with a running ComfyUI.")
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="its address (default: %(default)s)")
    parser.add_argument("--only", choices=RECIPES, help="one of them (default: all)")
    options = parser.parse_args(arguments)
    client = Client(options.server)
    object_info = client.object_info()
    titles = {"two_people": [TITLES["two_people"], SHORT]}
    for name, recipe in RECIPES.items():
        if options.only not in (None, name):
            continue
        photos, frames = pictures(client, to_api(Graph(name, recipe(WORLD)), object_info))
        sheets = [compose(photos, frame) for frame in frames]
        for title in titles.get(name, [TITLES[name]]):
            save(sheets, WORKFLOWS / f"{title}.jpg")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
