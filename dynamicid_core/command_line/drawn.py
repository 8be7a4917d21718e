"""Drawn people: pictures of them, training sets with exact labels, and the small networks that learn to draw them.

A seed is a person. Seeds from 10000 up are held out: nothing that this project carries was trained on them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..landmarks import EXPRESSIONS
from ..prompts import GRID_POSES
from ..saving import PICTURE, write_picture
from ..types import DynamicIDError
from ..writing import check_file, check_folder
from . import models

SUMMARY = "drawn people: pictures, training sets, the small networks"
EXAMPLES = """
examples:
  {program} make anna.png --seeds 10000 --expression happy
  {program} make sheet.png --seeds 10000-10007
  {program} make people --seeds 0-199

each action has its own help: {program} make --help
"""
TALLEST = 65_000  # px; what JPEG can hold
PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def seed_range(text: str) -> tuple[int, int]:
    """ "7" or "0-199" -> first and last seed."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not match or int(match[2] or match[1]) < int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no seed and no range of seeds such as 0-199")
    return int(match[1]), int(match[2] or match[1])


class Make:
    """Draw people.

    To a picture file: the person of one seed, or a sheet with a row for each of several, in seven expressions. To a folder: a
    training set, as `dataset build` makes one from photos, with exact labels: seven expressions in five poses of each person.
    """

    NAME = "make"
    SUMMARY = "a picture, a sheet, or a training set of drawn people"
    EXAMPLES = """
examples:
  {program} anna.png --seeds 10000 --expression surprise --pose "slightly turned to the left"
  {program} sheet.png --seeds 10000-10007 --size 128
  {program} people --seeds 0-199 --size 128 --per-person 35
  {program} pairs --seeds 0-1999 --pairs --per-person 8
"""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "output", type=Path, metavar="OUTPUT", help="a picture file (.png, .jpg), or a folder for a set"
        )
        parser.add_argument("--seeds", type=seed_range, default=(0, 0), metavar="SEEDS", help="7 or 0-199 (default: 0)")
        parser.add_argument(
            "--expression", choices=EXPRESSIONS, default="neutral", help="of one person (default: neutral)"
        )
        parser.add_argument(
            "--pose", choices=GRID_POSES, default="front view", help="for pictures (default: front view)"
        )
        parser.add_argument(
            "--size", type=int, default=0, metavar="PX", help="of each picture (default: 512; 128 in sets and sheets)"
        )
        parser.add_argument(
            "--per-person", type=int, default=35, metavar="N", help="photos in a set (default: %(default)s)"
        )
        parser.add_argument(
            "--pairs", action="store_true", help="a set for anchoring: two photos each with one expression and pose"
        )

    @staticmethod
    def run(options: argparse.Namespace) -> dict[str, Any]:
        first, last = options.seeds
        if options.output.suffix.lower() in PICTURES:
            return _picture(options, first, last)
        if options.output.suffix:
            raise DynamicIDError(f"{options.output} is no kind of picture that is known here; end it in .png or .jpg.")
        return _dataset(options, range(first, last + 1))


def _picture(options: argparse.Namespace, first: int, last: int) -> dict[str, Any]:
    from PIL import Image

    from ..drawn.make import expression_sheet, portrait, posed

    check_file(options.output, PICTURE)
    if (last - first + 1) * (options.size or 128) > TALLEST:
        raise DynamicIDError(
            f"A sheet of {last - first + 1} people is too tall for a picture; name fewer, or lower --size."
        )
    if first == last:
        pixels = portrait(first, posed(options.expression, options.pose), options.size or 512)
    else:
        pixels = expression_sheet(range(first, last + 1), options.size or 128, options.pose)
    write_picture(options.output, Image.fromarray(pixels), PICTURE, marked=True)
    height, width = pixels.shape[:2]
    facts = {"output": str(options.output), "people": last - first + 1, "width": width, "height": height}
    return {"text": f"{options.output}: {facts['people']} drawn people, {width} x {height} px", "json": facts}


