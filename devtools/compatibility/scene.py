"""Graphs for the host's API: the drawn world's pictures of two people, with a place for other nodes in them.

Nodes with the same type and inputs are one node, so that what two branches of a graph share is one object in the host.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graphs

from dynamicid_core.drawn import world
from dynamicid_core.drawn.people import HELD_OUT

from .models import PHOTO, Base, companion, face_file

Link = list  # [node, output] of a node's output
WIDTH, HEIGHT = 128, 64  # px: the smallest that halves three times; what is tried is not a matter of size
STEPS, GUIDANCE, SEED = 2, 4.0, 7
PROMPT, NEGATIVE = "a drawing of two people, blue background", "a drawing of one person"
SAMPLER = {"cfg": GUIDANCE, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}


class Scene:
    """A graph that grows. ``frames``: how many pictures are sampled together; ``base``: in place of the drawn world's;
    ``people``: whether :meth:`faces` puts anybody into a model; ``title``: scenes with other titles share no Apply DynamicID,
    which warns once."""

    def __init__(
        self, frames: int = 1, base: Base | None = None, people: bool = True, round_: int = 0, title: str = ""
    ) -> None:
        self.nodes: dict[str, dict] = {}
        self.kept: dict[str, Link] = {}
        self.frames, self.base, self.people, self.round, self.title = frames, base, people, round_, title

    def node(self, kind: str, **inputs: Any) -> str:
        """The number of the node of this type with these inputs."""
        content = {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}
        for number, known in self.nodes.items():
            if known == content:
                return number
        number = str(len(self.nodes) + 1)
        self.nodes[number] = content
        return number

    def link(self, kind: str, output: int = 0, **inputs: Any) -> Link:
        return [self.node(kind, **inputs), output]

    def keep(self, value: Link, name: str) -> None:
        """All bits of a latent or picture go to a file of this name."""
        self.kept[name] = value
        self.node("CompatibilityKeep", value=value, name=name)

    def as_text(self, name: str) -> str:
        """How what is kept under this name comes about: the same text for the same graph in any scene."""
        return json.dumps(self._unfolded(self.kept[name]))

    def _unfolded(self, link: Link) -> list:
        content = self.nodes[link[0]]
        inputs = {
            name: self._unfolded(value) if isinstance(value, list) else value
            for name, value in content["inputs"].items()
        }
        return [content["class_type"], link[1], inputs]

    # --- what a graph begins with ---------------------------------------------------------------------------------

    def _checkpoint(self, output: int) -> Link:
        return self.link("CheckpointLoaderSimple", output, ckpt_name=Path(world.CHECKPOINT).name)

    @property
    def model(self) -> Link:
        if self.base:
            return self.link("UNETLoader", unet_name=Path(self.base.unet).name, weight_dtype="default")
        return self._checkpoint(0)

    def companion(self, kind: str) -> str:
        """Name of the file of this kind that was made for the scene's base."""
        return Path(companion(kind, self.base)).name

    @property
    def clip(self) -> Link:
        return self._checkpoint(1)

    @property
    def vae(self) -> Link:
        return self._checkpoint(2)

    @property
    def positive(self) -> Link:
        return self.text(PROMPT)

    @property
    def negative(self) -> Link:
        return self.text(NEGATIVE)

    def text(self, text: str) -> Link:
        return self.link("CLIPTextEncode", clip=self.clip, text=text)

    @property
    def latent(self) -> Link:
        return self.link("EmptyLatentImage", width=WIDTH, height=HEIGHT, batch_size=self.frames)

    @property
    def vision(self) -> Link:
        return self.link("CLIPVisionLoader", clip_name=Path(world.CLIP_VISION).name)

    def photo(self, person: int) -> Link:
        return self.link("DynamicIDDrawnPerson", seed=HELD_OUT + person, size=PHOTO)

    def mask(self) -> Link:
        """A soft mask over the right half of the picture."""
        size = {"width": WIDTH, "height": HEIGHT}
        half = self.link("SolidMask", value=0.0, **size)
        box = self.link("SolidMask", value=1.0, width=WIDTH // 2, height=HEIGHT)
        whole = self.link("MaskComposite", destination=half, source=box, x=WIDTH // 2, y=0, operation="add")
        return self.link("FeatherMask", mask=whole, left=16, top=0, right=0, bottom=0)

    # --- DynamicID ------------------------------------------------------------------------------------------------

    @property
    def weights(self) -> Link:
        file = self.base.saa if self.base else world.SAA
        return self.link("DynamicIDLoader", saa_file=Path(file).name, imr_file="none")

    def face(self, person: int) -> Link:
        return self.link("DynamicIDLoadFace", face_file=face_file(person))

    def cast(self, *people: int) -> Link:
        faces = {f"faces.face{place}": self.face(person) for place, person in enumerate(people)}
        if len(people) == 1:
            return self.link("DynamicIDPlaceFace", face=self.face(people[0]))
        return self.link("DynamicIDPlaceFaces", **faces)

    def faces(self, model: Link, *people: int) -> Link:
        """A model with these people in it (the first two unless said otherwise), or as it is in a scene without people."""
        if not self.people:
            return model
        return self.link(
            "DynamicIDApply", model=model, dynamicid=self.weights, cast=self.cast(*(people or (0, 1))),
            gate_threshold=world.GATE_THRESHOLD, layout_strength=world.LAYOUT_STRENGTH, title=self.title,
        )  # fmt: skip

    # --- sampling -------------------------------------------------------------------------------------------------

    def sample(self, model: Link, **changed: Any) -> Link:
        """A latent, sampled anew in each round although nothing else changes."""
        inputs = {
            "model": model, "positive": self.positive, "negative": self.negative, "latent_image": self.latent,
            "seed": SEED, "steps": STEPS, **SAMPLER, **changed,
        }  # fmt: skip
        return self.link("KSampler", **inputs, **self.again)

    @property
    def again(self) -> dict[str, int]:
        """An input that no node has, as ``title``: the host passes over it, but takes a node with another one for another node."""
        return {"round": self.round}

    def decode(self, latent: Link) -> Link:
        return self.link("VAEDecode", samples=latent, vae=self.vae)

    def prompt(self, object_info: dict[str, dict]) -> dict[str, dict]:
        """The graph in API format; inputs that were not given get the host's defaults."""
        return {number: _with_defaults(content, object_info) for number, content in self.nodes.items()}


def _with_defaults(content: dict, object_info: dict[str, dict]) -> dict:
    kind, given = content["class_type"], content["inputs"]
    if kind not in object_info:
        raise KeyError(f"The host has no node {kind}")
    inputs = {}
    for slot in graphs.slots(object_info[kind], given):
        if slot.is_widget and slot.name not in given and not slot.optional:
            inputs[slot.name] = graphs.default_value(slot, object_info[kind])
    return {**content, "inputs": {**inputs, **given}}
