"""Faces on a UNet2DConditionModel: attention processors, and the hook that tells them about each call."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...attention import SiteFaces, attend, site_faces
from ...bases import attention_sites, fitting_layout
from ...call import FACE_ROLE, NULL_ROLE, AppliedCast, Call, Memory, Row, look_index, prepare_call
from ...crops import Sampled, crop_warning
from ...gate_maps import GateRecorder
from ...networks.saa import LORA_TARGETS, SAAModule
from ...regions import GridSize
from ...types import Cast, DynamicIDError, SAAOptions
from ...views import View

KEY = "dynamicid"  # in cross_attention_kwargs
LORA_MODES = ("fused", "apart")


def unwrapped(unet: nn.Module) -> nn.Module:
    """The UNet itself inside torch.compile's wrapper."""
    return getattr(unet, "_orig_mod", unet)


@dataclass(frozen=True)
class TimestepSchedule:
    """The noise schedule that the UNet was trained with; noise levels are timesteps."""

    timesteps: int = 1000

    def level(self, fraction: float) -> float:
        if fraction in (0, 1):  # schedulers may go a little beyond the first and the last timestep
            return float("inf") if fraction == 0 else float("-inf")
        return (1 - fraction) * (self.timesteps - 1)

    def passed(self, levels: Tensor) -> Tensor:
        return 1 - levels / (self.timesteps - 1)


class Step(NamedTuple):
    """What the processors need to know of one call of the UNet."""

    call: Call
    guided: bool  # the first half of the rows is unconditional
    looks: Tensor | None = None  # [B], which of the packed faces each row sees, where faces move


def text_attention(
    attn: Any,
    project: Callable[[nn.Module, str, Tensor], Tensor],
    hidden_states: Tensor,
    encoder_hidden_states: Tensor | None,
    attention_mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """What every processor of ours computes but the faces: the attention before ``to_out``, and its queries, [B, N, C] each.

    ``attn``: the Attention; ``project`` (layer, its name among :data:`LORA_TARGETS`, input): the layer with its LoRA.
    """
    context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
    if attention_mask is not None:
        attention_mask = attn.prepare_attention_mask(attention_mask, context.shape[1], len(context))
        attention_mask = attention_mask.unflatten(0, (-1, attn.heads))  # [B, H, 1, S]
    q = project(attn.to_q, "to_q", hidden_states)
    k = project(attn.to_k, "to_k", context)
    v = project(attn.to_v, "to_v", context)
    by_head = [x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v)]  # [B, H, N or S, D]
    text = attend(by_head[0], by_head[1], by_head[2], attention_mask)
    return text.transpose(1, 2).flatten(2), q


class FaceProcessor(nn.Module):
    """The attention processor of one attention: PyTorch's fused attention, plus the faces at cross attention.

    The faces are a buffer, so that they follow the UNet to any device and dtype, and so that compiled blocks, which share
    their code, have nothing to tell them apart by.
    """

    faces: Tensor | None

    def __init__(self, faces: Tensor | None, lora: nn.ModuleDict | None, lora_strength: float):
        """``faces``: of :func:`attention.pack_cast`, [1 + F, 2 * M + 1, C], None at self attention; ``lora``: by
        :data:`LORA_TARGETS`, where it is not fused into the weights.
        """
        super().__init__()
        self.lora, self.lora_strength = lora, lora_strength
        self.register_buffer("faces", faces, persistent=False)

    def _project(self, projection: nn.Module, target: str, x: Tensor) -> Tensor:
        projected = projection(x)
        return projected if self.lora is None else projected + self.lora_strength * self.lora[target](x)

    # Not `forward`: diffusers reads the names of this method's parameters and passes on only those keywords.
    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        dynamicid: Step | None = None,
    ) -> Tensor:
        """``attn``: the Attention; ``hidden_states`` [B, N, C], ``encoder_hidden_states`` [B, S, 768] or None -> [B, N, C]"""
        out, q = text_attention(attn, self._project, hidden_states, encoder_hidden_states, attention_mask)
        if self.faces is not None and dynamicid is not None:
            faces = _faces_of_rows(self.faces.to(q), len(q), dynamicid, attn.heads)
            out = add_faces(dynamicid.call, faces, out, q)
        return attn.to_out[1](self._project(attn.to_out[0], "to_out", out))


