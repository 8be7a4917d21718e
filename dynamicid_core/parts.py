"""The tensors of a file below one prefix -> a network, strictly; its sizes come from the tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from .files import PREFIX_OF, describe
from .networks.face_encoder import FaceEncoderSizes
from .networks.keypoints import KeypointEncoderSizes
from .networks.operations import Operations
from .networks.perceiver import HEAD_WIDTH
from .networks.reconfigurator import ReconfiguratorSizes
from .networks.saa import SiteSizes
from .plain import one_line
from .types import DynamicIDError

M = TypeVar("M", bound=nn.Module)
Tensors = Mapping[str, Tensor]
PREFIXES = tuple(PREFIX_OF.values())

# Training moves a weight by its learning rate at most, in a step; statistics of batch normalisation are of its inputs.
LARGEST_WEIGHT, LARGEST_STATISTIC = 1e3, 1e6
# What training may begin with at zero, since it is added to something else: biases, the LoRA, feed-forward layers.
_MAY_BE_ZERO = re.compile(r"bias$|running_mean$|_lora\.(?:up|down)\.|\.\d+\.\d+\.[13]\.weight$")


class Part:
    """The tensors below one prefix, with errors that name the file."""

    def __init__(self, tensors: Tensors, prefix: str, what: str, source: str):
        self.what, self.source = what, source
        self.tensors = {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
        if not self.tensors:
            raise DynamicIDError(f"{source} is {describe(tensors)} without any tensor {prefix}*; expected {what}.")
        if strange := [name for name in tensors if not name.startswith(PREFIXES)]:
            raise DynamicIDError(f"{source} does not fit {what}: it has unknown {listed(strange)}.")

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
        if said := [f"{word} {listed(names)}" for word, names in problems if names]:
            raise self.misfit(f"it {'; it '.join(said)}")
        self._check_values(shared, {name for name, _ in module.named_buffers()})

    def _check_values(self, shared: Sequence[tuple[str, Tensor, Tensor]], statistics: Collection[str]) -> None:
        """Raise DynamicIDError for values that no training leaves behind: they would turn pictures black, or act as nothing."""
        values = {name: tensor for name, tensor, _ in shared if tensor.is_floating_point()}
        bounds = {name: _bounds(tensor) for name, tensor in values.items()}
        if broken := [name for name, bound in bounds.items() if not math.isfinite(bound)]:
            raise self.misfit(f"it holds NaN or infinite values in {listed(broken)}; get the file again")
        large = {n: b for n, b in bounds.items() if b > (LARGEST_STATISTIC if n in statistics else LARGEST_WEIGHT)}
        if large:
            worst = max(large.values())
            raise self.misfit(f"it holds values as large as {worst:.3g} in {listed(list(large))}; get the file again")
        if empty := [name for name, t in values.items() if _must_act(name) and (bounds[name] == 0 or _ends_empty(t))]:
            raise self.misfit(
                f"it has nothing but zeros at the end of {listed(empty)}, as downloads leave them that were broken off; get the "
                "file again"
            )


def _must_act(name: str) -> bool:
    return not _MAY_BE_ZERO.search(name)


def _ends_empty(tensor: Tensor) -> bool:
    """Whether the last row of a matrix or of kernels is zero throughout; what is broken off may end within a tensor."""
    return tensor.ndim > 1 and not bool(_computable(tensor[-1]).any())


def _kind(tensor: Tensor) -> tuple[object, ...]:
    return tensor.is_floating_point(), tensor.is_complex(), tensor.layout, tensor.is_quantized


def _computable(tensor: Tensor) -> Tensor:
    """Float8 knows next to no operation."""
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor


def _bounds(tensor: Tensor) -> float:
    """The largest absolute value of a tensor that is not empty, NaN where it holds one; ten times as fast as ``isfinite``."""
    low, high = (float(bound) for bound in _computable(tensor).aminmax())
    return high if math.isnan(high) else max(-low, high)


def listed(names: list[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(one_line(name, 100) for name in names[:shown]) + more


def _inner_width(part: Part, name: str) -> int:
    """Width of all heads together; heads are 64 wide, which no tensor tells."""
    inner, _ = part.shape(name, 2)
    if inner > HEAD_WIDTH and inner % HEAD_WIDTH:
        raise part.misfit(f"{name} has {inner} rows, which is no multiple of the {HEAD_WIDTH} of a head")
    return inner


def face_encoder_sizes(part: Part) -> FaceEncoderSizes:
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


def site_sizes(part: Part) -> tuple[SiteSizes, ...]:
    count = part.count(r"(\d+)\.")
    if count % 2:
        raise part.misfit(f"it has {count} attention sites, but they come in pairs of self and cross attention")
    sizes = []
    for site in range(count):
        rank, width = part.shape(f"{site}.to_q_lora.down.weight", 2)
        is_cross = site % 2 == 1
        sizes.append(SiteSizes(width, rank, part.shape(f"{site}.to_k_ip.weight", 2)[1] if is_cross else None))
    return tuple(sizes)


def reconfigurator_sizes(part: Part) -> ReconfiguratorSizes:
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


def keypoint_sizes(part: Part) -> KeypointEncoderSizes:
    head = max(1, part.count(r"blocks\.(\d+)\.") - 1)  # the last stage
    return KeypointEncoderSizes(
        channels=tuple(part.shape(f"blocks.{stage}.0.conv_block.0.weight", 4)[0] for stage in range(head)),
        convs=tuple(part.count(rf"blocks\.{stage}\.(\d+)\.") for stage in range(head)),
        head=part.shape(f"blocks.{head}.0.conv_block.0.weight", 4)[0],
        out=part.shape(f"blocks.{head}.1.conv_block.0.weight", 4)[0],
    )


def built(
    part: Part, network: Callable[..., M], sizes: Callable[[Part], object], operations: Operations, assign: bool
) -> M:
    """Build without memory for weights of its own, then take over the file's tensors (``assign``) or copy them."""
    with torch.device("meta"):
        part.check(
            network(sizes(part), operations=nn)
        )  # a host's own layers may have no weights before they are loaded
        module = network(sizes(part), operations=operations).requires_grad_(False).eval()
    if not assign:
        module = module.to_empty(device="cpu")
    module.load_state_dict(part.tensors, assign=assign)
    return module