def _dataset(options: argparse.Namespace, seeds: range) -> dict[str, Any]:
    from tqdm import tqdm

    from ..drawn.make import check_set, make_dataset

    check_set(options.output)
    manifest = make_dataset(
        options.output, seeds, options.per_person, options.size or 128,
        lambda people: tqdm(people, desc="people", disable=options.quiet), options.pairs,
    )  # fmt: skip
    facts = {"output": str(options.output), "people": len(seeds), "photos": len(manifest.taken)}
    return {
        "text": f"{options.output}: {facts['people']} people, {facts['photos']} photos with exact labels",
        "json": facts,
    }


class Train:
    """Train the world's networks: first the autoencoder, then the UNet on its latents, and those that see faces.

    Each has a folder with checkpoints, a curve and sheets of pictures. The same command goes on after any interruption, and
    says where it stands. `torchrun --nproc-per-node 2 -m dynamicid_core drawn train ...` shares the work among processes.
    """

    NAME = "train"
    SUMMARY = "the autoencoder, the UNet, detector, recogniser and judges, from nothing"
    EXAMPLES = """
examples:
  {program} autoencoder --output world/autoencoder
  {program} unet --output world/unet --autoencoder world/autoencoder
  {program} faces --output world/faces --autoencoder world/autoencoder
  torchrun --nproc-per-node 2 -m dynamicid_core drawn train --all --output world
"""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("network", nargs="?", choices=("autoencoder", "unet", "faces"), help="what to train")
        what.add_argument("--all", action="store_true", help="everything that the project carries, in order")
        parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="where it is kept")
        parser.add_argument(
            "--autoencoder", type=Path, metavar="FOLDER", help="for the UNet and faces: a trained autoencoder's folder"
        )
        parser.add_argument(
            "--pictures", type=int, metavar="N", help="how many to train on (default: what the world took)"
        )
        parser.add_argument(
            "--seed", type=int, default=0, metavar="N", help="of everything random (default: %(default)s)"
        )
        parser.add_argument(
            "--precision",
            choices=("no", "bf16"),
            default="bf16",
            help="of products; no: float32 (default: %(default)s)",
        )
        parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the CPU (default: %(default)s)")

    @staticmethod
    def run(options: argparse.Namespace) -> dict[str, Any]:
        import torch
        from accelerate import Accelerator

        check_folder(options.output)
        if not 0 <= options.seed < 2**53:
            raise DynamicIDError(f"--seed {options.seed} must lie between 0 and 2^53.")
        if options.all and (options.pictures or options.autoencoder):
            raise DynamicIDError("--all trains as the recipe has it; leave --pictures and --autoencoder out.")
        torch.set_num_threads(options.threads)
        accelerator = Accelerator(mixed_precision=options.precision)
        given = {"seed": options.seed} | ({"pictures": options.pictures} if options.pictures else {})
        if options.all:
            from ..drawn.recipe import World, train_world

            train_world(World(options.output, accelerator, _run), options.seed)
        elif options.network == "autoencoder":
            from ..drawn.train_autoencoder import AutoencoderOptions, train_autoencoder

            train_autoencoder(options.output, AutoencoderOptions(**given), accelerator)
        elif options.network == "faces":
            _train_faces(options)
        else:
            from ..drawn.train_autoencoder import trained_autoencoder
            from ..drawn.train_unet import UNetOptions, train_unet

            if options.autoencoder is None:
                raise DynamicIDError("The UNet learns on an autoencoder's latents; give its folder with --autoencoder.")
            train_unet(options.output, trained_autoencoder(options.autoencoder), UNetOptions(**given), accelerator)
        network = options.network or "world"
        facts = {"network": network, "output": str(options.output), "seed": options.seed}
        return {"text": f"{options.output}: the {network} is trained", "json": facts}


