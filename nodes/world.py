"""The drawn world's files, made where a models folder has no weights at all: every template runs as it is opened."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import folder_paths

from ..dynamicid_core.types import DynamicIDError
from .folders import checkpoints

SWITCH = "DYNAMICID_WORLD"  # an environment variable; 0: leave the models folder as it is


def fill_empty_models() -> None:
    """Fill the models folder with the drawn world (seconds), unless weights are there or ``SWITCH`` is 0."""
    if os.environ.get(SWITCH) == "0" or checkpoints("saa"):
        return
    from ..dynamicid_core.drawn.world import fill

    try:
        fill(Path(folder_paths.models_dir))
    except DynamicIDError as error:
        logging.warning("DynamicID: no example models were made. %s", error)
    else:
        logging.info("DynamicID: models/dynamicid was empty, so small example models of drawn people were made.")
