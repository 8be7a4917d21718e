"""Types of the pack's sockets (docs/nodes.md)."""

from __future__ import annotations

from comfy_api.latest import io

DynamicID = io.Custom("DYNAMICID")
FaceAnalysis = io.Custom("FACE_ANALYSIS")
Face = io.Custom("DYNAMICID_FACE")
Cast = io.Custom("DYNAMICID_CAST")

CATEGORY = "DynamicID"


def growing_faces(tooltip: str) -> io.Autogrow.Input:
    """A list of faces whose slots are ``face0``, ``face1``, ...; another appears when the last is used."""
    face = Face.Input("face", tooltip="A face from Encode Face, Load Face, or any node that edits one.")
    return io.Autogrow.Input("faces", template=io.Autogrow.TemplatePrefix(face, "face", min=1, max=32), tooltip=tooltip)


def in_order(faces: dict[str, object]) -> list:
    """The connected faces of a growing list, by slot number; gaps are allowed."""
    slots = sorted(faces, key=lambda name: int("".join(filter(str.isdigit, name)) or 0))
    return [faces[slot] for slot in slots if faces[slot] is not None]
