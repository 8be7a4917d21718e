"""Tokens, source motion, target motion -> the same person's tokens with another expression or pose.

The networks are those of the IMR (docs/method.md, section 2). :func:`edit_face` is what every front end calls;
:func:`edit_motion` edits once all is known, many motions in one pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .checkpoints import MotionCheckpoint
from .faces import CURE, FaceDetector, pick_face
from .landmarks import landmark_fractions, landmark_raster, read_expression
from .origins import TEXT_FEATURES
from .prompts import source_prompt, target_prompt
from .types import DynamicIDError, Face, Missing

MAX_STRENGTH = 2.0


class TokenEditor(Protocol):
    """The networks that edit tokens, as a host or a training step runs them."""

    @property
    def reconfigurator(self) -> Callable[..., Tensor]:
        """Tokens [1, T, 768], landmark features [1, 768], [K, 768], text features [1, 768], [K, 768] -> [K, T, 768]."""
        ...

    @property
    def keypoint_encoder(self) -> Callable[[Tensor], Tensor]:
        """Rasters [K, 1, 96, 96] -> landmark features [K, 768]."""
        ...


@dataclass(frozen=True)
class MotionNetworks:
    """All networks that :func:`edit_face` needs: a :class:`TokenEditor`, and the base model's text encoder."""

    reconfigurator: Callable[..., Tensor]
    keypoint_encoder: Callable[[Tensor], Tensor]
    # K texts -> unprojected pooler outputs [K, 768] of the text encoder that the weights read (Origin.text_feature).
    text_features: Callable[[Sequence[str]], Tensor]
    checkpoint: MotionCheckpoint | None = None  # what was loaded, for what it says of widths


@dataclass(frozen=True)
class MotionTarget:
    """The motion of another photo, of anybody."""

    landmarks: Tensor  # [106, 2], fractions of the photo
    pose: Tensor | None  # [3]: pitch, yaw, roll in degrees
    expression: str  # one of EXPRESSIONS

    @property
    def prompt(self) -> str:
        """What the photo shows, for when nothing else is said."""
        return source_prompt(self.pose, self.expression)


def find_target(photo: np.ndarray, detector: FaceDetector) -> MotionTarget | None:
    """The motion of the largest face in a photo (uint8 RGB [h, w, 3]); None without a face.

    Raises DynamicIDError if the face has no landmarks.
    """
    height, width = photo.shape[:2]
    faces = detector.detect(photo)
    if not faces:
        return None
    face = pick_face(faces, "large-small", 0, (height, width))
    if face.landmarks is None:
        raise DynamicIDError(
            "The face detector gives no landmarks. Use a pack with a 106 point model, such as buffalo_l."
        )
    landmarks = torch.from_numpy(landmark_fractions(face.landmarks, (0, 0, width, height)))
    pose = None if face.pose is None else torch.tensor(face.pose, dtype=torch.float32)
    return MotionTarget(landmarks, pose, read_expression(face.landmarks))


def read_target(photo: np.ndarray, detector: FaceDetector | None) -> MotionTarget:
    """:func:`find_target` of a photo that must show a face.

    Raises :class:`types.Missing` without a detector, and DynamicIDError if there is no face, or no landmarks.
    """
    if detector is None:
        raise Missing("face detector", "Taking expression and pose from a photo needs a face detector.")
    target = find_target(photo, detector)
    if target is None:
        raise DynamicIDError(f"No face was found in the photo. {CURE}.")
    return target


def motion_features(keypoint_encoder: Callable[[Tensor], Tensor], landmarks: Tensor | np.ndarray) -> Tensor:
    """Landmark features [K, 768] of landmarks [K, 106, 2], fractions of the photo."""
    return keypoint_encoder(landmark_raster(landmarks))


def _strengths(strength: float | Sequence[float], count: int) -> list[float]:
    strengths = [float(strength)] * count if isinstance(strength, (int, float)) else [float(s) for s in strength]
    if len(strengths) != count:
        raise DynamicIDError(f"There are {count} target prompts but {len(strengths)} strengths.")
    for value in strengths:
        check_strength(value)
    return strengths


def check_strength(value: float) -> None:
    """Raise DynamicIDError for a strength of an edit that nobody can mean."""
    if not 0 <= value <= MAX_STRENGTH:
        raise DynamicIDError(f"Strength is {value}; use 0 (as in the photo) to {MAX_STRENGTH:g} (exaggerated).")


def _target_landmarks(landmarks: Tensor | np.ndarray, count: int) -> Tensor:
    landmarks = torch.as_tensor(landmarks, dtype=torch.float32)
    landmarks = landmarks if landmarks.ndim == 3 else landmarks[None]
    if landmarks.shape[1:] != (106, 2) or len(landmarks) not in (1, count):
        raise DynamicIDError(f"Target landmarks have shape {tuple(landmarks.shape)}; expected [1 or {count}, 106, 2].")
    return landmarks


def _check_texts(source_text: Tensor, target_text: Tensor) -> None:
    if source_text.ndim != 2 or target_text.ndim != 2 or len(source_text) != 1 or not len(target_text):
        raise DynamicIDError(
            f"Text features have shapes {tuple(source_text.shape)} and {tuple(target_text.shape)}; expected [1, width] "
            "for the source and [number of targets, width]."
        )
    if source_text.shape[1] != target_text.shape[1]:
        widths = f"{source_text.shape[1]} and {target_text.shape[1]}"
        raise DynamicIDError(f"Text features of source and target are {widths} wide; use one text encoder.")


def _need_landmarks(face: Face) -> Tensor:
    if face.landmarks is None:
        name = face.name or "to edit"
        raise Missing("detected face", f"The face {name} has no landmarks, so its expression cannot be edited.")
    return face.landmarks


