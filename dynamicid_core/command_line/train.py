"""Train DynamicID on people of your own, or for another base model: anchoring, then reconfiguration.

`dataset build` makes the dataset of photos. Everything that frozen networks say of it is computed once, into a cache.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from .training import add_settings_arguments, fill_cache, makers_of, prepare, saa_file

SUMMARY = "photos to a checkpoint of your own"
EXAMPLES = """
from photos to a checkpoint that Load DynamicID takes:
  python -m dynamicid_core dataset build photos --output people
  {program} anchor --dataset people --model realistic_vision.safetensors --output run
  {program} reconfigure --dataset people --model realistic_vision.safetensors --output run

with everything in one file:
  {program} anchor --template > run.toml
  {program} anchor run.toml

on several GPUs or machines:
  accelerate launch -m dynamicid_core train anchor run.toml
"""


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
        stage = options.stage or ("both" if saa_file(prepared.settings).exists() else "anchor")
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
  {program} --dataset people --model realistic_vision.safetensors --output run
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
  {program} --dataset people --model realistic_vision.safetensors --output run
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
