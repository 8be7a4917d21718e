"""What the actions of `train` share: settings as they are typed, a dataset, frozen networks, the cache."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints import WEIGHTS
from ..types import DynamicIDError, is_same_recogniser
from ..writing import check_file, check_folder
from . import models

if TYPE_CHECKING:
    import torch

    from ..checkpoints import SAACheckpoint
    from ..datasets.manifest import Manifest
    from ..training.features import Maker
    from ..training.frozen import Networks
    from ..training.making import Share
    from ..training.settings import Settings

# Flags for what is set most often -> the setting; {stage} is the action's.
COMMON = {"dataset": "dataset", "cache": "cache", "output": "output", "seed": "seed"}
OF_STAGE = {
    "steps": "steps",
    "batch": "batch",
    "accumulation": "accumulation",
    "learning_rate": "learning_rate",
    "size": "size",
}
MODELS = {"model": "base.model", "config": "base.config", "clip_vision": "base.clip_vision"}


# --- Arguments ----------------------------------------------------------------------------------------------------


class _Template(argparse.Action):
    """Print the file of all settings and leave."""

    def __call__(self, parser: argparse.ArgumentParser, *args: Any) -> None:
        from ..training.settings_file import template

        print(template(), end="")
        parser.exit()


def add_settings_arguments(parser: argparse.ArgumentParser, stage: str | None) -> None:
    """The configuration, and flags that change it; ``stage``: with those of this stage."""
    parser.add_argument("configuration", nargs="?", type=Path, metavar="CONFIG", help="a TOML file; see --template")
    parser.add_argument(
        "--template", action=_Template, nargs=0, help="print a CONFIG with every setting, and what it does"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="changes",
        help="any setting, e.g. --set anchor.learning_rate=5e-5; may be given several times",
    )  # fmt: skip
    parser.add_argument("--dataset", metavar="FOLDER", help="what `dataset build` made")
    parser.add_argument(
        "--output", metavar="FOLDER", help="for checkpoints, logs and pictures (default: dynamicid-training)"
    )
    parser.add_argument("--cache", metavar="FOLDER", help="default: the folder cache in the dataset's")
    parser.add_argument("--seed", metavar="N")
    if stage:
        group = parser.add_argument_group("training", f"Short for --set {stage}.NAME=VALUE.")
        for name in OF_STAGE:
            group.add_argument(f"--{name.replace('_', '-')}", metavar="N")
    group = parser.add_argument_group("models", "Looked for in a folder laid out as ComfyUI's models, unless given.")
    group.add_argument("--models", type=Path, metavar="FOLDER", help="default: as for `generate`")
    group.add_argument(
        "--model", metavar="PATH", help="base model: a diffusers folder, or a .safetensors or .ckpt file"
    )
    group.add_argument(
        "--config", metavar="FOLDER", help="for a single file: a diffusers folder with its configuration"
    )
    group.add_argument("--clip-vision", metavar="PATH", help="CLIP-ViT-H-14-laion2B-s32B-b79K: a file or folder")
    if stage != "anchor":
        group.add_argument(
            "--saa", metavar="FILE", help="SAA checkpoint (default: what `train anchor` left in the output)"
        )
    group.add_argument("--stand-in", action="store_true", help="the drawn world's, which the project brings")
    group.add_argument("--device", metavar="NAME", help="cuda, mps, cpu (default: the best there is)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that read photos (default: 2)")


def settings_of(options: argparse.Namespace, stage: str | None) -> Settings:
    """The file's settings with the changes of the command line."""
    from ..training.settings_file import load_settings

    flags = {
        **COMMON,
        **MODELS,
        **({name: f"{stage}.{setting}" for name, setting in OF_STAGE.items()} if stage else {}),
    }
    if stage != "anchor":
        flags["saa"] = "reconfigure.saa"
    numbers = {"seed", *OF_STAGE}
    given = {name: value for name in flags if (value := getattr(options, name, None)) is not None}
    short = [f"{flags[name]}={value if name in numbers else json.dumps(value)}" for name, value in given.items()]
    return load_settings(options.configuration, [*short, *options.changes])


# --- What both stages and the cache start with --------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """A dataset, a base, and this process's place among others."""

    settings: Settings
    manifest: Manifest
    networks: Networks
    share: Share


def prepare(options: argparse.Namespace, stage: str | None) -> Prepared:
    """Read what is needed for every action; nothing large is loaded yet."""
    models.need_packages()
    from ..datasets.manifest import Manifest
    from ..drawn.world import CLIP_VISION

    settings = settings_of(options, stage)
    if options.stand_in:  # whose name the checkpoint then remembers
        settings = replace(settings, base=replace(settings.base, clip_vision=Path(CLIP_VISION)))
    manifest = Manifest.read(settings.need_dataset())
    _check_output(settings, stage)
    wanted = settings.base.recogniser
    if wanted and not is_same_recogniser(wanted, manifest.recogniser):
        raise DynamicIDError(
            f"base.recogniser is {wanted}, but the identities of {settings.dataset} are {manifest.recogniser}'s; build the "
            "dataset with the recogniser that is wanted."
        )
    share, device = _processes(options)
    return Prepared(settings, manifest, _networks(options, settings, share, device), share)


