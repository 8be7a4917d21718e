"""A face that moves: tokens for each picture of a film, from keyframes in words, a driving video, or both."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from .encode import Progress
from .faces import FaceDetector
from .keyframes import EASINGS, Between, Keyframe, betweens, parse_keyframes
from .motion import (
    MotionNetworks,
    MotionTarget,
    check_editable,
    check_strength,
    edit_motion,
    encoded_texts,
    find_target,
)
from .prompts import source_prompt
from .types import MOST_FRAMES, DynamicIDError, Face, Missing, check_range

AT_ONCE = 64  # targets that go through the networks in one pass
MOST_SMOOTHING = 100.0  # frames
REACH = 3  # deviations of the bell curve that smooths, beyond which nothing counts


@dataclass(frozen=True)
class AnimationOptions:
    """How a face moves."""

    frames: int = 0  # pictures of the film; 0: as many as the driving video has, or up to the last keyframe
    easing: str = next(iter(EASINGS))  # how one keyframe becomes the next
    smoothing: float = 1.5  # of a driving video: standard deviation of the bell curve over its frames; 0: none
    strength: float = 1.0  # 0: as in the photo, 1: as asked for, up to 2: exaggerated

    def __post_init__(self) -> None:
        check_range(self.frames, "frames", 0, MOST_FRAMES)
        check_range(self.smoothing, "smoothing", 0, MOST_SMOOTHING)
        check_strength(self.strength)
        if self.easing not in EASINGS:
            raise DynamicIDError(f"easing is {self.easing!r}; it must be one of {', '.join(EASINGS)}.")


def animate_face(
    face: Face,
    networks: MotionNetworks | None,
    *,
    keyframes: str = "",
    driving: Sequence[np.ndarray] = (),
    detector: FaceDetector | None = None,
    source: str = "",
    options: AnimationOptions = AnimationOptions(),
    progress: Progress = iter,
    warn: Callable[[str], object] = lambda text: None,
) -> Face:
    """The same person with tokens for each picture of a film.

    ``networks``: None where they were not loaded. ``keyframes``: what the face shows when, as
    :func:`keyframes.parse_keyframes` reads it; "" takes what the ``driving`` video shows: its frames, uint8 RGB [h, w, 3], of
    anybody, whose landmarks (of the largest face, which ``detector`` finds) become the targets'. ``source``: what the
    person's own photo shows; "" has it read off the face. ``progress`` goes through the driving frames while faces are looked
    for; ``warn`` gets a sentence about those without a face, which take the nearest one's.
    Raises what :func:`motion.edit_face` raises, and DynamicIDError where neither keyframes nor a video are given.
    """
    check_editable(face, networks)
    assert networks is not None
    written = parse_keyframes(keyframes) if keyframes.strip() or not len(driving) else ()
    targets = _read(driving, detector, progress, warn)
    count = options.frames or len(targets) or written[-1].frame + 1
    track = _track(face, written, targets, count, options.easing)
    edited = _edit(face, networks, track, source.strip() or source_prompt(face.pose, face.expression))
    tokens = torch.stack([torch.lerp(edited[now.before], edited[now.after], now.share) for now in track.places])
    if targets and options.smoothing:
        tokens = smoothed(tokens, options.smoothing)
    return dataclasses.replace(face, tokens=torch.lerp(face.tokens, tokens, options.strength), expression=None)


def smoothed(values: Tensor, deviation: float) -> Tensor:
    """[F, ...], each the mean of its neighbours in time, weighted by a bell curve; the ends go on as they are."""
    reach = min(math.ceil(REACH * deviation), 4 * len(values))
    steps = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weights = torch.exp(-steps.square() / (2 * deviation**2))
    rows = pad(values.flatten(1).T[None].float(), (reach, reach), mode="replicate")[0]  # [values, F + 2 * reach]
    windows = rows.unfold(-1, len(steps), 1)  # [values, F, 2 * reach + 1]
    return (windows @ (weights / weights.sum())).T.reshape(values.shape)


def _read(
    driving: Sequence[np.ndarray], detector: FaceDetector | None, progress: Progress, warn: Callable[[str], object]
) -> list[MotionTarget]:
    """What each driving frame shows; those without a face show what the nearest one with a face does."""
    if not len(driving):
        return []
    if detector is None:
        raise Missing("face detector", "Taking expression and pose from a video needs a face detector.")
    found = [find_target(photo, detector) for photo in progress(driving)]
    seen = [number for number, target in enumerate(found) if target is not None]
    if not seen:
        raise DynamicIDError(
            f"No face was found in any of the {len(found)} driving frames. Use pictures that show one."
        )
    if len(seen) < len(found):
        warn(f"{len(found) - len(seen)} of {len(found)} driving frames show no face; they take the nearest one's.")
    nearest = (found[min(seen, key=lambda other: abs(other - number))] for number in range(len(found)))
    return [target for target in nearest if target is not None]


@dataclass(frozen=True)
class _Track:
    """The motions that a film needs, and how far each picture has come from one to another."""

    texts: list[str]  # of each motion; "": the face as in the photo
    landmarks: Tensor | None  # [K, 106, 2] of each motion; None: the photo's own
    places: list[Between]


def _track(face: Face, written: Sequence[Keyframe], targets: Sequence[MotionTarget], count: int, easing: str) -> _Track:
    if not targets:
        return _Track([keyframe.text for keyframe in written], None, betweens(written, count, easing))
    shown = [targets[min(frame, len(targets) - 1)] for frame in range(count)]
    if not written:
        places = [Between(frame, frame, 0.0) for frame in range(count)]
        return _Track([one.prompt for one in shown], torch.stack([one.landmarks for one in shown]), places)
    # Words change between keyframes, landmarks with every frame: two motions for each picture.
    words = betweens(written, count, easing)
    texts = [written[number].text for now in words for number in (now.before, now.after)]
    landmarks = torch.stack([one.landmarks for one in shown]).repeat_interleave(2, dim=0)
    return _Track(texts, landmarks, [Between(2 * i, 2 * i + 1, now.share) for i, now in enumerate(words)])


def _edit(face: Face, networks: MotionNetworks, track: _Track, source: str) -> list[Tensor]:
    """The tokens of each motion, [T * groups, 768]."""
    features = encoded_texts(networks, [source, *track.texts])
    edited: list[Tensor] = []
    for first in range(0, len(track.texts), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        landmarks = None if track.landmarks is None else track.landmarks[part]
        faces = edit_motion(face, networks, features[:1], features[1:][part], landmarks)
        edited += [one.tokens[0] for one in faces]
    return [tokens if text else face.tokens[0] for text, tokens in zip(track.texts, edited, strict=True)]
