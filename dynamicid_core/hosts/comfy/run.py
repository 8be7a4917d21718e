"""A sampling run with faces: the wrappers around it, and the attention patches of each model call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ...attention import SiteFaces
from ...call import AppliedCast, Call, Memory, Row, faces_of_rows, prepare_call
from ...crops import Sampled, glance
from ...regions import GridSize
from ...views import View
from .crops import note_made, note_run, note_tile
from .neighbours import compile_key, first_of_each, repeated_rows, uncompiled, warn_once
from .rows import KEY, label_conditionings, rows_of_call
from .tiles import parts_of, ready_for_run, window_of

AttentionPatch = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], Tensor]


@dataclass(frozen=True)
class SigmaSchedule:
    """The host's noise schedule (``comfy.model_sampling``): noise levels are sigmas."""

    sampling: Any

    def level(self, fraction: float) -> float:
        return float(self.sampling.percent_to_sigma(fraction))

    def passed(self, levels: Tensor) -> Tensor:
        steps = len(self.sampling.sigmas) - 1
        return 1 - self.sampling.timestep(levels).float() / steps


class Run:
    """One sampling run: what it remembers, gone when it ends."""

    def __init__(self, latent: GridSize | None = None, parts: tuple[View, ...] = ()):
        self.latent = latent  # height and width of the whole latent, where known
        self.parts = parts  # what each latent of the batch shows of its picture, if not all
        self.memory = Memory()

    def shown(self, options: dict[str, Any], dims: int) -> tuple[GridSize | None, tuple[View, ...]]:
        """Height and width of what a call's areas and tiles are parts of, and what each picture of the batch shows there.

        That is the latent, or a context window of it. ``options``: the call's; ``dims``: how many dimensions the latent has.
        """
        window = None if self.latent is None else window_of(options, self.latent, dims)
        if window is None:
            return self.latent, self.parts
        return (window.height, window.width), tuple(window.within(part) for part in self.parts or (None,))


class CallWithFaces(NamedTuple):
    """One model call for a cast: what its cross attentions share, and what each of them sees."""

    call: Call
    faces: tuple[SiteFaces, ...]  # for each cross attention


class FacePatch:
    """The attention patch of one cross attention: what was there before, plus the faces. Never changed once made."""

    def __init__(self, calls: dict[int, CallWithFaces], site: int, inner: AttentionPatch | None = None):
        """``calls``: by how many rows the attention may be given; ``site``: number of the cross attention."""
        self.calls, self.site, self.inner = calls, site, inner

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        """Replaces one cross attention: ``q`` [B, N, C], ``k``, ``v`` [B, S, C], all projected -> [B, N, C]."""
        if self.inner is None:
            heads, precision = extra["n_heads"], extra["attn_precision"]
            text = optimized_attention(q, k, v, heads, attn_precision=precision, transformer_options=extra)
        else:
            text = self.inner(q, k, v, extra)
        found, (height, width) = self.calls.get(q.shape[0]), extra["activations_shape"][-2:]
        if found is None or q.shape[1] != height * width:
            warn_once(f"rows {q.shape[0]} for {min(self.calls)}, cells {q.shape[1]} for {height} x {width}")
            return text
        return found.call.add_faces(text, q, found.faces[self.site], height, width)


def with_patches(options: dict[str, Any], casts: Sequence[dict[int, CallWithFaces]]) -> dict[str, Any]:
    """A copy of a call's transformer options with an attention patch on each cross attention, for each cast."""
    replaced = options.get("patches_replace", {})
    attn2 = dict(replaced.get("attn2", {}))
    for calls in casts:
        layout = next(iter(calls.values())).call.applied.layout
        for site, block in enumerate(layout.blocks):
            exact, whole = (block.stage, block.number, block.index), (block.stage, block.number)
            attn2[exact] = FacePatch(calls, site, attn2.get(exact, attn2.get(whole)))
    return {**options, "patches_replace": {**replaced, "attn2": attn2}}


def calls_of(
    applied: AppliedCast,
    run: Run,
    rows: tuple[Row, ...],
    x: Tensor,
    sigma: Tensor,
    base_model: Any,
    sources: Sequence[int],
) -> dict[int, CallWithFaces]:
    """What one model call needs of one cast, by the number of rows that a cross attention may be given.

    That is as many as the call has, and as many as other packs make of them (``sources`` of :func:`repeated_rows`).
    """
    like = torch.empty(0, device=x.device, dtype=base_model.get_dtype_inference())
    schedule, latent = SigmaSchedule(base_model.model_sampling), (x.shape[-2], x.shape[-1])
    sigma = sigma.float().flatten()
    sigma = sigma if len(sigma) == len(rows) else sigma[:1].expand(len(rows))
    own = prepare_call(applied, rows, latent, sigma, schedule, like, run.memory)
    calls = [own]
    if sources:
        some = torch.stack([sigma[i] for i in sources])  # a list as index would be copied to the device
        repeated, recorded = tuple(rows[i] for i in sources), first_of_each(sources, own.recorded)
        calls.append(prepare_call(applied, repeated, latent, some, schedule, like, run.memory, recorded))
    return {len(c.rows): CallWithFaces(c, faces_of_rows(applied, c.rows, like, run.memory)) for c in calls}