def _check_output(settings: Settings, stage: str | None) -> None:
    """Raise DynamicIDError where what will be made cannot be written, before anything is made."""
    from ..training.stages import IMR_FILE, SAA_FILE

    check_folder(settings.cache_folder)
    if stage:
        initial = getattr(settings, stage).initial
        file = {"anchor": SAA_FILE, "reconfigure": IMR_FILE}[stage]
        check_file(settings.output / file, WEIGHTS, [initial] if initial else [])


def _processes(options: argparse.Namespace) -> tuple[Share, torch.device]:
    """This process among those that `accelerate launch` started, and its device.

    What accelerate does for itself later follows the same choice, which it takes from its variables.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    from ..training.making import Share

    device, together = models.device_of(options), "LOCAL_RANK" in os.environ
    if parse_flag_from_env("ACCELERATE_USE_CPU"):  # what `accelerate launch --cpu` says
        device = torch.device("cpu")
    elif device.type == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    elif options.device and not together:
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
    state = PartialState(cpu=device.type == "cpu")
    share = Share(state.process_index, state.num_processes, state.wait_for_everyone)
    return share, state.device if together else device


def _networks(options: argparse.Namespace, settings: Settings, share: Share, device: torch.device) -> Networks:
    import torch

    from ..training.frozen import Networks

    if options.stand_in:
        world = models.stand_ins()
        if not share.rank:
            models.note_stand_in()
        return Networks(world.narrow_pipeline, world.clip_vision, _saa(settings), device)
    base = settings.base
    given = {name: str(path) if (path := getattr(base, name)) else None for name in MODELS}
    files = models.find(argparse.Namespace(models=options.models, detector=None, saa=None, imr=None, **given))
    for name in ("model", "clip_vision"):
        files.need(name)

    def clip() -> torch.nn.Module:
        from ..hosts.diffusers import load_clip_vision

        return load_clip_vision(files.need("clip_vision"))

    def pipe() -> Any:
        # On the CPU: what is at work goes to the device, and leaves it.
        dtype = torch.float32 if device.type == "cpu" else getattr(torch, base.dtype)
        return models.load_pipeline(files, given["config"], torch.device("cpu"), dtype=dtype)

    return Networks(pipe, clip, _saa(settings), device)


def saa_file(settings: Settings) -> Path:
    return settings.reconfigure.saa or settings.output / "saa.safetensors"


def _saa(settings: Settings) -> Callable[[], SAACheckpoint] | None:
    """What loads the SAA checkpoint; None while there is none."""
    from ..checkpoints import load_saa

    path = saa_file(settings)
    return (lambda: load_saa(path)) if settings.reconfigure.saa or path.exists() else None


# --- The cache ----------------------------------------------------------------------------------------------------


def makers_of(prepared: Prepared, stage: str) -> list[Maker]:
    """What a stage, or "both", needs of the cache."""
    from ..training.cache import anchor_makers, reconfigure_makers

    known = {"anchor": anchor_makers, "reconfigure": reconfigure_makers}
    stages = known if stage == "both" else (stage,)
    return [maker for name in stages for maker in known[name](prepared.settings, prepared.manifest, prepared.networks)]


def fill_cache(
    options: argparse.Namespace, prepared: Prepared, makers: list[Maker], dry: bool = False
) -> dict[str, Any]:
    """Make what is missing, with a bar; what was found and done, as JSON."""
    from ..training.cache import fill
    from ..training.making import gigabytes

    root, main = prepared.settings.cache_folder, prepared.share.rank == 0

    def say(line: str) -> None:
        if main and not options.quiet:
            print(line, file=sys.stderr)

    filled = fill(
        root, makers, prepared.networks.device, share=prepared.share, workers=options.workers, say=say,
        bar=None if options.quiet or not main else _bar, dry=dry,
    )  # fmt: skip
    new = sum(one.new_bytes for one in filled.planned)
    parts = [
        {"part": one.folder.name, "rows": one.total, "missing": one.missing, "new_bytes": one.new_bytes}
        for one in filled.planned
    ]
    done = "would be made" if dry else f"made in {sum(filled.seconds):.0f} s"
    text = f"{root}: {filled.made} rows, {gigabytes(new)}, {done}" if filled.made else f"{root}: complete"
    return {"text": text, "json": {"cache": str(root), "made": 0 if dry else filled.made, "parts": parts}}


@contextlib.contextmanager
def _bar(title: str, total: int) -> Iterator[Any]:
    from tqdm import tqdm

    with tqdm(total=total, desc=f"caching {title}", unit="row", file=sys.stderr) as bar:
        yield bar.update