def _train_faces(options: argparse.Namespace) -> None:
    from accelerate import Accelerator
    from tqdm import tqdm

    from ..drawn.train_faces import train_faces

    if options.pictures:
        raise DynamicIDError("Face networks learn for as many steps as each needs; leave --pictures out.")
    accelerator = Accelerator(cpu=True, mixed_precision=options.precision)
    train_faces(
        options.output, options.autoencoder, accelerator, options.seed,
        lambda pictures: tqdm(pictures, desc="pictures", disable=options.quiet),
    )  # fmt: skip


def _run(words: Sequence[str]) -> None:
    """Another command of this command line."""
    from . import main

    if main([*words, "--quiet"]):
        raise DynamicIDError(f"`{' '.join(words[:2])}` failed; the message above says why.")


class Carry:
    """Write trained networks in half precision, as the project carries them.

    As far as their training got; what is not named stays as it is.
    """

    NAME = "carry"
    SUMMARY = "trained networks to the files that the project carries"
    EXAMPLES = """
examples:
  {program} weights --autoencoder world/autoencoder --unet world/unet --faces world/faces
  {program} weights --saa run/saa.safetensors --imr run/imr.safetensors
"""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("output", type=Path, metavar="OUTPUT", help="a folder for the files")
        for name in ("autoencoder", "unet", "faces"):
            parser.add_argument(f"--{name}", type=Path, metavar="FOLDER", help=f"what `drawn train {name}` made")
        parser.add_argument("--saa", type=Path, metavar="FILE", help="what `train anchor` made")
        parser.add_argument("--imr", type=Path, metavar="FILE", help="what `train reconfigure` made with that")

    @staticmethod
    def run(options: argparse.Namespace) -> dict[str, Any]:
        from ..drawn.carried import AUTOENCODER, UNET, carry_faces, carry_training

        check_folder(options.output)
        if options.imr and not options.saa:
            raise DynamicIDError("--imr belongs to an SAA file; name it with --saa.")
        named = {AUTOENCODER: options.autoencoder, UNET: options.unet}
        written = [carry_training(name, folder, options.output) for name, folder in named.items() if folder]
        if options.faces:
            from ..drawn.train_faces import carry_packs

            written += carry_packs(options.faces, options.output)
        written += carry_faces(options.saa, options.imr, options.output) if options.saa else []
        if not written:
            raise DynamicIDError("Nothing to write is named. Give --autoencoder, --unet, --faces or --saa.")
        names = [str(path) for path in written]
        return {"text": "\n".join(names), "json": {"files": names}}


class Fill:
    """Write the world's files into a models folder: people can be drawn with them before any other model is there.

    The folder is ComfyUI's, or one laid out like it. Files that are not the world's are never changed. With --narrow it is
    for diffusers and for training: the same pictures by smaller networks, and a pipeline's folder instead of a checkpoint.
    """

    NAME = "fill"
    SUMMARY = "the world's files in a models folder"
    EXAMPLES = """
examples:
  {program} ComfyUI/models
  {program} models --narrow
"""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("models", type=Path, metavar="MODELS", help="the folder to fill")
        parser.add_argument("--narrow", action="store_true", help="for diffusers and training, small and quick")
        parser.add_argument(
            "--weights",
            type=Path,
            metavar="FOLDER",
            help="what `drawn carry` wrote (default: what the project carries)",
        )

    @staticmethod
    def run(options: argparse.Namespace) -> dict[str, Any]:
        from tqdm import tqdm

        from ..drawn.carried import WEIGHTS
        from ..drawn.world import fill

        check_folder(options.models)
        if options.narrow:
            models.need_packages()
        with tqdm(desc="files", disable=options.quiet) as bar:

            def show(name: str, done: int, total: int) -> None:
                bar.total, bar.n = total, done
                bar.set_postfix_str(name)

            paths = fill(options.models, options.weights or WEIGHTS, options.narrow, show)
        names = {name: str(path) for name, path in paths.items()}
        return {"text": "\n".join(names.values()), "json": {"models": str(options.models), "files": names}}


ACTIONS = (Make, Train, Carry, Fill)