def add_faces(call: Call, faces: SiteFaces, text: Tensor, q: Tensor) -> Tensor:
    """The text attention of a cross attention, plus the faces: [B, N, C], before ``to_out``.

    Raises DynamicIDError for a number of queries that is no size of the UNet's grids.
    """
    if q.shape[1] not in call.sizes:
        raise DynamicIDError(
            f"A cross attention has {q.shape[1]} queries, which is no size that this picture has in the UNet. "
            "Something merges or splits them (e.g. token merging of cross attention); switch that off."
        )
    return call.add_faces(text, q, faces, *call.sizes[q.shape[1]])


def _faces_of_rows(packed: Tensor, rows: int, step: Step, heads: int) -> SiteFaces:
    """What each row sees: null tokens in the first half under guidance, faces elsewhere. No copy for one picture."""
    if step.looks is not None:
        return site_faces(packed[step.looks], heads)
    if not step.guided:
        return site_faces(packed[1:].expand(rows, -1, -1), heads)
    return site_faces(packed[:, None].expand(-1, rows // 2, -1, -1).flatten(0, 1), heads)


@contextmanager
def _ordinary_tensors() -> Iterator[None]:
    """What is remembered may be used in any gradient mode later, also if it is first needed in inference mode."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _rows_of(count: int, frames: int | None, guided: bool) -> tuple[Row, ...]:
    """The rows of a call with so many pictures, or videos of so many ``frames``, as the UNet lays them out."""
    each = count // 2 if guided else count
    pictures = list(range(each)) if frames is None else list(range(frames)) * each
    return tuple(
        Row(role, frame) for role in ((NULL_ROLE, FACE_ROLE) if guided else (FACE_ROLE,)) for frame in pictures
    )


class CallHook:
    """A forward pre-hook of the UNet that adds a :class:`Step` to its ``cross_attention_kwargs``.

    It remembers what depends on sizes and rows alone, and of the calls themselves nothing but the places that one run found.
    """

    def __init__(
        self,
        applied: AppliedCast,
        schedule: TimestepSchedule,
        guided: Callable[[], bool],
        run: Callable[[], object] = lambda: None,
        part: View | None = None,
    ):
        """``run``: an object that is another one in each sampling run."""
        self.applied, self.schedule, self.guided, self.run, self.part = applied, schedule, guided, run, part
        self._memory, self._run = Memory(_ordinary_tensors), run()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        sample = args[0] if args else kwargs["sample"]
        timestep = args[1] if len(args) > 1 else kwargs["timestep"]
        given = kwargs.get("cross_attention_kwargs") or {}
        return args, {**kwargs, "cross_attention_kwargs": {**given, KEY: self.step(sample, timestep)}}

    def step(self, sample: Tensor, timestep: Tensor | float) -> Step:
        """``sample`` [B, 4, h, w], or of videos [videos, 4, F, h, w]; ``timestep``: one for all, or for each of the first axis.
        Waits for no device.

        Raises DynamicIDError if the rows cannot be half unconditional, half conditional though the pipeline guides.
        """
        videos, guided, run = len(sample), self.guided(), self.run()
        if self.applied.finds_places and run is not self._run:
            self._memory, self._run = Memory(_ordinary_tensors), run
        if guided and videos % 2:
            raise DynamicIDError(
                f"The pipeline guides, but the UNet was called with {videos} rows, which are not as many unconditional as "
                "conditional ones. Apply DynamicID with guided=False if the rows are conditional only."
            )
        rows = _rows_of(videos, sample.shape[2] if sample.ndim == 5 else None, guided)
        rows = tuple(row._replace(view=self.part) for row in rows)
        levels = torch.as_tensor(timestep, device=sample.device).float().reshape(-1).expand(videos)
        levels = levels.repeat_interleave(len(rows) // videos)
        latent = (sample.shape[-2], sample.shape[-1])
        if self.part is None:
            self._memory.get(("crop", latent), lambda: self._warn_of_crop(latent))
        call = prepare_call(self.applied, rows, latent, levels, self.schedule, sample, self._memory)
        moves = self.applied.cast.frames > 1
        return Step(call, guided, look_index(self.applied, rows, sample.device, self._memory) if moves else None)

    def _warn_of_crop(self, latent: GridSize) -> None:
        if message := crop_warning(self.applied.cast, Sampled(latent)):
            warnings.warn(message, stacklevel=2)


class Attachment:
    """Faces on a UNet. Made by :func:`attach`."""

    def __init__(self, unet: Any, processors: Mapping[str, FaceProcessor], hook: CallHook):
        self.unet, self.hook = unet, hook
        self._before = dict(unet.attn_processors)
        unet.set_attn_processor({**self._before, **processors})  # motion modules keep theirs
        # First of all hooks, so that those of others (offloading) see the complete arguments.
        self._handle = unet.register_forward_pre_hook(hook, prepend=True, with_kwargs=True)

    def remove(self) -> None:
        """Give the UNet its own attention processors back."""
        self._handle.remove()
        self.unet.set_attn_processor(dict(self._before))


def _check_processors(unet: Any) -> None:
    own = {type(p).__name__ for p in unet.attn_processors.values() if isinstance(p, nn.Module)}
    if own:
        raise DynamicIDError(
            f"The UNet carries attention processors with weights of their own ({', '.join(sorted(own))}), which DynamicID "
            "would replace. Remove them first (for an IP-Adapter: pipe.unload_ip_adapter())."
        )


def attach(
    unet: Any,
    saa: SAAModule,
    cast: Cast,
    options: SAAOptions = SAAOptions(),
    *,
    guided: Callable[[], bool],
    run: Callable[[], object] = lambda: None,
    timesteps: int = 1000,
    lora: str = "fused",
    recorder: GateRecorder | None = None,
    warn: Callable[[str], object] = warnings.warn,
    part: View | None = None,
) -> Attachment:
    """Put a cast into a UNet2DConditionModel; also compiled ones.

    ``guided`` says at each call whether the first half of the rows is unconditional; ``run`` gives an object that is another
    one in each sampling run, where places are found; ``timesteps``: of the noise schedule that the UNet was trained with. With
    ``lora="apart"`` the LoRA is computed beside the weights; with ``"fused"`` it must be in them (:class:`FusedLoRA`).
    ``recorder`` notes down where identity goes in; ``warn`` gets a sentence for people for whom no place was found.
    ``part``: what is sampled of the picture that the cast has its places in; None: all of it.
    Raises DynamicIDError for an empty cast, a UNet or faces that do not fit the weights.
    """
    if lora not in LORA_MODES:
        raise DynamicIDError(f"lora is {lora!r}; it must be 'fused' or 'apart'.")
    unet = unwrapped(unet)
    layout = fitting_layout(unet, saa)
    _check_processors(unet)
    with _ordinary_tensors():
        applied = AppliedCast.of(cast, options, layout, saa, recorder, warn)
    # Weights offloaded one by one stand on "meta"; what follows them there is fetched when it is used.
    place = {"device": unet.device if unet.device.type != "meta" else "cpu", "dtype": unet.dtype}
    processors, packed = {}, iter(applied.packed)
    for name, site in attention_sites(layout, saa):
        beside = (
            {target: copy.deepcopy(site.lora(target)).to(**place) for target in LORA_TARGETS}
            if lora == "apart"
            else None
        )
        processors[f"{name}.processor"] = FaceProcessor(
            next(packed).to(**place) if site.is_cross else None,
            None if beside is None else nn.ModuleDict(beside),
            options.lora_strength,
        )
    return Attachment(unet, processors, CallHook(applied, TimestepSchedule(timesteps), guided, run, part))
