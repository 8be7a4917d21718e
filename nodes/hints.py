"""Errors as an artist reads them: how to supply what is missing, without the folders of the installation."""

from __future__ import annotations

import functools

from ..dynamicid_core.types import DynamicIDError, Part, hinting

HINTS: dict[Part, str] = {
    "face detector": "Connect Load Face Analysis.",
    "detected face": "Encode a photo in which the face is visible, with Load Face Analysis connected.",
    "IMR weights": "Choose a file for imr_file in Load DynamicID (IMR.bin or imr.safetensors).",
    "CLIP vision": "Connect Load CLIP Vision with CLIP-ViT-H-14-laion2B-s32B-b79K.",
}


class Told(DynamicIDError):
    """A DynamicIDError for the host, which shows an error's type with its module: here a path, unless it is built in."""


Told.__name__ = Told.__qualname__ = DynamicIDError.__name__
Told.__module__ = "builtins"


def hinted(execute):
    """A node's ``execute`` whose errors say what to connect, and name no folder of the installation."""
    with_hints = hinting(HINTS)(execute)

    @functools.wraps(execute)
    def told(*args, **inputs):
        try:
            return with_hints(*args, **inputs)
        except DynamicIDError as error:
            from .folders import without_folders

            raise Told(without_folders(str(error))) from error

    return told
