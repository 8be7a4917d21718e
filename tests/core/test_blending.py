"""Several photos of one person averaged, several people blended."""

from __future__ import annotations

import pytest
import torch

from dynamicid_core.blending import average_faces, blend_faces, parse_weights
from dynamicid_core.types import DynamicIDError, Face


def _face(seed: int, **changed) -> Face:
    generator = torch.Generator().manual_seed(seed)
    values = {name: torch.randn(1, 4, 8, generator=generator) for name in ("tokens", "uncond_tokens")}
    identity = torch.nn.functional.normalize(torch.randn(512, generator=generator), dim=0)
    return Face(**(values | {"encoder": "abc", "identity": identity, "name": f"face{seed}"} | changed))


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


# --- averaging ----------------------------------------------------------------------------------------------------


def test_averaging_takes_the_mean_of_tokens_and_of_directions():
    landmarks, pose = torch.rand(106, 2), torch.tensor([1.0, 2.0, 3.0])
    faces = [_face(0, identity=None), _face(1, landmarks=landmarks, pose=pose), _face(2)]
    face = average_faces(faces)
    torch.testing.assert_close(face.tokens, (faces[0].tokens + faces[1].tokens + faces[2].tokens) / 3)
    assert torch.equal(face.landmarks, landmarks) and torch.equal(face.pose, pose)
    assert face.identity.norm() == pytest.approx(1)
    assert _cosine(face.identity, faces[1].identity + faces[2].identity) == pytest.approx(1)


def test_averaging_without_any_identity_keeps_it_unknown():
    faces = [_face(seed, identity=None) for seed in range(2)]
    assert average_faces(faces).identity is None
    assert torch.equal(average_faces(faces[:1]).tokens, faces[0].tokens)


def test_averaging_does_not_change_its_faces():
    faces = [_face(0), _face(1)]
    before = [face.tokens.clone() for face in faces]
    average_faces(faces)
    assert all(torch.equal(face.tokens, kept) for face, kept in zip(faces, before, strict=True))


# --- blending -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (0, 2), (0.2, 0.3, 0.5), (1e-30, 1e-30), (1e38, 1e38)])
def test_blending_in_tokens_is_the_weighted_mean(weights):
    faces = [_face(seed) for seed in range(len(weights))]
    face = blend_faces(faces, weights, "tokens")
    shares = [weight / sum(weights) for weight in weights]
    torch.testing.assert_close(face.tokens, sum(s * f.tokens for s, f in zip(shares, faces, strict=True)))
    assert torch.equal(face.uncond_tokens, faces[0].uncond_tokens)
    assert _cosine(face.identity, sum(s * f.identity for s, f in zip(shares, faces, strict=True))) == pytest.approx(1)
    assert face.mix == (1.0,)
    assert face.name == " + ".join(f.name for f in faces)


@pytest.mark.parametrize(
    ("weights", "mix"),
    [((0.7, 0.3), (0.7, 0.3)), ((1, 0), (1, 0)), ((2, 1, 1), (0.5, 0.5, 0.5)), ((1, 9, 0), (0.1, 0.9, 0.9))],
)
def test_blending_in_attention_gives_the_first_its_share(weights, mix):
    """Published: the first person's scores times ``mix``, the others' times ``1 - mix``."""
    faces = [_face(seed) for seed in range(len(weights))]
    face = blend_faces(faces, weights, "attention")
    assert torch.equal(face.tokens, torch.cat([f.tokens for f in faces], dim=1))
    assert torch.equal(face.uncond_tokens, torch.cat([f.uncond_tokens for f in faces], dim=1))
    assert face.mix == pytest.approx(mix)


@pytest.mark.parametrize("mode", ["tokens", "attention"])
def test_blending_one_face_is_that_face(mode):
    face = _face(0)
    assert blend_faces([face], [3.0], mode) is face


@pytest.mark.parametrize("mode", ["tokens", "attention"])
@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((1,), "2 faces but 1 weights"),
        ((1, 1, 1), "2 faces but 3 weights"),
        ((0, 0), "not all zero"),
        ((1, -1), "from 0 up"),
        ((2, -1), "from 0 up"),
        ((float("nan"), 1), "from 0 up"),
        ((float("inf"), 1), "from 0 up"),
    ],
)
def test_weights_that_do_not_fit(weights, said, mode):
    with pytest.raises(DynamicIDError, match=said):
        blend_faces([_face(0), _face(1)], weights, mode)


def test_faces_that_cannot_be_blended():
    pair = blend_faces([_face(0), _face(1)], (1, 1), "attention")
    cases = (
        ([], (), "tokens", "no faces"),
        ([_face(0), _face(1, encoder="def")], (1, 1), "tokens", "different face encoders"),
        ([_face(0), pair], (1, 1), "tokens", "blended in attention"),
        ([pair, _face(0)], (1, 1), "attention", "blended in attention"),
        ([pair, pair], (1, 1), "attention", "blended in attention"),
        ([_face(0), _face(1)], (1, 1), "pixels", "'pixels' is unknown; choose one of tokens, attention"),
    )
    for faces, weights, mode, said in cases:
        with pytest.raises(DynamicIDError, match=said):
            blend_faces(faces, weights, mode)
    for faces in ([], [_face(0), _face(1, encoder="def")], [_face(0), pair]):
        with pytest.raises(DynamicIDError):
            average_faces(faces)


def test_two_equal_attention_blends_blend_in_tokens():
    pairs = [blend_faces([_face(2 * i), _face(2 * i + 1)], (3, 1), "attention") for i in range(2)]
    face = blend_faces(pairs, (1, 1), "tokens")
    assert face.mix == (0.75, 0.25)
    torch.testing.assert_close(face.tokens, (pairs[0].tokens + pairs[1].tokens) / 2)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("1, 1", [1, 1]),
        ("0.5;2", [0.5, 2]),
        (" 1 ,, 2,", [1, 2]),
        ("", []),
        ("-1", [-1]),
        ("2\uff0c1\uff1b3\u30014", [2, 1, 3, 4]),
    ],
)
def test_weights_are_read_from_text(text, weights):
    assert parse_weights(text) == weights


@pytest.mark.parametrize("text", ["a, b", "1 2", "1, one"])
def test_texts_that_are_no_weights_are_shown(text):
    with pytest.raises(DynamicIDError, match=f"{text!r} are no numbers"):
        parse_weights(text)


# --- faces that move ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["tokens", "attention"])
def test_faces_that_move_are_blended_frame_by_frame(mode):
    film, still = _face(0, tokens=torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(9))), _face(1)
    both = blend_faces([film, still], [3, 1], mode)
    assert both.frames == 3 and both.uncond_tokens.shape[0] == 1
    for frame in range(3):
        assert torch.equal(both.at(frame).tokens, blend_faces([film.at(frame), still], [3, 1], mode).tokens)
    assert torch.equal(average_faces([still, film]).at(2).tokens, average_faces([still, film.at(2)]).tokens)
