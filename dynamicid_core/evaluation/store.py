"""What is slow to find out about a picture, kept on disk: an interrupted evaluation goes on where it stopped.

A file for each tool and content, named by hashes, so what changed is measured anew and what was copied is not. Files
appear complete or not at all, and several processes may share the folder.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..faces import DetectedFace
from ..writing import writing

Arrays = dict[str, np.ndarray]
VERSION = "1"  # another one where tools with the same name begin to say other things


class Store:
    """Arrays by tool and key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, tool: str, key: str) -> Path:
        name = hashlib.sha256(f"{VERSION}\n{tool}\n{key}".encode()).hexdigest()
        return self._folder / name[:2] / f"{name[2:]}.npz"

    def get(self, tool: str, key: str) -> Arrays | None:
        """What was put there; None if nothing was, or if it is damaged."""
        try:
            with np.load(self._path(tool, key), allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, zipfile.BadZipFile, EOFError):
            return None

    def put(self, tool: str, key: str, arrays: Arrays) -> None:
        """Raises DynamicIDError where nothing can be written."""
        with writing(self._path(tool, key)) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes every keyword for allow_pickle


def _rows(values: Sequence[np.ndarray | None], shape: tuple[int, ...]) -> np.ndarray:
    """[n, *shape] float32, NaN where there is none."""
    full = [np.full(shape, np.nan) if value is None else value for value in values]
    return np.stack(full).astype(np.float32) if full else np.zeros((0, *shape), np.float32)


def pack_faces(faces: Sequence[DetectedFace]) -> Arrays:
    """Faces as arrays."""
    width = next((len(face.identity) for face in faces if face.identity is not None), 0)
    return {
        "boxes": np.array([face.box for face in faces], dtype=np.float64).reshape(-1, 4),
        "scores": np.array([face.score for face in faces], dtype=np.float64),
        "keypoints": _rows([face.keypoints for face in faces], (5, 2)),
        "identities": _rows([face.identity for face in faces], (width,)),
        "landmarks": _rows([face.landmarks for face in faces], (106, 2)),
        "poses": _rows([None if face.pose is None else np.array(face.pose) for face in faces], (3,)),
    }


def unpack_faces(arrays: Arrays) -> list[DetectedFace]:
    """The faces again."""
    faces = []
    for row in range(len(arrays["boxes"])):
        identity, landmarks, pose = (arrays[name][row] for name in ("identities", "landmarks", "poses"))
        x0, y0, x1, y1 = arrays["boxes"][row].tolist()
        pitch, yaw, roll = pose.tolist()
        faces.append(
            DetectedFace(
                box=(x0, y0, x1, y1),
                score=float(arrays["scores"][row]),
                keypoints=arrays["keypoints"][row],
                identity=identity if identity.size and np.isfinite(identity).all() else None,
                landmarks=landmarks if np.isfinite(landmarks).all() else None,
                pose=(pitch, yaw, roll) if np.isfinite(pose).all() else None,
            )
        )
    return faces
