"""Cast from Photos, Encode Group Photo and Load Models for DynamicID in real graphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from comfy_host import CHECKPOINT, VAE, VISION, Host, HostError, captured_log
from PIL import Image
from standins.portraits import draw_portrait

SIZE = 256
BOXES = [{"x": 0, "y": 0, "width": 50, "height": 100}, {"x": 50, "y": 0, "width": 50, "height": 100}]
Nodes = dict[str, tuple[str, dict]]


def graph(nodes: Nodes) -> dict[str, dict]:
    return {
        name: {"class_type": cls, "inputs": inputs, "_meta": {"title": name}} for name, (cls, inputs) in nodes.items()
    }


MODELS: Nodes = {
    "models": (
        "DynamicIDLoadModels",
        {
            "ckpt_name": CHECKPOINT, "vae_name": VAE, "clip_name": VISION, "saa_file": "saa.safetensors", "imr_file": "none",
            "model_pack": "buffalo_l",
        },
    )
}  # fmt: skip
PARTS = {"dynamicid": ["models", 3], "clip_vision": ["models", 4], "face_analysis": ["models", 5]}
CAST = {
    **PARTS, "names": "Anna, Ben", "layout": "side by side", "drawn_boxes": "", "weights": "1", "crop_factor": 0.0,
    "on_no_face": "error", "width": 1024, "height": 1024,
}  # fmt: skip


@pytest.fixture(scope="module")
def ready(host: Host) -> Host:
    """The host with three portraits, a photo of two people and one of nobody in its input folder."""
    folder = host.base / "input"
    portraits = [draw_portrait(number, SIZE) for number in range(3)]
    for number, portrait in enumerate(portraits):
        portrait.save(folder / f"person_{number}.png")
    small = portraits[1].resize((SIZE * 3 // 4, SIZE * 3 // 4))
    both = Image.new("RGB", (SIZE * 7 // 4, SIZE), portraits[0].getpixel((2, 2)))
    both.paste(portraits[0], (0, 0))
    both.paste(small, (SIZE, SIZE // 8))
    both.save(folder / "group.png")
    Image.new("RGB", (64, 64), "white").save(folder / "nobody.png")
    host.nodes.NODE_CLASS_MAPPINGS["TestPhotos"] = Several
    host.forget()
    return host


class Several:
    """Photos as a list, as folders of pictures come."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"one": ("IMAGE",), "other": ("IMAGE",)}})
    RETURN_TYPES = ("IMAGE",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "give"
    CATEGORY = "tests"

    def give(self, one, other) -> tuple:
        return ([one, other],)


def photos(*names: str) -> Nodes:
    return {f"photo {i}": ("LoadImage", {"image": f"{name}.png"}) for i, name in enumerate(names)}


def cast_of(*names: str, **inputs) -> Nodes:
    slots = {f"photos.photo{i}": [f"photo {i}", 0] for i in range(len(names))}
    return MODELS | photos(*names) | {"cast": ("DynamicIDCast", {**CAST, **slots, **inputs})}


def test_each_photo_is_the_face_of_encode_face_named_and_placed(ready: Host) -> None:
    encode = {
        **PARTS, "image": ["photo 1", 0], "face_order": "large-small", "face_index": 0, "crop_factor": 0.0, "combine": "average",
        "on_no_face": "error", "name": "Ben",
    }  # fmt: skip
    nodes = cast_of("person_0", "person_1") | {"alone": ("DynamicIDEncodeFace", encode)}
    result = ready.run_graph(graph(nodes), capture=[("cast", 0), ("cast", 1), ("alone", 0)])
    cast, preview, alone = (result.values[key] for key in (("cast", 0), ("cast", 1), ("alone", 0)))
    assert [person.face.name for person in cast.people] == ["Anna", "Ben"] and alone.name == "Ben"
    assert torch.equal(cast.people[1].face.tokens, alone.tokens)
    left, right = (person.region.box for person in cast.people)
    assert left[3] <= 0.5 <= right[1]
    assert preview.shape == (3, 1024, 1024, 3) and len(result.ui["cast"]["images"]) == 3


def test_who_changes_one_photo_waits_for_that_one_alone(ready: Host, monkeypatch) -> None:
    encoder = ready.module("dynamicid_core.hosts.comfy").ClipVision
    tokens, seen = encoder.tokens, []

    def watched(self, pixels):
        seen.append(len(pixels))
        return tokens(self, pixels)

    monkeypatch.setattr(encoder, "tokens", watched)
    first = ready.run_graph(graph(cast_of("person_0", "person_1")), capture=[("cast", 0)]).values["cast", 0]
    seen.clear()
    wanted = [("cast", 0)]
    other = ready.run_graph(graph(cast_of("person_0", "person_2", names="Anna, Cleo")), capture=wanted).values[
        "cast", 0
    ]
    assert seen == [1]
    assert torch.equal(other.people[0].face.tokens, first.people[0].face.tokens)
    assert not torch.equal(other.people[1].face.tokens, first.people[1].face.tokens)
    moved = cast_of("person_0", "person_2", names="A", layout="drawn", drawn_boxes="0,0,0.4,1")
    moved = ready.run_graph(graph(moved), capture=wanted).values["cast", 0]
    assert seen == [1] and moved.people[1].region is None and moved.people[0].face.name == "A"


def test_lists_batches_faces_masks_boxes_and_casts_all_fit(ready: Host) -> None:
    nodes = cast_of("person_0", "person_1", "person_2", names="Anna, Ben,,Dan", weights="1, 0.9, 0.8, 0.7")
    nodes |= {
        "list": ("TestPhotos", {"one": ["photo 0", 0], "other": ["wide", 0]}),
        "wide": ("ImageScale", {"image": ["photo 0", 0], "upscale_method": "bilinear", "width": 300, "height": 256, "crop": "center"}),
        "batch": ("ImageBatch", {"image1": ["photo 1", 0], "image2": ["photo 2", 0]}),
        "group": ("DynamicIDEncodeGroup", {
            **PARTS, "image": ["group photo", 0], "names": "Cleo", "face_order": "left-right", "crop_factor": 2.0,
            "place_factor": 3.0, "smallest": 0, "weight": 1.0,
        }),
        "group photo": ("LoadImage", {"image": "group.png"}),
        "mask": ("SolidMask", {"value": 1.0, "width": 8, "height": 8}),
        "size": ("EmptyLatentImage", {"width": 96, "height": 64, "batch_size": 1}),
    }  # fmt: skip
    nodes["cast"][1].update({
        "photos.photo0": ["list", 0], "photos.photo1": ["batch", 0], "photos.photo2": ["group", 0], "masks.mask1": ["mask", 0],
        "bboxes": {"__value__": BOXES},
        "width": 100, "height": 100, "cast": ["group", 1], "latent": ["size", 0],
    })  # fmt: skip
    values = ready.run_graph(graph(nodes), capture=[("cast", 0), ("cast", 1), ("group", 0)]).values
    people, preview = values["cast", 0].people, values["cast", 1]
    assert [person.face.name for person in people] == ["Cleo", "", "Anna", "Ben", "Cleo", "Dan"]
    assert [person.weight for person in people] == [1, 1, 1, 0.9, 0.8, 0.7]
    assert people[2].region.box == (0, 0, 1, 0.5) and people[3].region.mask is not None and people[5].region is None
    assert preview.shape == (5, 341, 512, 3)  # the cast, two photos of Anna, two of Ben


def test_a_group_photo_is_a_cast_from_left_to_right(ready: Host) -> None:
    inputs = {
        **PARTS, "image": ["photo 0", 0], "names": "Anna\nBen", "face_order": "left-right", "crop_factor": 2.0, "place_factor": 3.0,
        "smallest": 0, "weight": 0.8,
    }  # fmt: skip
    nodes = MODELS | photos("group") | {"group": ("DynamicIDEncodeGroup", inputs)}
    result = ready.run_graph(graph(nodes), capture=[("group", 0), ("group", 1), ("group", 2)])
    cast, preview = result.values["group", 1], result.values["group", 2]
    assert [person.face.name for person in cast.people] == ["Anna", "Ben"] and cast.people[0].weight == 0.8
    (_, _, _, end), (_, start, _, _) = (person.region.box for person in cast.people)
    assert end <= start and preview.shape == (1, SIZE, SIZE * 7 // 4, 3) and len(result.ui["group"]["images"]) == 1
    names = {"names": "Anna, Ben, Cleo"}
    with pytest.raises(HostError, match="There are 2 people but 3 names"):
        ready.run_graph(graph(nodes | {"group": ("DynamicIDEncodeGroup", inputs | names)}), capture=[("group", 1)])


def test_mistakes_and_warnings_name_people(ready: Host) -> None:
    with pytest.raises(HostError, match=r"Person 2 \(Ben\): No face was found in the photo"):
        ready.run_graph(graph(cast_of("person_0", "nobody")), capture=[("cast", 0)])
    with captured_log() as log:
        ready.run_graph(graph(cast_of("group", "person_2")), capture=[("cast", 0)])
    assert any("Person 1 (Anna): the photo shows 2 faces; the largest is taken, face 0 (left)" in line for line in log)
    with pytest.raises(HostError, match="bboxes holds 5 where a box belongs"):
        ready.run_graph(graph(cast_of("person_0", bboxes={"__value__": [5]})), capture=[("cast", 0)])


def test_one_node_loads_what_five_do_and_keeps_each_when_another_changes(ready: Host, monkeypatch) -> None:
    loaders = ("CheckpointLoaderSimple", "VAELoader", "CLIPVisionLoader", "DynamicIDLoader", "DynamicIDFaceAnalysis")
    ran: list[str] = []
    for name in loaders:
        cls = ready.nodes.NODE_CLASS_MAPPINGS[name]
        function = getattr(cls, cls.FUNCTION if not name.startswith("DynamicID") else "execute")
        watched = _noted(function, name, ran)
        monkeypatch.setattr(cls, function.__name__, classmethod(watched) if name.startswith("DynamicID") else watched)
    wanted = [("models", slot) for slot in range(6)]
    ready.forget()
    first = ready.run_graph(graph(MODELS), capture=wanted).values
    assert sorted(ran) == sorted(loaders) and all(first[key] is not None for key in wanted)
    ran.clear()
    changed = {"models": ("DynamicIDLoadModels", MODELS["models"][1] | {"vae_name": "of the checkpoint"})}
    second = ready.run_graph(graph(changed), capture=wanted).values
    assert ran == [] and second["models", 0] is first["models", 0] and second["models", 2] is not first["models", 2]
    missing = {"models": ("DynamicIDLoadModels", MODELS["models"][1] | {"saa_file": "gone.safetensors"})}
    with pytest.raises(HostError, match="There is no file 'gone.safetensors' in models/dynamicid"):
        ready.run_graph(graph(missing), capture=wanted)


def _noted(function, name: str, ran: list[str]):
    plain = getattr(function, "__func__", function)

    def noted(*args, **inputs):
        ran.append(name)
        return plain(*args, **inputs)

    noted.__name__ = plain.__name__
    return noted


def test_drawn_people_stand_side_by_side(ready: Host) -> None:
    inputs = {"seed": 10000, "expression": "neutral", "pose": "front view", "size": 64}
    (three,) = ready.node("DynamicIDDrawnPerson")(**inputs, people=3)
    (one,) = ready.node("DynamicIDDrawnPerson")(**inputs)
    assert three.shape == (1, 64, 160, 3) and one.shape == (1, 64, 64, 3)
    assert np.abs((three[:, :, 16:48] - one[:, :, 16:48]).numpy()).mean() < 0.02  # the first is who would stand alone
