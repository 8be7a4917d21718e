"""A photo's motion, edits of tokens by small real networks, and the one decision that all front ends share."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from standins.face_shape import face_shape

from dynamicid_core import motion
from dynamicid_core.faces import DetectedFace
from dynamicid_core.landmarks import landmark_raster
from dynamicid_core.motion import MotionNetworks, edit_face
from dynamicid_core.networks.keypoints import KeypointEncoder, KeypointEncoderSizes
from dynamicid_core.networks.reconfigurator import Reconfigurator, ReconfiguratorSizes
from dynamicid_core.types import DynamicIDError, Face, Missing


class Detector:
    """Finds what it was given."""

    def __init__(self, *faces: DetectedFace) -> None:
        self.faces = list(faces)

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        return self.faces


LANDMARKS = (face_shape(smile=0.08) * 50 + (100, 60)).astype(np.float32)
SMALL = DetectedFace((0, 0, 10, 10), 0.9, np.zeros((5, 2)))
LARGE = DetectedFace((50, 0, 150, 110), 0.9, np.zeros((5, 2)), landmarks=LANDMARKS, pose=(12.0, 20.0, 0.0))
PHOTO = np.zeros((120, 200, 3), np.uint8)
TOKENS = 16  # width of the tokens here; 768 in earnest


def test_a_photos_motion_can_be_the_target():
    target = motion.read_target(PHOTO, Detector(SMALL, LARGE))
    assert torch.allclose(target.landmarks, torch.from_numpy(LANDMARKS / (200, 120)).float())
    assert target.pose.tolist() == [12, 20, 0] and target.expression == "happy"
    assert target.prompt == "in a happy expression, facing up, in side view"
    with pytest.raises(DynamicIDError, match="no landmarks"):
        motion.read_target(PHOTO, Detector(SMALL))
    with pytest.raises(DynamicIDError, match="No face was found"):
        motion.read_target(PHOTO, Detector())
    with pytest.raises(Missing, match="needs a face detector") as caught:
        motion.read_target(PHOTO, None)
    assert caught.value.part == "face detector"


# --- Edits ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    sizes = KeypointEncoderSizes(channels=(4, 8, 8, 8, 8, 8), head=8)
    encoder = KeypointEncoder(dataclasses.replace(sizes, out=TOKENS)).eval()
    imr = Reconfigurator(
        ReconfiguratorSizes(token=TOKENS, motion=2 * TOKENS, width=64, inner=128, feed_forward=64)
    ).eval()
    for parameter in encoder.parameters():
        if parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter)  # else so few channels would forget the picture
    return MotionNetworks(imr.requires_grad_(False), encoder.requires_grad_(False), lambda texts: texts_of(*texts))


def make_face(groups: int = 1, **fields) -> Face:
    torch.manual_seed(groups)
    tokens = torch.randn(1, 4 * groups, TOKENS)
    values = {
        "uncond_tokens": torch.randn(1, 4 * groups, TOKENS),
        "encoder": "abc",
        "landmarks": torch.from_numpy(face_shape() / 4 + 0.5).float(),
        "pose": torch.tensor([1.0, 2.0, 3.0]),
        "identity": torch.nn.functional.normalize(torch.randn(512), dim=0),
        "mix": (0.7, 0.3)[:groups] if groups > 1 else (1.0,),
        "expression": "neutral",
        "name": "Ada",
    }
    return Face(tokens, **(values | fields))


def texts(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(count + 100)
    return torch.randn(1, TOKENS), torch.randn(count, TOKENS)


def texts_of(*words: str) -> torch.Tensor:
    """A feature for each text, the same for the same text."""
    rows = [torch.randn(TOKENS, generator=torch.Generator().manual_seed(sum(map(ord, word)))) for word in words]
    return torch.stack(rows)


def test_one_pass_for_all_targets_gives_what_single_edits_give(networks):
    face, (source, target) = make_face(), texts(5)
    calls = []
    hook = networks.reconfigurator.register_forward_hook(lambda *_: calls.append(1))
    edited = motion.edit_motion(face, networks, source, target)
    hook.remove()
    assert len(calls) == 1 and len(edited) == 5
    for i, one in enumerate(edited):
        (single,) = motion.edit_motion(face, networks, source, target[i : i + 1])
        assert torch.allclose(one.tokens, single.tokens, atol=1e-5)
        assert one.tokens.shape == (1, 4, TOKENS) and one.tokens.dtype == torch.float32
    assert (edited[0].tokens - edited[1].tokens).abs().max() > 1e-3  # the text matters


def test_it_is_the_networks_own_value_with_the_sources_landmarks_by_default(networks):
    face, (source, target) = make_face(), texts(2)
    edited = motion.edit_motion(face, networks, source, target)
    with torch.no_grad():
        feature = networks.keypoint_encoder(landmark_raster(face.landmarks))
        expected = networks.reconfigurator(face.tokens, feature, feature.expand(2, -1), source, target)
    assert torch.allclose(torch.cat([e.tokens for e in edited]), expected, atol=1e-5)
    same = motion.edit_motion(face, networks, source, target, target_landmarks=face.landmarks)
    assert torch.allclose(same[1].tokens, edited[1].tokens, atol=1e-5)


def test_target_landmarks_change_the_result_and_are_kept(networks):
    face, (source, target) = make_face(), texts(2)
    other = torch.from_numpy(np.stack([face_shape(gap=0.3), face_shape(smile=0.1)]) / 4 + 0.5).float()
    plain = motion.edit_motion(face, networks, source, target)
    edited = motion.edit_motion(face, networks, source, target, other, target_pose=torch.tensor([9.0, 8.0, 7.0]))
    for i in range(2):
        assert (edited[i].tokens - plain[i].tokens).abs().max() > 1e-5
        assert torch.equal(edited[i].landmarks, other[i]) and edited[i].pose.tolist() == [9, 8, 7]
        assert torch.equal(plain[i].landmarks, face.landmarks) and torch.equal(plain[i].pose, face.pose)
    shared = motion.edit_motion(face, networks, source, target, other[1].numpy())
    assert torch.allclose(shared[1].tokens, edited[1].tokens, atol=1e-5) and shared[0].pose is None
    assert torch.equal(shared[0].landmarks, other[1])


def test_what_is_not_motion_is_carried_over_and_the_face_stays_as_it_was(networks):
    face, (source, target) = make_face(), texts(1)
    before = face.tokens.clone()
    (edited,) = motion.edit_motion(face, networks, source, target)
    assert torch.equal(face.tokens, before)
    for field in dataclasses.fields(Face):
        if field.name not in ("tokens", "expression"):
            assert getattr(edited, field.name) is getattr(face, field.name), field.name
    assert edited.expression is None and face.expression == "neutral"


def test_strength_runs_through_token_space(networks):
    face, (source, target) = make_face(), texts(1)
    (full,) = motion.edit_motion(face, networks, source, target)
    target = target.expand(5, -1)
    faces = motion.edit_motion(face, networks, source, target, strength=[0, 0.25, 1, 1.5, 2])
    assert torch.equal(faces[0].tokens, face.tokens) and faces[0].expression == "neutral"
    step = full.tokens - face.tokens
    for edited, strength in zip(faces[1:], (0.25, 1, 1.5, 2), strict=True):
        assert torch.allclose(edited.tokens, face.tokens + strength * step, atol=1e-4)
    (none,) = motion.edit_motion(face, networks, source, target[:1], face.landmarks + 0.1, strength=0.0)
    assert torch.equal(none.tokens, face.tokens) and torch.equal(none.landmarks, face.landmarks)


@pytest.mark.parametrize("strength", [-0.1, 2.1, float("nan"), [1.0, 3.0]])
def test_strengths_out_of_range_are_refused(networks, strength):
    with pytest.raises(DynamicIDError, match="Strength is"):
        motion.edit_motion(make_face(), networks, *texts(2), strength=strength)


def test_blended_faces_are_edited_person_by_person(networks):
    face, (source, target) = make_face(groups=2), texts(3)
    edited = motion.edit_motion(face, networks, source, target)
    for group in range(2):
        part = slice(4 * group, 4 * group + 4)
        alone = dataclasses.replace(make_face(), tokens=face.tokens[:, part])
        for got, expected in zip(edited, motion.edit_motion(alone, networks, source, target), strict=True):
            assert torch.allclose(got.tokens[:, part], expected.tokens, atol=1e-5)
    assert all(e.mix == face.mix and e.tokens.shape == (1, 8, TOKENS) for e in edited)


def test_training_gets_gradients_through_the_same_functions(networks):
    face, (source, target) = make_face(), texts(2)
    imr, encoder = Reconfigurator(networks.reconfigurator.sizes), KeypointEncoder(networks.keypoint_encoder.sizes)
    edited = motion.edit_motion(face, MotionNetworks(imr, encoder, texts_of), source, target)
    torch.cat([e.tokens for e in edited]).square().mean().backward()
    for network in (imr, encoder):
        missed = [name for name, parameter in network.named_parameters() if parameter.grad is None]
        assert missed == []
        assert any(parameter.grad.abs().max() > 0 for parameter in network.parameters())


def test_mistakes_are_named(networks):
    source, target = texts(2)
    with pytest.raises(Missing, match="The face Ada has no landmarks") as caught:
        motion.edit_motion(make_face(landmarks=None), networks, source, target)
    assert caught.value.part == "detected face"
    with pytest.raises(DynamicIDError, match=r"Target landmarks have shape \(3, 106, 2\)"):
        motion.edit_motion(make_face(), networks, source, target, torch.zeros(3, 106, 2))
    with pytest.raises(DynamicIDError, match="2 target prompts but 3 strengths"):
        motion.edit_motion(make_face(), networks, source, target, strength=[1, 1, 1])
    with pytest.raises(DynamicIDError, match="Text features have shapes"):
        motion.edit_motion(make_face(), networks, target, target)
    with pytest.raises(DynamicIDError, match="16 and 12 wide"):
        motion.edit_motion(make_face(), networks, source, target[:, :12])


# --- One decision -----------------------------------------------------------------------------------------------------


@pytest.fixture
def told(networks):
    """Networks that note which texts they are asked for."""
    asked = []

    def text_features(words):
        asked.append(list(words))
        return texts_of(*words)

    return dataclasses.replace(networks, text_features=text_features), asked


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"expression": " a happy expression "}, ["in a sad expression, in front view", "a happy expression"]),
        ({"expression": "very happy"}, ["in a sad expression, in front view", "the expression is very happy"]),
        ({"expression": "anger", "source": " calm "}, ["calm", "anger"]),
        (
            {"pose_image": PHOTO},
            ["in a sad expression, in front view", "in a happy expression, facing up, in side view"],
        ),
        ({"pose_image": PHOTO, "expression": "anger"}, ["in a sad expression, in front view", "anger"]),
    ],
    ids=["words", "a preset", "with its source", "a photo alone", "a photo and words"],
)
def test_words_come_from_what_is_given_or_from_the_photos(told, given, expected):
    networks, asked = told
    face = make_face(expression="sad")
    edited = edit_face(face, networks, detector=Detector(LARGE), **given)
    assert asked == [expected]
    target = motion.read_target(PHOTO, Detector(LARGE)) if "pose_image" in given else None
    landmarks, pose = (target.landmarks, target.pose) if target else (None, None)
    features = texts_of(*expected)
    (wanted,) = motion.edit_motion(face, networks, features[:1], features[1:], landmarks, target_pose=pose)
    assert torch.equal(edited.tokens, wanted.tokens)
    assert torch.equal(edited.landmarks, wanted.landmarks) and torch.equal(edited.pose, wanted.pose)


def test_what_cannot_be_edited_is_said_before_anything_runs(told):
    networks, asked = told
    cases = (
        (make_face(), None, {"expression": "happy"}, "IMR weights"),
        (make_face(landmarks=None), networks, {"expression": "happy"}, "detected face"),
        (make_face(), networks, {"pose_image": PHOTO}, "face detector"),
    )
    for face, given, how, part in cases:
        with pytest.raises(Missing) as caught:
            edit_face(face, given, **how)
        assert caught.value.part == part
    with pytest.raises(DynamicIDError, match="No expression and no pose is chosen"):
        edit_face(make_face(), networks, expression=" ")
    assert asked == []
