"""Node, library and command line do the same with the same request: words, landmarks, strength, defaults, mistakes."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from standins import pipeline as standins
from standins.face_shape import face_shape
from without_host import nodes_pack

from dynamicid_core import command_line
from dynamicid_core.checkpoints import MotionCheckpoint, load_saa
from dynamicid_core.command_line.people import make_face
from dynamicid_core.command_line.settings import PersonSettings
from dynamicid_core.encode import encode_photos
from dynamicid_core.face_files import save_face
from dynamicid_core.faces import DetectedFace
from dynamicid_core.motion import MotionNetworks
from dynamicid_core.networks.keypoints import KeypointEncoder, KeypointEncoderSizes
from dynamicid_core.networks.reconfigurator import Reconfigurator, ReconfiguratorSizes
from dynamicid_core.types import Face, hinting

pytest.importorskip("diffusers")

NODES = json.loads((Path(__file__).resolve().parents[1] / "data/object_info.json").read_text(encoding="utf-8"))


class Detector:
    """Finds one laughing face in any picture that is not black."""

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        landmarks = (face_shape(smile=0.08) * 20 + (40, 30)).astype(np.float32)
        found = DetectedFace((10, 5, 70, 60), 0.9, np.zeros((5, 2)), landmarks=landmarks, pose=(12.0, 20.0, 0.0))
        return [found] if image.any() else []


@pytest.fixture(scope="module")
def motion() -> MotionCheckpoint:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = KeypointEncoder(KeypointEncoderSizes(channels=(4, 8, 8, 8, 8, 8), head=8))
        imr = Reconfigurator(ReconfiguratorSizes(width=64, inner=64, feed_forward=64))
        for parameter in encoder.parameters():
            if parameter.ndim == 4:
                torch.nn.init.kaiming_normal_(parameter)  # else so few channels would forget the picture
    return MotionCheckpoint(imr.eval().requires_grad_(False), encoder.eval().requires_grad_(False))


@pytest.fixture(scope="module")
def library(motion):
    from dynamicid_core.hosts.diffusers import DynamicID

    return DynamicID(standins.make_pipeline(), load_saa(standins.saa_tensors()), motion, detector=Detector())


@pytest.fixture
def photos(tmp_path) -> dict[str, Path]:
    paths = {name: tmp_path / f"{name}.png" for name in ("laughing", "empty")}
    Image.new("RGB", (80, 64), (200, 200, 200)).save(paths["laughing"])
    Image.new("RGB", (80, 64)).save(paths["empty"])
    return paths


def sad_face(**fields) -> Face:
    generator = torch.Generator().manual_seed(1)
    tokens, null = torch.randn(2, 1, 4, 768, generator=generator)
    landmarks = torch.from_numpy(face_shape() / 4 + 0.5).float()
    known = {"landmarks": landmarks, "pose": torch.tensor([1.0, 40.0, 3.0]), "expression": "sad", "name": "ada"}
    return Face(tokens, null, "made by a test", **{**known, **fields})


@dataclasses.dataclass
class FrontEnds:
    """The three ways to edit a face; each notes the texts that it has encoded."""

    library: object
    motion: MotionCheckpoint | None
    folder: Path
    asked: list = dataclasses.field(default_factory=list)

    def text_features(self, texts):
        self.asked.append(list(texts))
        return torch.stack([torch.randn(768, generator=torch.Generator().manual_seed(sum(map(ord, t)))) for t in texts])

    def by_library(self, face: Face, detector, request: dict):
        return self.library.edit(face, **request)

    def by_command_line(self, face: Face, detector, request: dict):
        path = save_face(self.folder / "ada.safetensors", face)
        names = {"source": "expression_source", "strength": "expression_strength"}
        person = PersonSettings((str(path),), **{names.get(name, name): value for name, value in request.items()})
        with hinting(command_line.HINTS):
            return make_face(self.library, person, {})

    def by_node(self, face: Face, detector, request: dict):
        run = (lambda *inputs: self.motion.reconfigurator(*inputs), self.motion and self.motion.keypoint_encoder)
        networks = self.motion and MotionNetworks(*run, self.text_features)
        loaded = SimpleNamespace(motion_networks=lambda clip: networks)
        pictures = SimpleNamespace(to_arrays=lambda images: [np.asarray(Image.open(images))])
        with nodes_pack(nodes__pictures=pictures) as load:
            node = load("nodes.motion").DynamicIDEditMotion
            inputs = {"expression": "", **request}
            (edited,) = node.execute(loaded, face, None, face_analysis=detector, **inputs)
        return edited


WAYS = ("by_library", "by_command_line", "by_node")


@pytest.fixture
def front_ends(library, motion, tmp_path, monkeypatch) -> FrontEnds:
    ends = FrontEnds(library, motion, tmp_path)
    monkeypatch.setattr(library, "text_features", ends.text_features)
    return ends


# A request by what it gives, and the texts that must be encoded for it: of the source, of the target.
READ_OFF = "in a sad expression, in side view"
LAUGHING = "in a happy expression, facing up, in side view"
REQUESTS = {
    "words": ({"expression": " a happy expression, front view "}, [READ_OFF, "a happy expression, front view"]),
    "a preset's name": ({"expression": "very happy"}, [READ_OFF, "the expression is very happy"]),
    "words for the source": ({"expression": "anger", "source": " calm "}, ["calm", "anger"]),
    "a photo alone": ({"pose_image": "laughing"}, [READ_OFF, LAUGHING]),
    "a photo and blanks": ({"pose_image": "laughing", "expression": "  "}, [READ_OFF, LAUGHING]),
    "a photo and words": ({"pose_image": "laughing", "expression": "anger"}, [READ_OFF, "anger"]),
    "half of it": ({"expression": "anger", "strength": 0.5}, [READ_OFF, "anger"]),
    "none of it": ({"pose_image": "laughing", "strength": 0.0}, [READ_OFF, LAUGHING]),
}  # fmt: skip


def with_paths(request: dict, photos: dict[str, Path]) -> dict:
    return {name: str(photos[value]) if name == "pose_image" else value for name, value in request.items()}


@pytest.mark.filterwarnings("ignore:.*was made by the face encoder")
@pytest.mark.parametrize("name", REQUESTS)
def test_the_same_request_gives_the_same_face(front_ends, photos, name):
    request, texts = REQUESTS[name]
    made = [getattr(front_ends, way)(sad_face(), Detector(), with_paths(request, photos)) for way in WAYS]
    assert front_ends.asked == [texts] * len(WAYS)
    for face in made[1:]:
        assert torch.equal(face.tokens, made[0].tokens)
        assert torch.equal(face.landmarks, made[0].landmarks) and torch.equal(face.pose, made[0].pose)
        assert (face.expression, face.name) == (made[0].expression, "ada")
    assert torch.equal(made[0].tokens, sad_face().tokens) == (request.get("strength") == 0)


# A request that cannot be met: what it gives, what is taken away, and what every front end says.
IMPOSSIBLE = {
    "blanks": ({"expression": " "}, {}, "No expression and no pose is chosen."),
    "no weights": ({"expression": "anger"}, {"motion": None}, "Editing expressions needs the IMR weights."),
    "no landmarks": ({"expression": "anger"}, {"landmarks": None}, "The face ada has no landmarks"),
    "no detector": ({"pose_image": "laughing"}, {"detector": None}, "from a photo needs a face detector."),
    "nobody in the photo": ({"pose_image": "empty"}, {}, "No face was found in the photo."),
    "too much": ({"expression": "anger", "strength": 3.0}, {}, "Strength is 3.0"),
}


@pytest.mark.filterwarnings("ignore:.*was made by the face encoder")
@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_the_same_mistake_gets_the_same_sentence(front_ends, photos, library, monkeypatch, name):
    request, away, said = IMPOSSIBLE[name]
    detector = None if "detector" in away else Detector()
    monkeypatch.setattr(library.photos, "detector", detector)
    if "motion" in away:
        monkeypatch.setattr(library, "motion", None)
        front_ends.motion = None
    face = sad_face(**{key: value for key, value in away.items() if key == "landmarks"})
    sentences, hints = [], []
    for way in WAYS:
        with pytest.raises(ValueError) as caught:
            getattr(front_ends, way)(face, detector, with_paths(request, photos))
        error = caught.value
        if way == "by_node":  # the host gets the whole text under a name without a path; what was said is its cause
            assert str(error) == str(error.__cause__)
            error = error.__cause__
        sentences.append(error.args[0])
        hints.append(getattr(error, "hint", ""))
        assert str(error) == f"{sentences[-1]} {hints[-1]}".rstrip()
    assert said in sentences[0] and len(set(sentences)) == 1
    assert len(set(hints)) == (len(WAYS) if hints[0] else 1)  # each says how to supply it in its own words


def test_photos_are_read_with_the_same_defaults_everywhere():
    from dynamicid_core.hosts.diffusers import DynamicID

    names = {"order": "face_order", "index": "face_index", "crop_factor": "crop_factor", "on_no_face": "on_no_face"}
    node = NODES["DynamicIDEncodeFace"]["inputs"]
    core, library = (inspect.signature(f).parameters for f in (encode_photos, DynamicID.encode))
    for name, shown in names.items():
        default = core[name].default
        assert node[shown]["default"] == default, name
        if name in library:
            assert library[name].default == default, name
    # The command line passes on only what was typed.
    typed = command_line.parser().parse_args(["encode", "a.png"])
    assert command_line.encode.photo_options(typed) == {}
    assert NODES["DynamicIDEditMotion"]["inputs"]["strength"]["default"] == PersonSettings(("a",)).expression_strength
