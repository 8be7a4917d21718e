"""The command line, one file for each command. What a user types: ``python -m dynamicid_core --help``.

Exit codes: 0 done, 1 a mistake that one line on stderr explains (several, where each thing is done apart), 2 wrong
usage, 130 interrupted. With ``--json`` stdout has one JSON object and nothing else; progress and messages always go to
stderr.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from ..types import DynamicIDError, Part, hinting
from . import convert, dataset, download, drawn, edit, encode, evaluate, generate, train

PROGRAM = "python -m dynamicid_core"
COMMANDS = (encode, edit, generate, dataset, train, evaluate, drawn, convert, download)
HINTS: dict[Part, str] = {  # how a user supplies what the core finds missing
    "face detector": "Name an InsightFace model pack with --detector.",
    "detected face": "Encode a photo in which the face is visible.",
    "IMR weights": "Give --imr (IMR.bin or imr.safetensors).",
    "CLIP vision": "Give --clip-vision (CLIP-ViT-H-14-laion2B-s32B-b79K).",
}
OUT_OF_MEMORY = (
    "There is not enough memory for this. Close what else uses the graphics card, ask for less at once (a smaller size, fewer "
    "people or photos), or run it on the CPU with --device cpu."
)

EXAMPLES = f"""
from nothing to a picture:
  {PROGRAM} download models/dynamicid --convert
  {PROGRAM} generate anna.jpg ben.jpg --model realistic_vision.safetensors --prompt "two people at a cafe"

from photos to weights of your own, and how good they are:
  {PROGRAM} dataset build photos --output people
  {PROGRAM} train anchor --dataset people --model realistic_vision.safetensors --output run
  {PROGRAM} train reconfigure --dataset people --model realistic_vision.safetensors --output run
  {PROGRAM} evaluate --saa run/saa.safetensors --prompts prompts.txt --people faces --output judged

without any model files: drawn people, by small networks that the project brings:
  {PROGRAM} generate --stand-in --explain

every command has its own examples: {PROGRAM} generate --help
"""


def _describe(commands: Any, module: Any, name: str) -> argparse.ArgumentParser:
    """A parser for a command or an action of one, with its summary, description and examples."""
    return commands.add_parser(
        name.rpartition(" ")[2],
        help=module.SUMMARY,
        description=inspect.getdoc(module),
        epilog=module.EXAMPLES.format(program=f"{PROGRAM} {name}"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add(commands: Any, module: Any, name: str) -> None:
    """Add a command, or an action of one, to the subparsers ``commands``.

    A module (or any object) has ``SUMMARY``, ``EXAMPLES`` and a docstring; ``add_arguments(parser)`` and ``run(options)``;
    a command with actions has ``ACTIONS`` instead of these two: objects of the same form, with a ``NAME``.
    """
    command = _describe(commands, module, name)
    if hasattr(module, "ACTIONS"):
        actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
        for action in module.ACTIONS:
            _add(actions, action, f"{name} {action.NAME}")
        return
    module.add_arguments(command)
    command.add_argument("--json", action="store_true", help="print one JSON object to stdout instead of text")
    command.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    command.set_defaults(run=module.run)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog=PROGRAM,
        description="DynamicID: people from photos in generated pictures, with the expression of each edited separately.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        _add(commands, module, module.__name__.rpartition(".")[2])
    return top


def _ran_out_of_memory(error: Exception) -> bool:
    """Whether torch, which only some commands import, or Python found no memory left."""
    torch = sys.modules.get("torch")
    return isinstance(error, (MemoryError, *((torch.OutOfMemoryError,) if torch else ())))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Wrong usage ends in SystemExit(2), as argparse does it."""
    options = parser().parse_args(arguments)
    try:
        with warnings.catch_warnings(), hinting(HINTS):
            warnings.simplefilter("ignore", FutureWarning)  # of packages, to their programmers
            result = options.run(options)
    except Exception as error:
        said = OUT_OF_MEMORY if _ran_out_of_memory(error) else str(error)
        if not isinstance(error, DynamicIDError) and said is not OUT_OF_MEMORY:
            raise
        message = " ".join(said.split())
        print(f"error: {message}", file=sys.stderr)
        if options.json:
            print(json.dumps({"error": message}))
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    if result is not None:  # one of several processes speaks for all
        print(json.dumps(result["json"], ensure_ascii=False) if options.json else result["text"])
    return 1 if result and result.get("failed") else 0