def _check_tokens(face: Face, checkpoint: MotionCheckpoint) -> None:
    """Raise DynamicIDError for a face of other tokens than the IMR edits."""
    if face.tokens.shape[-1] != checkpoint.token_width:
        family = f" ({checkpoint.origin.base})" if checkpoint.origin.base else ""
        raise DynamicIDError(
            f"The face {face.name or 'to edit'} has tokens of width {face.tokens.shape[-1]}, but the weights for expressions "
            f"edit tokens of width {checkpoint.token_width}{family}. Load the IMR file that belongs to the SAA file."
        )


def _check_text_width(found: int, checkpoint: MotionCheckpoint) -> None:
    """Raise DynamicIDError for a text feature of another encoder than the IMR reads."""
    if found != checkpoint.text_width:
        feature = checkpoint.origin.text_feature
        raise DynamicIDError(
            f"This text encoder gives a {feature} feature of width {found}, but the weights for expressions read {feature} "
            f"({TEXT_FEATURES.get(feature, 'of an encoder of its own')}) of width {checkpoint.text_width}. "
            "Take the text encoder of the base model that they were trained with."
        )


def check_editable(face: Face, networks: MotionNetworks | None) -> None:
    """Raise :class:`types.Missing` without networks or landmarks, and DynamicIDError for a face that the weights cannot edit."""
    if networks is None:
        raise Missing("IMR weights", "Editing expressions needs the IMR weights.")
    if face.frames > 1:
        raise DynamicIDError(
            f"The face {face.name or 'to edit'} moves already, over {face.frames} frames. Edit the face that it was made from."
        )
    _need_landmarks(face)
    if networks.checkpoint is not None:
        _check_tokens(face, networks.checkpoint)


def encoded_texts(networks: MotionNetworks, texts: Sequence[str]) -> Tensor:
    """Text features [K, 768], each text encoded once; the first one's in the place of empty ones.

    Raises DynamicIDError for a text encoder that does not fit the weights.
    """
    different = list(dict.fromkeys(text or texts[0] for text in texts))
    features = networks.text_features(different)
    if networks.checkpoint is not None:
        _check_text_width(features.shape[-1], networks.checkpoint)
    return features[[different.index(text or texts[0]) for text in texts]]


def edit_motion(
    face: Face,
    networks: TokenEditor,
    source_text: Tensor,
    target_text: Tensor,
    target_landmarks: Tensor | np.ndarray | None = None,
    strength: float | Sequence[float] = 1.0,
    target_pose: Tensor | None = None,
) -> list[Face]:
    """The same person with K other expressions or poses, in one batched pass.

    ``source_text`` [1, 768] and ``target_text`` [K, 768] are CLIP-L's unprojected pooler outputs; ``target_landmarks``
    [106, 2] or [K, 106, 2], fractions of the target photo, else the source's own; ``target_pose`` [3], that photo's
    pose, where known. ``strength``, one or K: 0 is the face as it is, bit for bit, 1 the edited one, values between lie
    between in token space, and up to 2 exaggerate.
    The tokens of a face blended in attention are edited person by person. The face is not changed.
    Raises DynamicIDError for a face without landmarks and for shapes or strengths that do not fit.
    """
    source_landmarks = _need_landmarks(face)
    _check_texts(source_text, target_text)
    count = len(target_text)
    strengths = _strengths(strength, count)
    landmarks = _target_landmarks(source_landmarks if target_landmarks is None else target_landmarks, count)
    features = motion_features(networks.keypoint_encoder, torch.cat((source_landmarks[None].float(), landmarks)))
    motion = (features[:1], features[1:].expand(count, -1), source_text, target_text)
    groups = face.tokens.chunk(len(face.mix), dim=1)
    edited = torch.cat([networks.reconfigurator(group, *motion) for group in groups], dim=1)  # [K, T * groups, 768]
    faces = []
    for i, value in enumerate(strengths):
        changed: dict[str, Any] = {"expression": None}  # the prompt's, no longer the photo's
        if target_landmarks is not None:
            changed |= {"pose": target_pose, "landmarks": landmarks[i % len(landmarks)]}
        tokens = torch.lerp(face.tokens, edited[i : i + 1], value)
        faces.append(face if value == 0 else dataclasses.replace(face, tokens=tokens, **changed))
    return faces


def edit_face(
    face: Face,
    networks: MotionNetworks | None,
    *,
    expression: str = "",
    source: str = "",
    pose_image: np.ndarray | None = None,
    detector: FaceDetector | None = None,
    strength: float = 1.0,
) -> Face:
    """The same person with another expression or pose, in words, from a photo of anybody, or both.

    ``networks``: None where they were not loaded. ``expression``: what the face shall show, in free words or those of a
    menu (:func:`prompts.target_prompt`); "" takes what ``pose_image`` shows. ``source``: what the person's own photo
    shows; "" has it read off the face. ``pose_image``: uint8 RGB [h, w, 3]; landmarks and pose of its largest face,
    which ``detector`` finds, become the target's. ``strength``: 0 is the photo's own expression, 1 the target's, and
    up to 2 exaggerates.
    Raises :class:`types.Missing` without networks, for a face without landmarks, and for a photo without a detector;
    DynamicIDError where neither words nor a photo are given, the photo shows no face, or the face or the text feature are
    not of the width that the weights were trained with.
    """
    check_editable(face, networks)
    assert networks is not None
    target = None if pose_image is None else read_target(pose_image, detector)
    text = target_prompt(expression.strip() or (target.prompt if target else ""))
    features = encoded_texts(networks, [source.strip() or source_prompt(face.pose, face.expression), text])
    landmarks, pose = (target.landmarks, target.pose) if target else (None, None)
    return edit_motion(face, networks, features[:1], features[1:], landmarks, strength, pose)[0]
