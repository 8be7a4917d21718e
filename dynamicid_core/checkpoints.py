"""Tensors -> strictly loaded networks. All sizes are read from the tensors."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from .files import HUB_FILES, PREFIX_OF, describe, motion_tensors, read_checkpoint, write_safetensors
from .networks.face_encoder import FaceEncoder, FaceEncoderSizes
from .networks.keypoints import KeypointEncoder, KeypointEncoderSizes
from .networks.operations import Operations
from .networks.perceiver import HEAD_WIDTH
from .networks.reconfigurator import Reconfigurator, ReconfiguratorSizes
from .networks.saa import SAAModule, SiteSizes
from .types import DynamicIDError

M = TypeVar("M", bound=nn.Module)
Tensors = Mapping[str, Tensor]
PREFIXES = tuple(PREFIX_OF.values())
SAA = "DynamicID's SAA weights (SAA.bin or saa.safetensors)"
IMR = "DynamicID's IMR weights (IMR.bin or imr.safetensors)"


@dataclass(frozen=True)
class SAACheckpoint:
    """The anchoring stage's weights: face encoder and attention sites."""

    face_encoder: FaceEncoder
    saa: SAAModule
    # The encoder's tensors as the file holds them; a host may cast or move the module's own. None: the module's.
    encoder_tensors: Tensors | None = field(default=None, repr=False)

    @cached_property
    def encoder_hash(self) -> str:
        """sha256 of the projection weights (names, dtypes, shapes, bytes), which face files carry."""
        digest = hashlib.sha256()
        for name, tensor in sorted((self.encoder_tensors or self.face_encoder.state_dict()).items()):
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
            raise DynamicIDError(f"{source} is {describe(tensors)} without any tensor {prefix}*; expected {what}.")
        if strange := [name for name in tensors if not name.startswith(PREFIXES)]:
            raise DynamicIDError(f"{source} does not fit {what}: it has unknown {_listed(strange)}.")

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """The sizes of a tensor that must be there, with so many axes and not empty."""
        if name not in self.tensors:
            raise DynamicIDError(f"{self.source} lacks the tensor {name} of {self.what}; it seems to be incomplete.")
        shape = tuple(self.tensors[name].shape)
        if len(shape) != ndim or 0 in shape:
            raise self.misfit(f"it has an odd shape: {name} {shape}")
        return shape

    def count(self, pattern: str) -> int:
        """How many different numbers stand at the group of ``pattern``."""
        return len({match[1] for name in self.tensors if (match := re.match(pattern, name))})

    def misfit(self, why: str) -> DynamicIDError:
        return DynamicIDError(f"{self.source} does not fit {self.what}: {why}.")

    def check(self, module: nn.Module) -> None:
        """Raise DynamicIDError naming everything that is missing, left over, or of another shape or kind."""
        expected = module.state_dict()
        shared = [(name, t, expected[name]) for name, t in self.tensors.items() if name in expected]
        shapes = [f"{n} {tuple(t.shape)} instead of {tuple(e.shape)}" for n, t, e in shared if t.shape != e.shape]
        problems = (
            ("lacks", [name for name in expected if name not in self.tensors]),
            ("has unknown", [name for name in self.tensors if name not in expected]),
            ("has odd shapes:", shapes),
            ("has odd types:", [f"{n} {t.dtype}, {t.layout}" for n, t, e in shared if _kind(t) != _kind(e)]),
        )
        if said := [f"{word} {_listed(names)}" for word, names in problems if names]:
            raise self.misfit(f"it {'; it '.join(said)}")
        if broken := [name for name, t, _ in shared if not _is_finite(t)]:
            raise self.misfit(f"it holds NaN or infinite values in {_listed(broken)}; get the file again")


def _kind(tensor: Tensor) -> tuple[object, ...]:
    return tensor.is_floating_point(), tensor.is_complex(), tensor.layout, tensor.is_quantized


def _is_finite(tensor: Tensor) -> bool:
    """Whether a tensor that is not empty holds neither NaN nor infinite values; ten times as fast as ``isfinite``."""
    values = tensor.float() if tensor.element_size() == 1 else tensor  # float8 has no minimum
    return all(bool(torch.isfinite(bound)) for bound in values.aminmax())


