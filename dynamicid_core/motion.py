"""Tokens, source motion, target motion -> the same person's tokens with another expression or pose (method, section 2).

Landmarks are InsightFace's 106 points. Its order, as far as it is used here ("left" is the left of the picture):

=================  ====================================================================================
contour            0 chin; 1, 9-16, 2-8 down the left side; 17, 25-32, 18-24 down the right side
left eye           35 outer and 39 inner corner; 40 middle of the upper, 33 of the lower lid; 38 pupil
right eye          89 inner and 93 outer corner; 94 middle of the upper, 87 of the lower lid; 88 pupil
left brow          43 outer end, 48, 49, 51, 50 inner end (upper edge); 46, 47, 45, 44 (lower edge)
right brow         102 inner end, 103, 104, 105, 101 outer end (upper edge); 100, 99, 98, 97 (lower edge)
nose               72, 73, 74, 86 down the bridge to the tip; 80 middle of the base
outer lips         52 left and 61 right corner; 64, 63, 71, 67, 68 above; 58, 59, 53, 56, 55 below, from the right
inner lips         65 left and 69 right corner; 66, 62, 70 above; 57, 60, 54 below, from the right
=================  ====================================================================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .faces import FaceDetector, landmark_fractions, landmark_raster, pick_face
from .types import DynamicIDError, Face

EXPRESSIONS = ("happy", "surprise", "sad", "anger", "disgust", "fear", "neutral")  # as published source prompts say

GRID_EXPRESSIONS = ("afraid", "angry", "disgusted", "happy", "neutral", "sad", "surprised")
GRID_POSES = (
    "fully turned to the left",
    "fully turned to the right",
    "slightly turned to the left",
    "slightly turned to the right",
    "front view",
)
# The prompts of the training set: one for each of a person's 35 photos.
GRID_PROMPTS = tuple(
    f"the expression is {expression}, the face is {pose}" for expression in GRID_EXPRESSIONS for pose in GRID_POSES
)

INTENSITIES = ("slightly", "", "very")
INTENSITY_LABELS = ("slight", "normal", "strong")  # what menus call them
# What menus offer: label -> text for the prompt.
EXPRESSION_PRESETS = {
    f"{intensity} {word}".strip(): f"the expression is {intensity} {word}".replace("  ", " ")
    for word in GRID_EXPRESSIONS
    for intensity in (INTENSITIES if word != "neutral" else ("",))
}
POSE_PRESETS = {pose: f"the face is {pose}" for pose in GRID_POSES}

MAX_STRENGTH = 2.0

EYES = ((33, 35, 40, 39), (87, 89, 94, 93))
BROWS = ((43, 48, 49, 51, 50, 46, 47, 45, 44), (101, 105, 104, 103, 102, 97, 98, 99, 100))
BROW_ENDS = ((43, 50), (101, 102))  # outer, inner

# Expression -> measures with the value at which they begin to speak for it and the change that is worth 1. All must
# speak for it, and the weakest counts. Values in between, and faces that fit nothing, are neutral.
EVIDENCE = {
    "happy": (("corners", 0.05, 0.04), ("width", 0.75, 0.2)),
    "surprise": (("gap", 0.22, 0.12), ("raise", 0.36, 0.06), ("corners", 0.06, -0.06)),
    "sad": (("corners", -0.045, -0.04), ("slope", 0.08, 0.05), ("gap", 0.12, -0.08)),
    "anger": (("slope", -0.07, -0.05), ("raise", 0.30, -0.06), ("corners", 0.04, -0.06)),
    "disgust": (("lip", 0.17, -0.05), ("raise", 0.26, -0.05), ("corners", 0.04, -0.06)),
    "fear": (("slope", 0.13, 0.05), ("lids", 0.36, 0.08), ("gap", 0.05, 0.08), ("corners", 0.04, -0.06)),
}


def expression_measures(landmarks: np.ndarray | Tensor) -> dict[str, float]:
    """Geometry of mouth, brows and eyes, in eye distances, after turning the eyes level; larger values mean:

    ``corners``: corners of the mouth above the middle of the closed lips; ``width``: mouth wide; ``gap``: lips apart;
    ``lip``: upper lip far from the nose; ``raise``: brows far above the eyes; ``slope``: inner ends of the brows above
    the outer ones; ``lids``: eyes open (in widths of an eye).
    """
    points = np.asarray(landmarks, dtype=np.float64)
    left, right = (points[list(eye)].mean(0) for eye in EYES)
    axis = right - left
    distance = float(np.hypot(*axis))
    if not np.isfinite(points).all() or distance == 0:
        raise DynamicIDError("These face landmarks are not usable (both eyes in one place). Use another photo.")
    # In these coordinates x runs from eye to eye and y down the face.
    p = (points - (left + right) / 2) @ np.stack((axis, (-axis[1], axis[0])), axis=1) / distance**2
    x, y = p[:, 0], p[:, 1]
    eye_y = [y[list(eye)].mean() for eye in EYES]
    gap = y[60] - y[62]
    return {
        "corners": float((y[71] + y[53] - gap) / 2 - (y[52] + y[61]) / 2),
        "width": float(x[61] - x[52]),
        "gap": float(gap),
        "lip": float(y[71] - y[80]),
        "raise": float(np.mean([eye - y[list(brow)].mean() for eye, brow in zip(eye_y, BROWS, strict=True)])),
        "slope": float(np.mean([y[outer] - y[inner] for outer, inner in BROW_ENDS])),
        # seen from the side, an eye may have no width
        "lids": float(((y[33] - y[40]) / max(x[39] - x[35], 0.1) + (y[87] - y[94]) / max(x[93] - x[89], 0.1)) / 2),
    }


def read_expression(landmarks: np.ndarray | Tensor) -> str:
    """One of ``EXPRESSIONS``, from the shape of mouth and brows alone; "neutral" when nothing speaks clearly.

    ``landmarks`` [106, 2] in pixels, or as fractions of a square: the two axes must have one scale. Size, place and
    roll of the face do not matter. It takes the place of an expression classifier: clear expressions seen from the
    front are read, subtle ones are not.
    """
    measures = expression_measures(landmarks)
    scores = {
        name: min((measures[measure] - start) / unit for measure, start, unit in evidence)
        for name, evidence in EVIDENCE.items()
    }
    best = max(scores, key=scores.get)
    return best if scores[best] > 0 else "neutral"


def source_prompt(pose: Sequence[float] | Tensor | None = None, expression: str | None = None) -> str:
    """What the source photo shows, in the published words (method, section 2).

    ``pose``: (pitch, yaw, roll) in degrees, up positive; None counts as facing the camera. ``expression``: one of
    ``EXPRESSIONS``; None counts as neutral.
    """
    pitch, yaw, _ = (0.0, 0.0, 0.0) if pose is None else (float(v) for v in pose)
    expression = expression or "neutral"
    if expression not in EXPRESSIONS:
        raise DynamicIDError(f"Expression {expression!r} is unknown; choose one of {', '.join(EXPRESSIONS)}.")
    facing = "facing up, " if pitch > 10 else "facing down, " if pitch < -10 else ""
    view = "in front view" if abs(yaw) < 10 else "in side view"
    return f"in a {expression} expression, {facing}{view}"


def target_prompt(expression: str = "", pose: str = "") -> str:
    """The prompt for a choice from the menus, in the words of the training set.

    Either may be a label of ``EXPRESSION_PRESETS`` or ``POSE_PRESETS``, a text of one's own, or empty (left out).
    """
    parts = (EXPRESSION_PRESETS.get(expression, expression.strip()), POSE_PRESETS.get(pose, pose.strip()))
    text = ", ".join(part for part in parts if part)
    if not text:
        raise DynamicIDError("No expression and no pose is chosen. Choose one, or write what the face should show.")
    return text


def preset_prompt(expression: str, intensity: str = "normal", pose: str = "front view") -> str:
    """The prompt for a choice of ``GRID_EXPRESSIONS``, ``INTENSITY_LABELS`` and ``GRID_POSES``; neutral has no intensity."""
    word = "" if expression == "neutral" else INTENSITIES[INTENSITY_LABELS.index(intensity)]
    return target_prompt(f"{word} {expression}".strip(), pose)


@dataclasses.dataclass(frozen=True)
class MotionTarget:
    """The motion of another photo, of anybody."""

    landmarks: Tensor  # [106, 2], fractions of the photo
    pose: Tensor | None  # [3]: pitch, yaw, roll in degrees
    expression: str  # one of EXPRESSIONS

    @property
    def prompt(self) -> str:
        """What the photo shows, for when nothing else is said."""
        return source_prompt(self.pose, self.expression)


def read_target(photo: np.ndarray, detector: FaceDetector | None) -> MotionTarget:
    """The motion of the largest face in a photo (uint8 RGB [h, w, 3]).

    Raises DynamicIDError if there is no detector, no face, or no landmarks.
    """
    if detector is None:
        raise DynamicIDError("Taking expression and pose from a photo needs a face detector. Connect Load Face Analysis.")
    size = photo.shape[:2]
    face = pick_face(detector.detect(photo), "large-small", 0, size)
    if face.landmarks is None:
        raise DynamicIDError("The face detector gives no landmarks. Use a pack with a 106 point model, such as buffalo_l.")
    landmarks = torch.from_numpy(landmark_fractions(face.landmarks, (0, 0, size[1], size[0])))
    pose = None if face.pose is None else torch.tensor(face.pose, dtype=torch.float32)
    return MotionTarget(landmarks, pose, read_expression(face.landmarks))


def motion_features(keypoint_encoder: torch.nn.Module, landmarks: Tensor | np.ndarray) -> Tensor:
    """Landmark features [n, 768] of landmarks [n, 106, 2], fractions of the photo, where the network lives."""
    weight = next(keypoint_encoder.parameters())
    with torch.no_grad():
        return keypoint_encoder(landmark_raster(landmarks).to(weight))


def _strengths(strength: float | Sequence[float], count: int) -> list[float]:
    strengths = [float(strength)] * count if isinstance(strength, (int, float)) else [float(s) for s in strength]
    if len(strengths) != count:
        raise DynamicIDError(f"There are {count} target prompts but {len(strengths)} strengths.")
    for value in strengths:
        if not 0 <= value <= MAX_STRENGTH:
            raise DynamicIDError(f"Strength is {value}; use 0 (as in the photo) to {MAX_STRENGTH:g} (exaggerated).")
    return strengths


def _target_landmarks(face: Face, landmarks: Tensor | np.ndarray | None, count: int) -> Tensor:
    landmarks = face.landmarks if landmarks is None else torch.as_tensor(landmarks, dtype=torch.float32)
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


def edit_tokens(reconfigurator: torch.nn.Module, tokens: Tensor, *motion: Tensor) -> Tensor:
    """Tokens [1, T, 768] of one person with K motions, [K, T, 768], float32 on the CPU: one pass of the IMR.

    ``motion``: landmark features of the source [1, 768] and the targets [K, 768], then text features of both.
    """
    weight = next(reconfigurator.parameters())
    with torch.no_grad():
        return reconfigurator(*(x.to(weight) for x in (tokens, *motion))).float().cpu()


def edit_motion(
    face: Face,
    networks,
    source_text: Tensor,
    target_text: Tensor,
    target_landmarks: Tensor | np.ndarray | None = None,
    strength: float | Sequence[float] = 1.0,
    target_pose: Tensor | None = None,
) -> list[Face]:
    """The same person with K other expressions or poses, in one batched pass (method, section 2).

    ``networks`` has ``reconfigurator`` and ``keypoint_encoder``; ``source_text`` [1, 768] and ``target_text`` [K, 768]
    are CLIP-L's unprojected pooler outputs; ``target_landmarks`` [106, 2] or [K, 106, 2], fractions of the target
    photo, else the source's own; ``target_pose`` [3], that photo's pose, where known. ``strength``, one or K: 0 is the
    face as it is, bit for bit, 1 the edited one, values between lie between in token space, and up to 2 exaggerate.
    The tokens of a face blended in attention are edited person by person. The face is not changed.
    Raises DynamicIDError for a face without landmarks and for shapes or strengths that do not fit.
    """
    if face.landmarks is None:
        raise DynamicIDError(
            f"The face {face.name or 'to edit'} has no landmarks, so its expression cannot be edited. "
            "Encode a photo in which the face is visible, with a face detector connected."
        )
    _check_texts(source_text, target_text)
    count = len(target_text)
    strengths = _strengths(strength, count)
    landmarks = _target_landmarks(face, target_landmarks, count)
    features = motion_features(networks.keypoint_encoder, torch.cat((face.landmarks[None].float(), landmarks)))
    motion = (features[:1], features[1:].expand(count, -1), source_text, target_text)
    groups = face.tokens.chunk(len(face.mix), dim=1)
    edited = torch.cat([edit_tokens(networks.reconfigurator, g, *motion) for g in groups], dim=1)  # [K, T*groups, 768]
    shown = {"expression": None}  # the prompt's, no longer the photo's
    if target_landmarks is not None:
        shown["pose"] = target_pose
    faces = []
    for i, value in enumerate(strengths):
        if value == 0:
            faces.append(face)
            continue
        tokens = torch.lerp(face.tokens, edited[i : i + 1], value)
        place = {"landmarks": landmarks[i % len(landmarks)]} if target_landmarks is not None else {}
        faces.append(dataclasses.replace(face, tokens=tokens, **place, **shown))
    return faces
