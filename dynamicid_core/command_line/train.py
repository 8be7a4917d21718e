"""Train DynamicID on people of your own, or for another base model: anchoring, then reconfiguration.

`dataset build` makes the dataset of photos. Everything that frozen networks say of it is computed once, into a cache.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..types import DynamicIDError
from . import models

if TYPE_CHECKING:
    import torch

    from ..checkpoints import SAACheckpoint
    from ..datasets.manifest import Manifest
    from ..training.features import Maker
    from ..training.frozen import Networks
    from ..training.making import Share
    from ..training.settings import Settings

SUMMARY = "photos to a checkpoint of your own"
EXAMPLES = """
from photos to a checkpoint that Load DynamicID takes:
  python -m dynamicid_core dataset build photos people
  {program} anchor --dataset people --model sd15.safetensors --output run
  {program} reconfigure --dataset people --model sd15.safetensors --output run

with everything in one file:
  {program} anchor --template > run.toml
  {program} anchor run.toml

on several GPUs or machines:
  accelerate launch -m dynamicid_core train anchor run.toml
"""
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
    group.add_argument("--stand-in", action="store_true", help="small built-in models with random weights")
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

    settings = settings_of(options, stage)
    manifest = Manifest.read(settings.need_dataset())
    wanted = settings.base.recogniser
    if wanted and wanted != manifest.recogniser:
        raise DynamicIDError(
            f"base.recogniser is {wanted}, but the identities of {settings.dataset} are {manifest.recogniser}'s; build the "
            "dataset with the recogniser that is wanted."
        )
    share, device = _processes(options)
    return Prepared(settings, manifest, _networks(options, settings, device), share)


def _processes(options: argparse.Namespace) -> tuple[Share, torch.device]:
    """This process among those that `accelerate launch` started, and its device."""
    if options.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    from accelerate import PartialState

    from ..training.making import Share

    state = PartialState()
    share = Share(state.process_index, state.num_processes, state.wait_for_everyone)
    alone = state.num_processes == 1
    return share, models.device_of(options) if alone else state.device


def _networks(options: argparse.Namespace, settings: Settings, device: torch.device) -> Networks:
    import torch

    from ..training.frozen import Networks

    if options.stand_in:
        standins = models.stand_ins("pipeline")
        models.note_stand_in()
        return Networks(standins.make_pipeline, standins.make_clip_vision, _saa(settings), device)
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


def _saa_file(settings: Settings) -> Path:
    return settings.reconfigure.saa or settings.output / "saa.safetensors"


def _saa(settings: Settings) -> Callable[[], SAACheckpoint] | None:
    """What loads the SAA checkpoint; None while there is none."""
    from ..checkpoints import load_saa

    path = _saa_file(settings)
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


class CacheAction:
    """Compute everything that frozen networks say of a dataset, once: `anchor` and `reconfigure` do it by themselves.

    Only what is missing is made: an interrupted cache goes on where it was, and new photos, another size or other weights
    cost their own part alone. Before anything is made, its size is said.
    """

    NAME, SUMMARY = "cache", "what frozen networks say of a dataset, computed once"
    EXAMPLES = """
examples:
  {program} run.toml                     for both stages; for anchoring alone while there is no SAA checkpoint
  {program} run.toml --dry-run           how large it will be
  {program} run.toml --remove-stale      and delete what other settings or weights had made
  accelerate launch -m dynamicid_core train cache run.toml