def _listed(names: list[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(name[:100] for name in names[:shown]) + more


def _inner_width(part: _Part, name: str) -> int:
    """Width of all heads together; heads are 64 wide, which no tensor tells."""
    inner, _ = part.shape(name, 2)
    if inner > HEAD_WIDTH and inner % HEAD_WIDTH:
        raise part.misfit(f"{name} has {inner} rows, which is no multiple of the {HEAD_WIDTH} of a head")
    return inner


def _face_encoder_sizes(part: _Part) -> FaceEncoderSizes:
    hidden, identity = part.shape("proj.0.weight", 2)
    (width,) = part.shape("norm.weight", 1)
    return FaceEncoderSizes(
        identity=identity,
        hidden=hidden,
        clip=part.shape("perceiver_resampler.proj_in.weight", 2)[1],
        width=width,
        tokens=part.shape("proj.2.weight", 2)[0] // width,
        depth=part.count(r"perceiver_resampler\.layers\.(\d+)\."),
        inner=_inner_width(part, "perceiver_resampler.layers.0.0.to_q.weight"),
        feed_forward=part.shape("perceiver_resampler.layers.0.1.1.weight", 2)[0],
    )


def _site_sizes(part: _Part) -> tuple[SiteSizes, ...]:
    count = part.count(r"(\d+)\.")
    if count % 2:
        raise part.misfit(f"it has {count} attention sites, but they come in pairs of self and cross attention")
    sizes = []
    for site in range(count):
        rank, width = part.shape(f"{site}.to_q_lora.down.weight", 2)
        is_cross = site % 2 == 1
        sizes.append(SiteSizes(width, rank, part.shape(f"{site}.to_k_ip.weight", 2)[1] if is_cross else None))
    return tuple(sizes)


def _reconfigurator_sizes(part: _Part) -> ReconfiguratorSizes:
    width, motion = part.shape("feature_fusion.1.weight", 2)
    return ReconfiguratorSizes(
        token=part.shape("norm_in.weight", 1)[0],
        motion=motion,
        width=width,
        latents=part.shape("feature_fusion.4.weight", 2)[0] // width,
        depth_out=part.count(r"disentangleNet\.(\d+)\."),
        depth_in=part.count(r"entangleNet\.(\d+)\."),
        inner=_inner_width(part, "disentangleNet.0.0.to_q.weight"),
        feed_forward=part.shape("disentangleNet.0.2.1.weight", 2)[0],
    )


def _keypoint_sizes(part: _Part) -> KeypointEncoderSizes:
    head = max(1, part.count(r"blocks\.(\d+)\.") - 1)  # the last stage
    return KeypointEncoderSizes(
        channels=tuple(part.shape(f"blocks.{stage}.0.conv_block.0.weight", 4)[0] for stage in range(head)),
        convs=tuple(part.count(rf"blocks\.{stage}\.(\d+)\.") for stage in range(head)),
        head=part.shape(f"blocks.{head}.0.conv_block.0.weight", 4)[0],
        out=part.shape(f"blocks.{head}.1.conv_block.0.weight", 4)[0],
    )


def _build(
    part: _Part, build: Callable[..., M], sizes: Callable[[_Part], object], operations: Operations, assign: bool
) -> M:
    """Build without memory for weights of its own, then take over the file's tensors (``assign``) or copy them."""
    with torch.device("meta"):
        part.check(build(sizes(part), operations=nn))  # a host's own layers may have no weights before they are loaded
        module = build(sizes(part), operations=operations).requires_grad_(False).eval()
    if not assign:
        module = module.to_empty(device="cpu")
    module.load_state_dict(part.tensors, assign=assign)
    return module


def _read(source: str | os.PathLike[str], read: Callable[[str | os.PathLike[str]], Tensors], what: str) -> Tensors:
    try:
        return read(source)
    except DynamicIDError as error:
        raise DynamicIDError(f"{error} Expected {what}.") from error


def load_saa(
    source: str | os.PathLike[str] | Tensors, operations: Operations = nn, assign: bool = True
) -> SAACheckpoint:
    """Load the face encoder and the attention sites.

    ``source``: a path, or tensors as :func:`files.read_checkpoint` gives them. ``operations``: the namespace of layer
    classes. ``assign``: take the file's tensors over (memory-mapped where possible) instead of copying them.
    Raises DynamicIDError naming the file, what it seems to be and what was expected.
    """
    tensors = source if isinstance(source, Mapping) else _read(source, read_checkpoint, SAA)
    return _saa(tensors, _name(source), operations, assign)


def _name(source: str | os.PathLike[str] | Tensors) -> str:
    return "The file" if isinstance(source, Mapping) else str(source)


def _saa(tensors: Tensors, name: str, operations: Operations = nn, assign: bool = True) -> SAACheckpoint:
    encoder, sites = _Part(tensors, "proj_module.", SAA, name), _Part(tensors, "SAA_module.", SAA, name)
    return SAACheckpoint(
        _build(encoder, FaceEncoder, _face_encoder_sizes, operations, assign),
        _build(sites, SAAModule, _site_sizes, nn, assign),  # turned into a host's own patches, so never its layers
        encoder.tensors,
    )


def load_motion(
    source: str | os.PathLike[str] | Tensors, operations: Operations = nn, assign: bool = True
) -> MotionCheckpoint:
    """Load the IMR and the key point encoder: from one file, or from ``key_point_encoder.bin`` beside ``IMR.bin``.

    Arguments and errors as in :func:`load_saa`.
    """
    tensors = source if isinstance(source, Mapping) else _read(source, motion_tensors, IMR)
    return _motion(tensors, _name(source), operations, assign)


def _motion(tensors: Tensors, name: str, operations: Operations = nn, assign: bool = True) -> MotionCheckpoint:
    imr = _Part(tensors, "IMR.", IMR, name)
    if not any(key.startswith("key_point_encoder.") for key in tensors):
        raise DynamicIDError(f"{name} has no key point encoder; put {HUB_FILES[2]} into the same folder.")
    keypoints = _Part(
        tensors, "key_point_encoder.", f"the key point encoder ({HUB_FILES[2]} beside it, or its own)", name
    )
    return MotionCheckpoint(
        _build(imr, Reconfigurator, _reconfigurator_sizes, operations, assign),
        _build(keypoints, KeypointEncoder, _keypoint_sizes, operations, assign),
    )


def convert(sources: Sequence[str | os.PathLike[str]], folder: str | os.PathLike[str] | None = None) -> list[Path]:
    """Published pickles -> ``saa.safetensors`` and ``imr.safetensors``, bit for bit, in ``folder`` or beside them.

    ``key_point_encoder.bin`` is looked for beside ``IMR.bin`` when it is not among ``sources``. Files that are not
    DynamicID's, or not complete, are refused before anything is written.
    """
    if not sources:
        raise DynamicIDError(f"There is nothing to convert. Name at least one of {', '.join(HUB_FILES)}.")
    target, written = Path(folder or Path(sources[0]).parent), []
    tensors = _gather(sources)
    name = ", ".join(map(str, sources))
    if strange := [key for key in tensors if not key.startswith(PREFIXES)]:
        raise DynamicIDError(f"{name} holds tensors that are not DynamicID's: {_listed(strange)}.")
    for file, prefixes, load in (
        ("saa.safetensors", ("proj_module.", "SAA_module."), _saa),
        ("imr.safetensors", ("IMR.", "key_point_encoder."), _motion),
    ):
        if part := {k: v for k, v in tensors.items() if k.startswith(prefixes)}:
            load(part, name)  # a file that does not load is not worth converting
            written.append((target / file, part))
    return [write_safetensors(path, part, {"format": "pt"}) for path, part in written]


def _gather(sources: Sequence[str | os.PathLike[str]]) -> dict[str, Tensor]:
    """All tensors of DynamicID files; the key point encoder beside an IMR file joins unless it is given."""
    tensors: dict[str, Tensor] = {}
    expected, imr_file = f"one of {', '.join(HUB_FILES)}", None
    for source in sources:
        part = _read(source, read_checkpoint, expected)
        if not any(name.startswith(PREFIXES) for name in part):
            raise DynamicIDError(f"{source} is {describe(part)}; expected {expected}.")
        if not tensors.keys().isdisjoint(part):
            raise DynamicIDError(
                f"{source} is of the same kind as a file before it; convert one of each kind at a time."
            )
        if any(name.startswith("IMR.") for name in part):
            imr_file = source
        tensors |= part
    if imr_file and not any(name.startswith("key_point_encoder.") for name in tensors):
        tensors |= motion_tensors(imr_file)
    return tensors
