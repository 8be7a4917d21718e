"""Faces that move: tokens for each picture, from keyframes, from a driving video, and from both."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from standins.face_shape import face_shape
from test_motion import LARGE, make_face, networks, texts_of

from dynamicid_core.animation import AnimationOptions, animate_face, smoothed
from dynamicid_core.motion import edit_face, edit_motion
from dynamicid_core.prompts import target_prompt
from dynamicid_core.types import DynamicIDError, Missing

networks = networks  # the fixture

STEPS = "0: as in the photo; 4: very happy, front view"
PLAIN = AnimationOptions(smoothing=0)


class Video:
    """A detector that knows its frames, whose first pixel is their number: the shape of each one's face, or None."""

    def __init__(self, *smiles: float | None) -> None:
        shapes = [None if smile is None else (face_shape(smile=smile) * 50 + (100, 60)) for smile in smiles]
        self.faces = [
            [] if shape is None else [dataclasses.replace(LARGE, landmarks=shape.astype(np.float32))]
            for shape in shapes
        ]
        self.frames = [np.full((120, 200, 3), number, np.uint8) for number in range(len(smiles))]

    def detect(self, image: np.ndarray) -> list:
        return self.faces[int(image[0, 0, 0])]


def edited(face, networks, words: str, landmarks=None) -> torch.Tensor:
    """The tokens of one edit with these words."""
    features = networks.text_features(["in a neutral expression, in front view", words])
    return edit_motion(face, networks, features[:1], features[1:], landmarks)[0].tokens[0]


@pytest.mark.parametrize("groups", [1, 2])
def test_keyframes_give_every_picture_tokens_between_two_edits(networks, groups):
    face = make_face(groups)
    film = animate_face(face, networks, keyframes=STEPS)
    happy = edited(face, networks, target_prompt("very happy", "front view"))
    assert film.frames == 5 and film.tokens.shape == (5, 4 * groups, 16) and film.uncond_tokens is face.uncond_tokens
    assert torch.equal(film.tokens[0], face.tokens[0]) and torch.allclose(film.tokens[4], happy, atol=1e-5)
    assert torch.allclose(film.tokens[2], (face.tokens[0] + happy) / 2, atol=1e-5)
    first, second = (film.tokens[i + 1] - film.tokens[i] for i in (0, 1))
    assert first.norm() < second.norm()  # slowly at first
    assert film.expression is None and film.identity is face.identity and film.name == "Ada"


def test_one_keyframe_is_what_an_edit_gives(networks):
    face = make_face()
    film = animate_face(face, networks, keyframes="0: very happy", options=AnimationOptions(strength=0.5))
    assert torch.allclose(
        film.tokens, edit_face(face, networks, expression="very happy", strength=0.5).tokens, atol=1e-5
    )


def test_frames_may_be_fewer_or_more_than_the_keyframes_say(networks):
    face, options = make_face(), AnimationOptions(easing="linear")
    film = animate_face(face, networks, keyframes=STEPS, options=options)
    few, more = (
        animate_face(face, networks, keyframes=STEPS, options=dataclasses.replace(options, frames=n)) for n in (3, 7)
    )
    assert torch.equal(few.tokens, film.tokens[:3])
    assert torch.equal(more.tokens[:5], film.tokens) and torch.equal(more.tokens[6], film.tokens[4])


def test_a_driving_video_gives_each_picture_its_own_motion(networks):
    face, video = make_face(), Video(0.0, 0.04, 0.08)
    film = animate_face(face, networks, driving=video.frames, detector=video, options=PLAIN)
    for number, tokens in enumerate(film.tokens):
        single = edit_face(face, networks, pose_image=video.frames[number], detector=video)
        assert torch.allclose(tokens, single.tokens[0], atol=1e-5)
    assert film.frames == 3 and not torch.allclose(film.tokens[0], film.tokens[2], atol=1e-3)


