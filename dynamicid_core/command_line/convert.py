"""Turn the published pickles into safetensors, bit for bit.

SAA.bin becomes saa.safetensors; IMR.bin and key_point_encoder.bin, which lie side by side, become imr.safetensors.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

SUMMARY = "published pickles to safetensors, bit for bit"
EXAMPLES = """
examples:
  {program} SAA.bin IMR.bin                      beside the originals
  {program} SAA.bin IMR.bin --output models      into another folder
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="SAA.bin, IMR.bin, key_point_encoder.bin")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="where to (default: beside the first file)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..checkpoints import convert

    written = convert(options.files, options.output)
    return {
        "text": "\n".join(f"wrote {path}" for path in written),
        "json": {"written": [str(path) for path in written]},
    }
