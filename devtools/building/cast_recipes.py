"""Templates of few nodes: every model from one node, everybody from one."""

from __future__ import annotations

from dataclasses import replace

from graphs import Group, Link, Node

from .parts import PHOTOS, START, group, node_color, picture, start
from .settings import Setting

LOADER = "Load Models for DynamicID"
PHOTOS_OF_ONE = PHOTOS.replace("**Load DynamicID**", f"**{LOADER}**")  # where its button is
PARTS = {name: Link(LOADER, name) for name in ("dynamicid", "clip_vision", "face_analysis")}
LOADED = {name: Link(LOADER, name) for name in ("model", "clip", "vae", "dynamicid")}
NAMES = ("Anna", "Ben", "Cleo")


def loader(to: Setting) -> Group:
    """All models, from one node."""
    inputs = {
        "ckpt_name": to.checkpoint, "vae_name": to.vae, "clip_name": to.clip_vision, "saa_file": to.saa, "imr_file": "auto",
        "model_pack": to.face_pack,
    }  # fmt: skip
    return group(1, "Models", (Node("DynamicIDLoadModels", LOADER, inputs),))


def image_of(photo: Node) -> Link:
    return Link(photo.title, "IMAGE" if photo.type == "LoadImage" else "image")


def few_nodes(to: Setting) -> tuple[Group, ...]:
    text = (
        "For another person, connect one more photo to **Cast from Photos** and write one more name. Drag the boxes to where "
        "people shall be. Several photos of one person, as a batch or a list, go into one slot; so does a saved face."
    )
    photos = tuple(replace(to.photo(number, number), color=node_color(number - 1)) for number in (1, 2))
    inputs = PARTS | {f"photos.photo{number}": image_of(photo) for number, photo in enumerate(photos)}
    inputs |= {"names": ", ".join(NAMES[:2]), "crop_factor": to.crop_factor, "latent": Link("Picture size", "LATENT")}
    cast = Node("DynamicIDCast", "Cast from Photos", inputs)
    return (
        start(START, PHOTOS_OF_ONE, text),
        loader(to),
        group(2, "Who", photos),
        group(3, "Where", (cast,)),
        *picture(to, Link(cast.title, "cast"), 2, LOADED),
    )


def group_photo(to: Setting) -> tuple[Group, ...]:
    text = (
        "Write in **Encode Group Photo** a name for each face, from left to right; **-** leaves a face out. People stand where the "
        "photo shows them. To place them anew, connect its faces to **Cast from Photos**."
    )
    photo = replace(to.photo(1, 1), title="Group photo")
    if photo.type == "DynamicIDDrawnPerson":
        photo = replace(photo, inputs=photo.inputs | {"people": len(NAMES)})
    group_node = Node(
        "DynamicIDEncodeGroup", "Encode Group Photo", PARTS | {"image": image_of(photo), "names": "\n".join(NAMES)}
    )
    return (
        start(START, PHOTOS_OF_ONE, text),
        loader(to),
        group(2, "Who", (photo,)),
        group(3, "Where", (group_node,)),
        *picture(to, Link(group_node.title, "cast"), len(NAMES), LOADED),
    )


TITLES = {"group_photo": "8 Group Photo", "few_nodes": "9 Two People, Few Nodes"}
RECIPES = (group_photo, few_nodes)