def test_words_and_a_video_together(networks):
    """Words say what the face shows, the video where its landmarks are."""
    face, video = make_face(), Video(0.0, 0.04, 0.08)
    options = dataclasses.replace(PLAIN, easing="linear")
    film = animate_face(
        face, networks, keyframes="0: sad; 2: angry", driving=video.frames, detector=video, options=options
    )
    marks = torch.from_numpy(video.faces[1][0].landmarks / (200, 120)).float()
    sad, angry = (edited(face, networks, target_prompt(word), marks) for word in ("sad", "angry"))
    assert torch.allclose(film.tokens[1], (sad + angry) / 2, atol=1e-5)


def test_smoothing_evens_out_what_jumps_and_nothing_else(networks):
    face, still, shaking = make_face(), Video(*[0.04] * 8), Video(*[0.0, 0.08] * 4)
    options = AnimationOptions(smoothing=1.5)
    rough, even = (
        animate_face(face, networks, driving=shaking.frames, detector=shaking, options=how) for how in (PLAIN, options)
    )
    steps_of = [(film.tokens[1:] - film.tokens[:-1]).norm() for film in (rough, even)]
    assert steps_of[1] < 0.2 * steps_of[0]
    films = [
        animate_face(face, networks, driving=still.frames, detector=still, options=how) for how in (PLAIN, options)
    ]
    assert torch.allclose(films[0].tokens, films[1].tokens, atol=1e-5)


def test_smoothing_keeps_the_mean_and_the_shape():
    values = torch.randn(9, 4, 3, generator=torch.Generator().manual_seed(0))
    ramp = torch.arange(40.0)[:, None, None].expand(-1, 2, 3)
    assert smoothed(values, 2.0).shape == values.shape and torch.allclose(smoothed(values[:1], 50.0), values[:1])
    assert torch.allclose(smoothed(ramp, 2.0)[10:30], ramp[10:30], atol=1e-3)  # an even motion stays as it is


def test_pictures_without_a_face_take_the_nearest_ones_and_are_counted(networks):
    video, said = Video(None, 0.0, None, None, 0.08), []
    film = animate_face(make_face(), networks, driving=video.frames, detector=video, options=PLAIN, warn=said.append)
    assert said == ["3 of 5 driving frames show no face; they take the nearest one's."]
    assert torch.equal(film.tokens[0], film.tokens[1]) and torch.equal(film.tokens[3], film.tokens[4])
    empty = Video(None, None)
    with pytest.raises(DynamicIDError, match="in any of the 2 driving frames"):
        animate_face(make_face(), networks, driving=empty.frames, detector=empty)


def test_what_cannot_be_animated_is_named(networks):
    face, video = make_face(), Video(0.0)
    with pytest.raises(Missing, match="IMR weights"):
        animate_face(face, None, keyframes=STEPS)
    with pytest.raises(Missing, match="has no landmarks"):
        animate_face(make_face(landmarks=None), networks, keyframes=STEPS)
    with pytest.raises(Missing, match="from a video needs a face detector"):
        animate_face(face, networks, driving=video.frames)
    with pytest.raises(DynamicIDError, match="There is no keyframe"):
        animate_face(face, networks)
    with pytest.raises(DynamicIDError, match="frames is 5000"):
        AnimationOptions(frames=5000)
    film = animate_face(face, networks, keyframes=STEPS)
    for again in (
        lambda: animate_face(film, networks, keyframes=STEPS),
        lambda: edit_face(film, networks, expression="sad"),
    ):
        with pytest.raises(DynamicIDError, match="The face Ada moves already, over 5 frames"):
            again()


def test_each_text_is_encoded_once(networks):
    calls = []

    def features(texts):
        calls.append(list(texts))
        return texts_of(*texts)

    watched = dataclasses.replace(networks, text_features=features)
    video = Video(*[0.08] * 5)
    animate_face(make_face(), watched, driving=video.frames, detector=video)
    assert len(calls) == 1 and len(calls[0]) == len(set(calls[0])) == 2
