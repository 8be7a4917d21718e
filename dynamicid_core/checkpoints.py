"""Tensors -> strictly loaded networks. All sizes are read from the tensors."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from .files import HUB_FILES, HUB_REPOSITORY, PREFIX_OF, describe, motion_tensors, read_checkpoint, write_safetensors
from .networks.face_encoder import FaceEncoder, FaceEncoderSizes
from .networks.keypoints import KeypointEncoder, KeypointEncoderSizes
from .networks.reconfigurator import Reconfigurator, ReconfiguratorSizes
from .networks.saa import SAAModule, SiteSizes
from .types import DynamicIDError

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class SAACheckpoint:
    """The anchoring stage's weights: face encoder and attention sites."""

    face_encoder: FaceEncoder
    saa: SAAModule

    @cached_property
    def encoder_hash(self) -> str:
        """sha256 of the projection weights (names, dtypes, shapes, bytes), which face files carry."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.face_encoder.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()


@dataclass(frozen=True)
class MotionCheckpoint:
    """The reconfiguration stage's weights."""

    reconfigurator: Reconfigurator
    keypoint_encoder: KeypointEncoder


class _Part:
    """The tensors below one prefix, with errors that name the file."""

    def __init__(self, tensors: Tensors, prefix: str, what: str, source: str):
        self.what, self.source = what, source
        self.tensors = {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
        if not self.tensors:
            raise DynamicIDError(f"{source} is {describe(tensors)}; expected {what}.")

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self.tensors:
            raise DynamicIDError(f"{self.source} lacks the tensor {name!r} of {self.what}; it seems to be cut short.")
        return tuple(self.tensors[name].shape)

    def count(self, pattern: str) -> int:
        """How many different numbers stand at the group of ``pattern``."""
        return len({match[1] for name in self.tensors if (match := re.match(pattern, name))})

    def load(self, module: nn.Module, assign: bool) -> nn.Module:
        """Load strictly; everything that is missing, left over or of another shape is named."""
        expected = module.state_dict()
        missing = [name for name in expected if name not in self.tensors]
        extra = [name for name in self.tensors if name not in expected]
        odd = [
            f"{name} {tuple(t.shape)} instead of {tuple(expected[name].shape)}"
            for name, t in self.tensors.items()
            if name in expected and t.shape != expected[name].shape
        ]
        problems = (("lacks", missing), ("has unknown", extra), ("has odd shapes:", odd))
        if said := [f"{word} {_listed(names)}" for word, names in problems if names]:
            raise DynamicIDError(f"{self.source} does not fit {self.what}: it {'; it '.join(said)}.")
        module.load_state_dict(self.tensors, assign=assign)
        return module.requires_grad_(False).eval()


def _listed(names: list[str], shown: int = 6) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _face_encoder_sizes(part: _Part) -> FaceEncoderSizes:
    hidden, identity = part.shape("proj.0.weight")
    (width,) = part.shape("norm.weight")
    return FaceEncoderSizes(
        identity=identity,
        hidden=hidden,
        clip=part.shape("perceiver_resampler.proj_in.weight")[1],
        width=width,
        tokens=part.shape("proj.2.weight")[0] // width,
        depth=part.count(r"perceiver_resampler\.layers\.(\d+)\."),
        inner=part.shape("perceiver_resampler.layers.0.0.to_q.weight")[0],
        feed_forward=part.shape("perceiver_resampler.layers.0.1.1.weight")[0],
    )


def _site_sizes(part: _Part) -> tuple[SiteSizes, ...]:
    sizes = []
    for site in range(part.count(r"(\d+)\.")):
        rank, width = part.shape(f"{site}.to_q_lora.down.weight")
        cross = f"{site}.to_k_ip.weight" in part.tensors
        sizes.append(SiteSizes(width, rank, part.shape(f"{site}.to_k_ip.weight")[1] if cross else None))
    return tuple(sizes)


def _reconfigurator_sizes(part: _Part) -> ReconfiguratorSizes:
    width, motion = part.shape("feature_fusion.1.weight")
    return ReconfiguratorSizes(
        token=part.shape("norm_in.weight")[0],
        motion=motion,
        width=width,
        latents=part.shape("feature_fusion.4.weight")[0] // width,
        depth_out=part.count(r"disentangleNet\.(\d+)\."),
        depth_in=part.count(r"entangleNet\.(\d+)\."),
        inner=part.shape("disentangleNet.0.0.to_q.weight")[0],
        feed_forward=part.shape("disentangleNet.0.2.1.weight")[0],
    )


def _keypoint_sizes(part: _Part) -> KeypointEncoderSizes:
    stages = part.count(r"blocks\.(\d+)\.")
    body = range(stages - 1)
    return KeypointEncoderSizes(
        channels=tuple(part.shape(f"blocks.{stage}.0.conv_block.0.weight")[0] for stage in body),
        convs=tuple(part.count(rf"blocks\.{stage}\.(\d+)\.") for stage in body),
        head=part.shape(f"blocks.{stages - 1}.0.conv_block.0.weight")[0],
        out=part.shape(f"blocks.{stages - 1}.1.conv_block.0.weight")[0],
    )


def _build(part: _Part, build, sizes, operations, assign: bool) -> nn.Module:
    """Build without memory for weights of its own, then take over the file's tensors (``assign``) or copy them."""
    with torch.device("meta"):
        module = build(sizes(part), operations=operations)
    if not assign:
        module = module.to_empty(device="cpu")
    return part.load(module, assign)


def load_saa(source: str | os.PathLike | Tensors, operations=nn, assign: bool = True) -> SAACheckpoint:
    """Load the face encoder and the attention sites.

    ``source``: a path, or tensors as :func:`files.read_checkpoint` gives them. ``operations``: the namespace of layer
    classes. ``assign``: take the file's tensors over (memory-mapped where possible) instead of copying them.
    Raises DynamicIDError naming the file, what it seems to be and what was expected.
    """
    tensors, name = (source, "The file") if isinstance(source, Mapping) else (read_checkpoint(source), str(source))
    what = "DynamicID's SAA weights (SAA.bin or saa.safetensors)"
    encoder, sites = _Part(tensors, "proj_module.", what, name), _Part(tensors, "SAA_module.", what, name)
    return SAACheckpoint(
        _build(encoder, FaceEncoder, _face_encoder_sizes, operations, assign),
        _build(sites, SAAModule, _site_sizes, nn, assign),
    )


def load_motion(source: str | os.PathLike | Tensors, operations=nn, assign: bool = True) -> MotionCheckpoint:
    """Load the IMR and the key point encoder: from one file, or from ``key_point_encoder.bin`` beside ``IMR.bin``.

    Arguments and errors as in :func:`load_saa`.
    """
    tensors, name = (source, "The file") if isinstance(source, Mapping) else (motion_tensors(source), str(source))
    imr = _Part(tensors, "IMR.", "DynamicID's IMR weights (IMR.bin or imr.safetensors)", name)
    if not any(key.startswith("key_point_encoder.") for key in tensors):
        raise DynamicIDError(f"{name} has no key point encoder; put key_point_encoder.bin into the same folder.")
    keypoints = _Part(tensors, "key_point_encoder.", "the key point encoder", name)
    return MotionCheckpoint(
        _build(imr, Reconfigurator, _reconfigurator_sizes, operations, assign),
        _build(keypoints, KeypointEncoder, _keypoint_sizes, operations, assign),
    )


def convert(sources: list[str | os.PathLike], folder: str | os.PathLike | None = None) -> list[Path]:
    """Published pickles -> ``saa.safetensors`` and ``imr.safetensors``, bit for bit, in ``folder`` (default: beside them).

    ``key_point_encoder.bin`` is looked for beside ``IMR.bin`` when it is not among ``sources``. Files that are not
    DynamicID's, or not complete, are refused before anything is written.
    """
    tensors: dict[str, Tensor] = {}
    paths = [Path(source) for source in sources]
    for path in paths:
        part = read_checkpoint(path)
        if any(name.startswith("IMR.") for name in part) and not any(p.name == HUB_FILES[2] for p in paths):
            part |= motion_tensors(path)
        if not any(name.startswith(tuple(PREFIX_OF.values())) for name in part):
            raise DynamicIDError(f"{path} is {describe(part)}; expected one of {', '.join(HUB_FILES)}.")
        tensors |= part
    target = Path(folder) if folder else paths[0].parent
    written = []
    for name, prefixes, load in (
        ("saa.safetensors", ("proj_module.", "SAA_module."), load_saa),
        ("imr.safetensors", ("IMR.", "key_point_encoder."), load_motion),
    ):
        part = {k: v for k, v in tensors.items() if k.startswith(prefixes)}
        if part:
            load(part)  # a file that does not load is not worth converting
            written.append((target / name, part))
    return [write_safetensors(path, part, {"format": "pt", "source": HUB_REPOSITORY}) for path, part in written]