class CastWrappers:
    """The wrappers of all casts on one model. Immutable; a further Apply replaces them by others with one cast more."""

    def __init__(self, casts: tuple[AppliedCast, ...]):
        self.casts = casts
        self.recording = any(applied.recorder is not None for applied in casts)

    def sampler_sample(
        self, executor: Any, guider: Any, sigmas: Any, extra_args: dict[str, Any], callback: Any, noise: Tensor, *args: Any,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Around a sampling run: label the conditionings of this run's guider and open the run's memory."""
        self._forget_maps()
        latent, parts = (noise.shape[-2], noise.shape[-1]), parts_of(guider.conds)
        tiled = "model_function_wrapper" in extra_args["model_options"]
        guider.conds = label_conditionings(ready_for_run(guider.conds, latent, tiled), noise.shape[0])
        begun, mask = _latent_and_mask(*args, **kwargs)
        now = Sampled(latent, mask is not None, None if begun is None else glance(begun))
        if not parts:
            note_run(self.casts, now)
        options = extra_args["model_options"].get("transformer_options", {})
        options = {**options, KEY: Run(latent, parts)}
        extra_args = {**extra_args, "model_options": {**extra_args["model_options"], "transformer_options": options}}
        try:
            made = executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)
        except BaseException:  # maps of half a run are of no use, and lie where memory may just have run out
            self._forget_maps()
            raise
        note_made(self.casts, now, made)
        return made

    def _forget_maps(self) -> None:
        for applied in self.casts:
            if applied.recorder is not None:
                applied.recorder.clear()

    def apply_model(
        self, executor: Any, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Tensor | None = None,
        control: Any = None, options: dict[str, Any] | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Around every model call: put the attention patches into a copy of its transformer options."""
        if options is None:
            options = kwargs.pop("transformer_options", {})
        run = options.get(KEY) or Run()
        indices = options.get("cond_or_uncond", ())
        size, (whole, parts) = (x.shape[-2], x.shape[-1]), run.shown(options, x.ndim)
        rows = rows_of_call(kwargs.pop(KEY, None), indices, (len(x), *size), whole, parts)
        finding = False
        if rows is None:
            warn_once(f"{len(x)} rows for {len(indices)} conditionings")
        else:
            if whole not in (None, size) and any(row.view in (None, *parts) for row in rows):
                note_tile(self.casts, whole, size)
            sources = repeated_rows(options, x, c_crossattn, run.memory)
            casts = [calls_of(applied, run, rows, x, t, executor.class_obj, sources) for applied in self.casts]
            options = with_patches(options, casts)
            kwargs[f"{KEY} {compile_key([calls[len(rows)].call for calls in casts], sources)}"] = None
            finding = any(call.call.finder is not None for calls in casts for call in calls.values())
        with uncompiled() if self.recording or finding else nullcontext():
            return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def _latent_and_mask(
    latent_image: Tensor | None = None, denoise_mask: Tensor | None = None, *args: Any, **kwargs: Any
) -> tuple[Tensor | None, Tensor | None]:
    """Of what a sampling run is called with after the noise: what it begins with, and what of that it denoises."""
    return latent_image, denoise_mask


def applied_casts(model: Any) -> tuple[AppliedCast, ...]:
    """The casts on a MODEL, in the order in which they were applied."""
    wrappers = model.model_options.get("transformer_options", {}).get("wrappers", {})
    before = wrappers.get(WrappersMP.APPLY_MODEL, {}).get(KEY)
    return before[0].__self__.casts if before else ()


def add_cast(model: Any, applied: AppliedCast) -> None:
    """Add a cast to a freshly cloned MODEL."""
    all_casts = CastWrappers((*applied_casts(model), applied))
    remove_casts(model)
    for kind, wrapper in (
        (WrappersMP.SAMPLER_SAMPLE, all_casts.sampler_sample),
        (WrappersMP.APPLY_MODEL, all_casts.apply_model),
    ):
        add_wrapper_with_key(kind, KEY, wrapper, model.model_options, is_model_options=True)


def remove_casts(model: Any) -> None:
    """Take all casts from a freshly cloned MODEL."""
    wrappers = model.model_options.get("transformer_options", {}).get("wrappers", {})
    for kind in (WrappersMP.SAMPLER_SAMPLE, WrappersMP.APPLY_MODEL):
        wrappers.get(kind, {}).pop(KEY, None)
