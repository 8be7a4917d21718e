"""How an artist supplies what the core finds missing: the node to connect, the input to set."""

from __future__ import annotations

from ..dynamicid_core.types import Part, hinting

HINTS: dict[Part, str] = {
    "face detector": "Connect Load Face Analysis.",
    "detected face": "Encode a photo in which the face is visible, with Load Face Analysis connected.",
    "IMR weights": "Choose a file for imr_file in Load DynamicID (IMR.bin or imr.safetensors).",
    "CLIP vision": "Connect Load CLIP Vision with CLIP-ViT-H-14-laion2B-s32B-b79K.",
}


def hinted(execute):
    """A node's ``execute`` whose errors say what to connect."""
    return hinting(HINTS)(execute)