"""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        add_settings_arguments(parser, None)
        parser.add_argument(
            "--stage", choices=("anchor", "reconfigure", "both"), help="default: both, if there is an SAA checkpoint"
        )
        parser.add_argument("--dry-run", action="store_true", help="only say how large it will be")
        parser.add_argument(
            "--remove-stale", action="store_true", help="delete parts that other settings or weights made"
        )

    @staticmethod
    def run(options: argparse.Namespace) -> dict[str, Any] | None:
        from ..training.cache import all_makers, stale_parts, write_index
        from ..training.store import remove_part

        prepared = prepare(options, None)
        stage = options.stage or ("both" if _saa_file(prepared.settings).exists() else "anchor")
        makers = makers_of(prepared, stage)
        result = fill_cache(options, prepared, makers, options.dry_run)
        root = prepared.settings.cache_folder
        stale = stale_parts(root, all_makers(prepared.settings, prepared.manifest, prepared.networks))
        removed = options.remove_stale and not options.dry_run and prepared.share.rank == 0
        if removed:
            for folder in stale:
                remove_part(folder)
            write_index(root)
        if prepared.share.rank:
            return None
        names = [folder.name for folder in stale]
        said = (
            f"\n{'removed' if removed else 'stale (--remove-stale deletes them)'}: {', '.join(names)}" if names else ""
        )
        return {
            "text": result["text"] + said,
            "json": {**result["json"], "stage": stage, "stale": names, "removed": names if removed else []},
        }


# --- The stages ---------------------------------------------------------------------------------------------------


def add_stage_arguments(parser: argparse.ArgumentParser, stage: str) -> None:
    add_settings_arguments(parser, stage)
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest state in the output folder, to the same bits"
    )


def train_stage(options: argparse.Namespace, stage: str) -> dict[str, Any] | None:
    """Fill the cache, then train to the last step."""
    from ..training.cache import Cache
    from ..training.stages import train_anchor, train_reconfigure

    prepared = prepare(options, stage)
    makers = makers_of(prepared, stage)
    fill_cache(options, prepared, makers)
    cache = Cache.open(prepared.settings.cache_folder, makers)
    del makers
    prepared.networks.release_clip()
    train = {"anchor": train_anchor, "reconfigure": train_reconfigure}[stage]
    done = train(
        prepared.settings,
        prepared.manifest,
        cache,
        prepared.networks,
        resume=options.resume,
        progress=not options.quiet,
    )
    if prepared.share.rank:
        return None
    losses = ", ".join(f"{name} {value:.4g}" for name, value in done.losses.items())
    text = f"saved {done.checkpoint}\n{done.steps - done.started_at} steps in {done.seconds:.0f} s; {losses}"
    return {"text": text, "json": {**dataclasses.asdict(done), "checkpoint": str(done.checkpoint)}}


class AnchorAction:
    """Stage 1: the face encoder and the attention to faces learn to put a person into pictures.

    Makes what is missing of the cache first. Writes saa.safetensors into the output folder, which Load DynamicID takes.
    """

    NAME, SUMMARY = "anchor", "stage 1: face encoder and attention (saa.safetensors)"
    EXAMPLES = """
examples:
  {program} --dataset people --model sd15.safetensors --output run
  {program} --template > run.toml        every setting, with what it does
  {program} run.toml --steps 20000 --set anchor.ema_decay=0.9999
  {program} run.toml --resume            go on where it was interrupted
  accelerate launch -m dynamicid_core train anchor run.toml
"""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        add_stage_arguments(parser, "anchor")

    @staticmethod
    def run(options: argparse.Namespace) -> dict[str, Any] | None:
        return train_stage(options, "anchor")


class ReconfigureAction:
    """Stage 2: the networks that edit expression and pose learn from several photos of each person.

    Makes what is missing of the cache first. Writes imr.safetensors into the output folder, for the saa.safetensors that
    `anchor` has left there or that --saa names.
    """

    NAME, SUMMARY = "reconfigure", "stage 2: editing of expression and pose (imr.safetensors)"
    EXAMPLES = """
examples:
  {program} --dataset people --model sd15.safetensors --output run
  {program} run.toml --saa models/dynamicid/saa.safetensors
  {program} run.toml --set reconfigure.targets=4 --resume
"""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        add_stage_arguments(parser, "reconfigure")

    @staticmethod
    def run(options: argparse.Namespace) -> dict[str, Any] | None:
        return train_stage(options, "reconfigure")


ACTIONS = (CacheAction, AnchorAction, ReconfigureAction)
