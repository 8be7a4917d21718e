"""Photos -> faces, without a pipeline; and how this host runs networks before sampling."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...casting import EncodedPeople, encode_people
from ...checkpoints import SAACheckpoint
from ...encode import EncodedFace, TokenEncoder, encode_photos
from ...faces import FaceDetector
from ...groups import EncodedGroup, GroupOptions, encode_group
from ...pictures import to_rgb
from ...types import Face, Missing, Part, hinting

# How whoever writes Python supplies what the core finds missing.
HINTS: dict[Part, str] = {
    "face detector": "Give detector (detection.load_detector).",
    "detected face": "Encode a photo in which the face is visible, with a detector.",
    "IMR weights": "Give imr (IMR.bin or imr.safetensors).",
    "CLIP vision": "Give clip_vision (CLIP-ViT-H-14-laion2B-s32B-b79K).",
}


class FloatNetwork:
    """A small network (face encoder, key point encoder, IMR) where it is, in float32 whatever its file's dtype, without gradients."""

    def __init__(self, module: nn.Module):
        self.module = module.float()

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Inputs in float32 on the CPU, and so the result."""
        with torch.no_grad():
            return self.module(*inputs)


@contextlib.contextmanager
def _visiting(module: nn.Module, device: torch.device) -> Iterator[None]:
    """A network on ``device`` for a moment: what is needed only before sampling does not stay there."""
    home = next(module.parameters()).device
    try:
        module.to(device)
        yield
    finally:
        module.to(home)


class ClipVision:
    """A transformers CLIP vision model, as :func:`encode.encode_photos` takes it."""

    def __init__(self, model: nn.Module, device: Callable[[], torch.device]):
        """``device`` says where CLIP runs; it goes back to where it was after each use."""
        self.model, self.device = model, device

    def tokens(self, pixels: Tensor) -> Tensor:
        """Hidden states before the last layer: [K, 3, 224, 224] normalised -> [K, 257, 1280], float32 on the CPU."""
        with _visiting(self.model, self.device()), torch.no_grad():
            seen = self.model(pixel_values=pixels.to(next(self.model.parameters())), output_hidden_states=True)
        return seen.hidden_states[-2].float().cpu()


class PhotoEncoder:
    """Photos -> faces, without a pipeline."""

    def __init__(
        self,
        saa: SAACheckpoint,
        clip_vision: nn.Module | None,
        detector: FaceDetector | None,
        device: Callable[[], torch.device] = lambda: torch.device("cpu"),
    ):
        """``device`` says where CLIP runs; it goes back to where it was after each use."""
        self.saa, self.clip_vision, self.detector, self.device = saa, clip_vision, detector, device

    @hinting(HINTS)
    def encode(self, *images: Any, name: str = "", **how: Any) -> EncodedFace:
        """Photos of one person (paths, PIL images, arrays); ``how`` as in :func:`encode.encode_photos`."""
        if not name and images and isinstance(images[0], (str, os.PathLike)):
            name = Path(images[0]).stem
        files = [Path(image).name if isinstance(image, (str, os.PathLike)) else name for image in images]
        return encode_photos([to_rgb(image) for image in images], *self._parts(), name=name, files=files, **how)

    @hinting(HINTS)
    def encode_group(self, image: Any, options: GroupOptions = GroupOptions()) -> EncodedGroup:
        """Everybody in one photo (path, PIL image, array), as :func:`groups.encode_group`."""
        return encode_group(to_rgb(image), *self._parts(), options)

    @hinting(HINTS)
    def encode_people(self, *people: Any, **how: Any) -> EncodedPeople:
        """Several people, each a face, a photo, or a list of photos; ``how`` as in :func:`casting.encode_people`."""
        given = [one if isinstance(one, Face) else [to_rgb(image) for image in _listed(one)] for one in people]
        return encode_people(given, *self._parts(), **how)

    def _parts(self) -> tuple[FaceDetector | None, ClipVision, TokenEncoder]:
        if self.clip_vision is None:
            raise Missing("CLIP vision", "Encoding photos needs a CLIP vision model.")
        encoder = self.saa.face_encoder
        network = TokenEncoder(FloatNetwork(encoder), encoder.sizes, self.saa.encoder_hash, self.saa.origin)
        return self.detector, ClipVision(self.clip_vision, self.device), network


def _listed(photos: Any) -> list[Any]:
    return list(photos) if isinstance(photos, (list, tuple)) else [photos]
