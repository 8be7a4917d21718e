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


def in_order(values: dict[str, object]) -> list:
    """What is connected to a growing list, by slot number; gaps are allowed."""
    numbered = with_numbers(values)
    return [numbered[number] for number in sorted(numbered)]


def with_numbers(values: dict[str, object]) -> dict[int, object]:
    """What is connected to a growing list: slot number, from 0 -> value."""
    numbers = {int("".join(filter(str.isdigit, slot)) or 0): value for slot, value in values.items()}
    return {number: value for number, value in numbers.items() if value is not None}
