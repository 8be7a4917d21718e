"""Fetch the published DynamicID weights from the Hugging Face hub.

An interrupted download goes on where it stopped, and what came is checked. Nothing else is ever fetched: the base model, CLIP and InsightFace's
face models have licences of their own, and where to get them is said where they are missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..catalogue import model_file
from ..writing import check_folder

SAA, IMR = model_file("saa"), model_file("imr")
SUMMARY = (
    f"fetch the published weights ({SAA.gigabytes + IMR.gigabytes:.1f} GB, {SAA.licence}) from the Hugging Face hub"
)
EXAMPLES = """
examples:
  {program}                                      into models/dynamicid
  {program} ComfyUI/models/dynamicid --convert   and write them as safetensors too
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("models/dynamicid"), help="where to (default: %(default)s)"
    )
    parser.add_argument("--convert", action="store_true", help=f"also write {SAA.name} and {IMR.name} there")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..checkpoints import convert
    from ..fetching import fetch_weights, show

    check_folder(options.folder)
    files = fetch_weights(options.folder, None if options.quiet else show)
    files += convert([*files], options.folder) if options.convert else []
    return {"text": "\n".join(f"have {path}" for path in files), "json": {"files": [str(path) for path in files]}}
