"""Prompts, expressions read off landmarks, and edits of tokens by small real networks."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from standins.face_shape import face_shape

from dynamicid_core import motion
from dynamicid_core.faces import DetectedFace, landmark_raster
from dynamicid_core.networks.keypoints import KeypointEncoder, KeypointEncoderSizes
from dynamicid_core.networks.reconfigurator import Reconfigurator, ReconfiguratorSizes
from dynamicid_core.types import DynamicIDError, Face

SHAPES = {  # what each expression does to a face
    "happy": {"smile": 0.08},
    "surprise": {"gap": 0.35, "raise": 0.12, "lids": 0.03},
    "sad": {"smile": -0.07, "slope": 0.05},
    "anger": {"slope": -0.08, "raise": -0.05},
    "disgust": {"lip": 0.09, "raise": -0.06},
    "fear": {"slope": 0.09, "lids": 0.03, "gap": 0.1, "raise": 0.05},
    "neutral": {},
}


def placed(shape: np.ndarray, size: float = 100, roll: float = 0, at=(300, 200)) -> np.ndarray:
    angle = np.deg2rad(roll)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return shape @ turn.T * size + at


@pytest.mark.parametrize("expression", SHAPES)
@pytest.mark.parametrize("size, roll, at", [(100, 0, (300, 200)), (0.2, 30, (0.5, 0.5)), (700, -50, (-90, 4000))])
def test_expressions_are_read_at_any_size_place_and_roll(expression, size, roll, at):
    landmarks = placed(face_shape(**SHAPES[expression]), size, roll, at)
    assert motion.read_expression(landmarks) == expression
    assert motion.read_expression(torch.from_numpy(landmarks)) == expression
    assert expression in motion.EXPRESSIONS


@pytest.mark.parametrize("amounts", [{"smile": 0.015}, {"gap": 0.1}, {"raise": 0.04}, {"slope": 0.02}, {"yaw": 0.15}])
def test_what_is_unclear_is_neutral(amounts):
    assert motion.read_expression(placed(face_shape(**amounts))) == "neutral"


def test_a_laugh_with_an_open_mouth_is_happy_and_half_of_most_expressions_is_not_another():
    assert motion.read_expression(placed(face_shape(smile=0.1, gap=0.15))) == "happy"
    for expression, amounts in SHAPES.items():
        half = {name: amount / 2 for name, amount in amounts.items()}
        assert motion.read_expression(placed(face_shape(**half))) in (expression, "neutral")


def test_measures_are_what_they_are_named():
    neutral = motion.expression_measures(placed(face_shape()))
    moves = {"corners": ("smile", 0.05), "width": ("smile", 0.05), "gap": ("gap", 0.2), "lip": ("lip", -0.05)}
    moves |= {"raise": ("raise", 0.05), "slope": ("slope", 0.05), "lids": ("lids", 0.02)}
    for measure, (mode, amount) in moves.items():
        moved = motion.expression_measures(placed(face_shape(**{mode: amount}), roll=20))
        assert moved[measure] > neutral[measure] + 0.03, measure
    opened = motion.expression_measures(placed(face_shape(gap=0.3)))
    assert opened["corners"] == pytest.approx(neutral["corners"])  # a dropping jaw is no smile


def test_unusable_landmarks_are_refused_and_profiles_are_not():
    with pytest.raises(DynamicIDError, match="not usable"):
        motion.read_expression(np.zeros((106, 2)))
    with pytest.raises(DynamicIDError, match="not usable"):
        motion.read_expression(np.full((106, 2), np.nan))
    profile = face_shape() * (0.05, 1)
    assert motion.read_expression(placed(profile)) in motion.EXPRESSIONS


@pytest.mark.parametrize(
    "pose, expression, prompt",
    [
        ((0, 0, 0), "happy", "in a happy expression, in front view"),
        ((10.1, 0, 0), "fear", "in a fear expression, facing up, in front view"),
        ((-10.1, 10, 0), "sad", "in a sad expression, facing down, in side view"),
        ((10, -9.9, 80), "anger", "in a anger expression, in front view"),
        ((0, -40, 0), None, "in a neutral expression, in side view"),
        (torch.tensor([20.0, 30, 0]), "surprise", "in a surprise expression, facing up, in side view"),
        (None, None, "in a neutral expression, in front view"),
    ],
)
def test_source_prompts_are_the_published_words(pose, expression, prompt):
    assert motion.source_prompt(pose, expression) == prompt


def test_unknown_expressions_are_refused():
    with pytest.raises(DynamicIDError, match="'bored' is unknown; choose one of happy, surprise"):
        motion.source_prompt(None, "bored")


def test_the_grid_has_35_prompts_and_menus_give_them():
    assert len(set(motion.GRID_PROMPTS)) == 35
    assert motion.GRID_PROMPTS[0] == "the expression is afraid, the face is fully turned to the left"
    made = {motion.target_prompt(e, p) for e in motion.GRID_EXPRESSIONS for p in motion.POSE_PRESETS}
    assert made == set(motion.GRID_PROMPTS)
    assert len(motion.POSE_PRESETS) == 5 and len(motion.EXPRESSION_PRESETS) == 6 * 3 + 1


def test_target_prompts_take_presets_free_text_or_one_of_the_two():
    assert motion.target_prompt("very happy") == "the expression is very happy"
    assert motion.target_prompt("", "front view") == "the face is front view"
    own = motion.target_prompt(" a very surprised expression ", "slightly turned to the left")
    assert own == "a very surprised expression, the face is slightly turned to the left"
    with pytest.raises(DynamicIDError, match="No expression and no pose"):
        motion.target_prompt("  ", "")


def test_preset_prompts_scale_the_expression():
    assert motion.preset_prompt("happy") == "the expression is happy, the face is front view"
    assert motion.preset_prompt("sad", "strong") == "the expression is very sad, the face is front view"
    assert motion.preset_prompt("neutral", "slight") == "the expression is neutral, the face is front view"


def test_a_photos_motion_can_be_the_target():
    landmarks = placed(face_shape(smile=0.08), 50, at=(100, 60)).astype(np.float32)
    small = DetectedFace((0, 0, 10, 10), 0.9, np.zeros((5, 2)))
    large = DetectedFace((50, 0, 150, 110), 0.9, np.zeros((5, 2)), landmarks=landmarks, pose=(12.0, 20.0, 0.0))
    photo = np.zeros((120, 200, 3), np.uint8)
    target = motion.read_target(photo, SimpleNamespace(detect=lambda image: [small, large]))
    assert torch.allclose(target.landmarks, torch.from_numpy(landmarks / (200, 120)).float())
    assert target.pose.tolist() == [12, 20, 0] and target.expression == "happy"
    assert target.prompt == "in a happy expression, facing up, in side view"
    with pytest.raises(DynamicIDError, match="no landmarks"):
        motion.read_target(photo, SimpleNamespace(detect=lambda image: [small]))
    with pytest.raises(DynamicIDError, match="No face was found"):
        motion.read_target(photo, SimpleNamespace(detect=lambda image: []))
    with pytest.raises(DynamicIDError, match="Connect Load Face Analysis"):
        motion.read_target(photo, None)


# --- Edits ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    sizes = KeypointEncoderSizes(channels=(4, 8, 8, 8, 8, 8), head=8)
    encoder, imr = KeypointEncoder(sizes).eval(), Reconfigurator(ReconfiguratorSizes(width=64, inner=128, feed_forward=64)).eval()
    for parameter in encoder.parameters():
        if parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter)  # else so few channels would forget the picture
    return SimpleNamespace(reconfigurator=imr, keypoint_encoder=encoder)


def make_face(groups: int = 1, **fields) -> Face:
    torch.manual_seed(groups)
    tokens = torch.randn(1, 4 * groups, 768)
    values = {
        "uncond_tokens": torch.randn(1, 4 * groups, 768),
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
    return torch.randn(1, 768), torch.randn(count, 768)


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
        assert one.tokens.shape == (1, 4, 768) and one.tokens.dtype == torch.float32
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
    assert all(e.mix == face.mix and e.tokens.shape == (1, 8, 768) for e in edited)


def test_networks_run_in_their_own_type(networks):
    import copy

    half = SimpleNamespace(**{name: copy.deepcopy(n).bfloat16() for name, n in vars(networks).items()})
    (edited,) = motion.edit_motion(make_face(), half, *texts(1))
    (exact,) = motion.edit_motion(make_face(), networks, *texts(1))
    assert edited.tokens.dtype == torch.float32
    assert (edited.tokens - exact.tokens).abs().max() < 0.1 * exact.tokens.abs().max()


def test_mistakes_are_named(networks):
    source, target = texts(2)
    with pytest.raises(DynamicIDError, match="Ada has no landmarks.*Encode a photo in which the face is visible"):
        motion.edit_motion(make_face(landmarks=None), networks, source, target)
    with pytest.raises(DynamicIDError, match=r"Target landmarks have shape \(3, 106, 2\)"):
        motion.edit_motion(make_face(), networks, source, target, torch.zeros(3, 106, 2))
    with pytest.raises(DynamicIDError, match="2 target prompts but 3 strengths"):
        motion.edit_motion(make_face(), networks, source, target, strength=[1, 1, 1])
    with pytest.raises(DynamicIDError, match="Text features have shapes"):
        motion.edit_motion(make_face(), networks, target, target)
    with pytest.raises(DynamicIDError, match="768 and 512 wide"):
        motion.edit_motion(make_face(), networks, source, target[:, :512])
