"""The packs of drawn faces in a models folder, where InsightFace's packs lie too."""

from __future__ import annotations

from pathlib import Path

from ..writing import copy
from .carried import FACES, WEIGHTS, pack_files, path_of

JUDGE = "judge"  # a folder beside FACES: what tells whether pictures are good, and took no part in making them
DRAWN, DRAWN_JUDGE = "drawn", "drawn_judge"  # the packs' names
EXPRESSION_JUDGE = "expression_judge.onnx"  # for `evaluate --expressions`, beside the judge's pack


def fill_packs(models: Path, weights: Path = WEIGHTS) -> None:
    """``drawn`` and ``drawn_judge`` below ``models``/insightface/models. Both find faces with the same file."""
    detector = path_of(f"{FACES}/det_drawn.onnx", weights)
    packs = {DRAWN: pack_files(path_of(FACES, weights)), DRAWN_JUDGE: pack_files(path_of(JUDGE, weights))}
    for pack, files in packs.items():
        folder = models / "insightface" / "models" / pack
        for file in {*files, detector}:
            copy(file, folder / file.name)
