"""ComfyUI: LoRA as weight patches, faces as one attention patch, networks under the host's memory management.

How faces get into a run (facts: ComfyUI 0.33, ``comfy/samplers.py``, ``comfy/ldm/modules/attention.py``):

- ``apply_faces`` computes the keys and values of all faces once, when its node runs. They are a few megabytes.
- When sampling starts, a SAMPLER_SAMPLE wrapper labels every conditioning with its role (:class:`RowLabels`), which the
  host then carries to the model row by row, whatever it batches, splits, crops or repeats.
- At every model call, an APPLY_MODEL wrapper (outside the part that TorchCompileModel compiles) puts one attention
  patch on each cross attention, around whatever other packs put there before, into copies of the options of this very
  call. Nothing shared is ever changed, so reruns, clones and bypass cannot leak.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import comfy.conds
import comfy.lora
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ..attention import Grids, SiteFaces, add_faces, call_affine, gate_affine, pack_cast, score_bias, site_faces
from ..checkpoints import MotionCheckpoint, SAACheckpoint, load_motion, load_saa
from ..encode import TokenEncoder
from ..face_files import encoder_mismatch
from ..layers import TransformerBlock, attention_blocks
from ..motion import MotionNetworks
from ..networks.saa import LORA_TARGETS, SAAModule
from ..regions import WHOLE, Box, halvings, region_weights, with_default_regions
from ..types import Cast, DynamicIDError, SAAOptions

KEY = "dynamicid"  # of wrappers, attachments and the row labels


# --- networks -----------------------------------------------------------------------------------------------------


class ManagedNetwork:
    """A network that the host loads to its device and casts, and that leaves the device after each use.

    It is needed before sampling, when the UNet is about to want the room.
    """

    def __init__(self, module: torch.nn.Module):
        device = comfy.model_management.get_torch_device()
        # Read at call time: the host replaces this class when dynamic VRAM is on.
        patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
        self.module = module
        self.patcher = patcher_class(
            module, load_device=device, offload_device=comfy.model_management.unet_offload_device()
        )

    def __call__(self, *args: Tensor) -> Tensor:
        """Run on the host's device in float32, to which the layers (``comfy.ops.manual_cast``) cast their weights.

        Inputs may come from anywhere; the result is on the CPU.
        """
        comfy.model_management.load_models_gpu([self.patcher])
        try:
            with torch.no_grad():
                return self.module(*(x.to(self.patcher.load_device, torch.float32) for x in args)).cpu()
        finally:
            self.release()

    def release(self) -> None:
        """Have the host take the weights off its device, and nothing else.

        As ``unload_model_and_clones`` does, which hosts before 0.33 may lack.
        """
        loaded = comfy.model_management.current_loaded_models
        others = [model for model in loaded if model.model is not self.patcher]
        comfy.model_management.free_memory(1e30, self.patcher.load_device, others)


@dataclass(frozen=True, eq=False)
class LoadedDynamicID:
    """What the socket DYNAMICID carries. Weights used while sampling stay on the CPU: only their products travel."""

    saa: SAACheckpoint
    motion: MotionCheckpoint | None
    saa_name: str = ""
    imr_name: str = ""

    @cached_property
    def face_encoder(self) -> ManagedNetwork:
        return ManagedNetwork(self.saa.face_encoder)

    @cached_property
    def reconfigurator(self) -> ManagedNetwork:
        return ManagedNetwork(self.motion.reconfigurator)

    @cached_property
    def keypoint_encoder(self) -> ManagedNetwork:
        return ManagedNetwork(self.motion.keypoint_encoder)

    @property
    def token_encoder(self) -> TokenEncoder:
        """The managed face encoder, as the core calls it."""
        return TokenEncoder(self.face_encoder, self.saa.face_encoder.sizes, self.saa.encoder_hash)


def load(saa_path: str | os.PathLike, imr_path: str | os.PathLike | None = None) -> LoadedDynamicID:
    """Load the weights with the host's layer classes. Raises DynamicIDError naming a file that does not fit."""
    saa = load_saa(saa_path, comfy.ops.manual_cast)
    motion = load_motion(imr_path, comfy.ops.manual_cast) if imr_path else None
    return LoadedDynamicID(saa, motion, os.path.basename(saa_path), os.path.basename(imr_path or ""))


def clip_tokens(clip_vision, pixels: Tensor) -> Tensor:
    """Hidden states before the last layer of a CLIP vision model: [K, 3, 224, 224] normalised -> [K, 257, 1280].

    The pixels are prepared by the core (``pictures.clip_pixels``), because the host's own preparation differs by a pixel
    at some sizes, and because the null tokens need pixels that are exactly zero.
    """
    size = clip_vision.config.get("image_size", 224)
    if clip_vision.model_type != "clip_vision_model" or size != pixels.shape[-1]:
        raise DynamicIDError(
            f"This CLIP vision model ({clip_vision.model_type}, {size} px) is not the one DynamicID was made with. "
            "Load CLIP-ViT-H-14-laion2B-s32B-b79K (the file that IP-Adapter uses)."
        )
    comfy.model_management.load_model_gpu(clip_vision.patcher)
    return clip_vision.model(pixel_values=pixels.to(clip_vision.load_device), intermediate_output=-2)[1].float().cpu()


@dataclass(frozen=True, eq=False)
class ClipVision:
    """A CLIP vision model of the host, as the core asks for it."""

    model: Any

    def tokens(self, pixels: Tensor) -> Tensor:
        return clip_tokens(self.model, pixels)


def motion_networks(loaded: LoadedDynamicID, clip) -> MotionNetworks | None:
    """What edits expressions, with the host's text encoder; None without IMR weights."""
    if loaded.motion is None:
        return None
    return MotionNetworks(loaded.reconfigurator, loaded.keypoint_encoder, lambda texts: pooled_text(clip, texts))


def pooled_text(clip, texts: Sequence[str]) -> Tensor:
    """Pooler output of SD1.5's text encoder, unprojected: K prompts -> [K, 768]."""
    pooled = []
    for text in texts:
        tokens = clip.tokenize(text)
        feature = clip.encode_from_tokens(tokens, return_pooled="unprojected", return_dict=True)["pooled_output"]
        if feature is None or feature.shape[-1] != 768:
            gives = "no pooled feature" if feature is None else f"a pooled feature of width {feature.shape[-1]}"
            raise DynamicIDError(
                f"This text encoder gives {gives}; expression editing needs that of Stable Diffusion 1.5 (768). "
                "Connect CLIP of the SD1.5 checkpoint."
            )
        pooled.append(feature[:1])
    return torch.cat(pooled).float().cpu()


# --- the model ----------------------------------------------------------------------------------------------------


def model_name(model) -> str:
    """What a MODEL is, in the host's words: "SDXL", "Flux", ..."""
    config = getattr(model.model, "model_config", None)
    return type(config).__name__ if config is not None else type(model.model).__name__


def matching_blocks(model, saa: SAAModule) -> list[TransformerBlock]:
    """The model's transformer blocks, in checkpoint order, if the weights fit it.

    Raises DynamicIDError that names what the model is and what the weights were made for.
    """
    unet = model.model.diffusion_model
    modules = dict(unet.named_modules())
    try:
        blocks = attention_blocks(name for name in modules if name.endswith(".attn2.to_k"))
    except DynamicIDError:
        blocks = []
    keys = [modules[f"{block.name}.attn2.to_k"] for block in blocks]
    have = [(key.out_features, key.in_features) for key in keys]
    want = [(site.sizes.width, site.sizes.context) for site in saa.cross_sites]
    if have != want or 2 * len(want) != len(saa):
        raise DynamicIDError(
            f"This model is {model_name(model)} with {_layout(have)}, but the DynamicID weights are made for "
            f"{_layout(want)}. The published weights need a Stable Diffusion 1.5 checkpoint (e.g. Realistic Vision V6.0 B1)."
        )
    return blocks


def _layout(sizes: Sequence[tuple[int, int]]) -> str:
    if not sizes:
        return "no cross attention that DynamicID knows"
    widths = [width for width, _ in sizes]
    return f"{len(sizes)} cross attentions (width {min(widths)} to {max(widths)}, text width {sizes[0][1]})"


def add_lora(model, saa: SAAModule, blocks: Sequence[TransformerBlock], strength: float) -> None:
    """Merge the LoRA of every attention site into the model's weights, through the host's own mechanism.

    A model that has the same weights' LoRA already (a second Apply on the same chain) gets the difference.
    """
    merged: tuple[tuple[SAAModule, float], ...] = model.get_attachment(KEY) or ()
    before = [entry for entry in merged if _same_weights(entry[0], saa)]
    change = strength - sum(share for _, share in before)
    model.set_attachments(KEY, (*(entry for entry in merged if entry not in before), (saa, strength)))
    if change == 0:
        return
    state, keys = {}, {}
    for block in blocks:
        for name, site in (("attn1", saa[block.site]), ("attn2", saa[block.site + 1])):
            for target in LORA_TARGETS:
                layer = f"{block.name}.{name}.{target}"
                lora = site.lora(target)
                state[f"{layer}.lora_up.weight"], state[f"{layer}.lora_down.weight"] = lora.up.weight, lora.down.weight
                keys[layer] = f"diffusion_model.{layer}{'.0' if target == 'to_out' else ''}.weight"
    model.add_patches(comfy.lora.load_lora(state, keys), change)


def _same_weights(a: SAAModule, b: SAAModule) -> bool:
    """Whether two modules hold the same LoRA: one file loaded by two nodes gives two modules."""
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return a is b or (len(a) == len(b) and all(x is y or torch.equal(x, y) for x, y in pairs))


def encoder_warnings(loaded: LoadedDynamicID, cast: Cast) -> list[str]:
    """A sentence for each face that another encoder than the loaded one made; it acts, but may look less alike."""
    faces = {person.face.encoder: person.face for person in cast.people}.values()
    found = (
        encoder_mismatch(f.encoder, loaded.saa.encoder_hash, f"Face {f.name!r}" if f.name else "A face") for f in faces
    )
    return [message for message in found if message]


def apply_faces(model, loaded: LoadedDynamicID, cast: Cast, options: SAAOptions, recorder=None):
    """A clone of ``model`` in which the people of ``cast`` appear.

    ``recorder``: a :class:`gate_maps.GateRecorder` to note down where identity goes in, or None.
    Raises DynamicIDError for a model or faces that do not fit, and for an empty cast.
    """
    cast = with_default_regions(cast)
    saa = loaded.saa.saa
    blocks, unet = matching_blocks(model, saa), model.model.diffusion_model
    model = model.clone()
    add_lora(model, saa, blocks, options.lora_strength)
    heads = tuple(unet.get_submodule(f"{block.name}.attn2").heads for block in blocks)
    layer = CastLayer(cast, options, tuple(blocks), pack_cast(saa, cast), heads, recorder)
    add_layer(model, layer)
    return model


# --- rows ---------------------------------------------------------------------------------------------------------

NULL_ROLE, FACE_ROLE = 0, 1


class Row(NamedTuple):
    """One row of a model call."""

    role: int
    frame: int  # which picture of the batch
    area: tuple[int, ...] | None = None  # height, width, y, x in latent cells, where only a part is denoised


class RowLabels(comfy.conds.CONDRegular):
    """A label for each row of a conditioning, which the host carries to the model.

    ``cond`` [batch, 6], on the CPU: the columns are a :class:`Row`'s role, frame and area (height 0: the whole picture).
    Being a tensor, it is repeated, concatenated and sliced (context windows, packs that call the model row by row) as
    the host's own conditionings are.
    """

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, **kwargs) -> RowLabels:
        labels = super().process_cond(batch_size, **kwargs)
        if area is not None:
            labels.cond = torch.cat((labels.cond[:, :2], torch.tensor([area]).expand(len(labels.cond), -1)), dim=1)
        return labels


def label_conditionings(conds: dict[str, list[dict]], batch: int) -> dict[str, list[dict]]:
    """Copies of a guider's conditionings with their role: those called negative see null tokens, all others the faces.

    By name, because indices mislead: DualCFG and guidance that runs the negative side alone put it first.
    """

    def label(cond: dict, role: int) -> dict:
        labels = torch.zeros(batch, 6, dtype=torch.long)
        labels[:, 0], labels[:, 1] = role, torch.arange(batch)
        return {**cond, "model_conds": {**cond.get("model_conds", {}), KEY: RowLabels(labels)}}

    return {
        name: [label(cond, NULL_ROLE if "negative" in name else FACE_ROLE) for cond in entries] if entries else entries
        for name, entries in conds.items()
    }


def rows_of_call(labels: Tensor | None, cond_or_uncond: Sequence[int], count: int) -> tuple[Row, ...] | None:
    """The rows of a model call, or None where they cannot be told.

    Other packs may repeat the rows as a whole (one time for each tile). A call that no sampler of the host made carries
    no labels; there, index 1 is the negative side, as in the host's guidance.
    """
    if labels is not None and len(labels) and count % len(labels) == 0:
        rows = tuple(Row(role, frame, tuple(area) if area[0] else None) for role, frame, *area in labels.tolist())
        return rows * (count // len(rows))
    indices = list(cond_or_uncond) or [0]
    if count % len(indices):
        return None
    frames = range(count // len(indices))
    return tuple(Row(NULL_ROLE if index == 1 else FACE_ROLE, frame) for index in indices for frame in frames)


# --- one cast on a model ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CastLayer:
    """What one Apply adds to a model: immutable, shared by clones."""

    cast: Cast
    options: SAAOptions
    blocks: tuple[TransformerBlock, ...]
    packed: tuple[Tensor, ...]  # for each block, [2, 2 * M + 1, C], float32 on the CPU
    heads: tuple[int, ...]  # for each block
    recorder: Any = None

    @cached_property
    def token_counts(self) -> list[int]:
        return [person.face.tokens.shape[1] for person in self.cast.people]

    @cached_property
    def frames(self) -> int:
        """How many pictures of a batch have regions of their own."""
        masks = (p.region.mask for p in self.cast.people if p.region)
        return math.lcm(*(len(mask) for mask in masks if mask is not None))


@dataclass(eq=False)
class RunCache:
    """Tensors of one sampling run that depend on sizes, rows and device only; gone when the run ends."""

    size: tuple[int, int] | None = None  # of the whole latent, where known
    sigmas: dict[Any, Any] = field(default_factory=dict)
    tensors: dict[Any, Any] = field(default_factory=dict)

    def get(self, key, make):
        if key not in self.tensors:
            self.tensors[key] = make()
        return self.tensors[key]

    def sigma(self, sampling, fraction: float) -> float:
        """The noise level at a fraction of the schedule."""
        key = (id(sampling), fraction)
        if key not in self.sigmas:
            self.sigmas[key] = float(sampling.percent_to_sigma(fraction))
        return self.sigmas[key]


@dataclass(eq=False)
class Call:
    """What the attention patches of one model call need of one cast. All data that varies are tensors."""

    layer: CastLayer
    cache: RunCache
    rows: tuple[Row, ...]
    faces: tuple[SiteFaces, ...]  # for each block, of B rows
    boost: Tensor  # [B]
    strength: Tensor  # [B]
    grids: dict[tuple[int, int], tuple[Tensor, Tensor]]  # (h, w) -> bias [B or 1, 1, N, M], affine [B, 2, N]
    sigma: Tensor  # [B]
    sampling: Any  # the model's noise schedule
    sources: tuple[int, ...]  # of each row, its number in the call of the model
    repeated: Call | None = None  # for layers whose rows other packs repeat

    @cached_property
    def face_rows(self) -> list[int]:
        """Rows that see people, not null tokens; of repeated ones the first."""
        first = [self.sources.index(i) for i in sorted(set(self.sources))]
        return [i for i in first if self.rows[i].role == FACE_ROLE]

    def for_rows(self, count: int) -> Call | None:
        """What a layer with so many rows needs; None where it cannot be told."""
        return next((call for call in (self, self.repeated) if call and len(call.rows) == count), None)

    @cached_property
    def moment(self) -> Tensor:
        """For the recorder: the fraction of the schedule that lies behind, of the rows that see people."""
        steps = len(self.sampling.sigmas) - 1
        return 1 - self.sampling.timestep(self.sigma[self.face_rows]).float() / steps

    @property
    def constants(self) -> str:
        """Everything but tensors' values, and shapes that follow from the latent's, that an attention patch depends on."""
        shapes = sorted({(len(bias), bias.shape[-1]) for bias, _ in self.grids.values()})
        return f"{shapes} {self.layer.options.gate_threshold} {self.repeated and self.repeated.sources}"

    def grid(self, height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Bias and affine of a layer's grid; the usual ones are there already, others (patched layers) are made."""
        usual = self.grids.get((height, width))
        return self.make_grid(height, width, like) if usual is None else usual

    @torch.compiler.disable
    def make_grid(self, height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
        bias, affine = make_grid(self.layer, self.cache, self.rows, height, width, like)
        return bias, call_affine(affine, self.boost, self.strength)


def make_grid(
    layer: CastLayer, cache: RunCache, rows: tuple[Row, ...], height: int, width: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Regions on one grid for each row: bias [B or 1, 1, N, M], affine [B or 1, 2, 2, N] in float32. 1: all are alike."""
    places = [(row.area, row.frame % layer.frames) for row in rows]
    places = tuple(places[:1] if len(set(places)) == 1 else places)

    def make() -> tuple[Tensor, Tensor]:
        grids = {}
        for area in dict.fromkeys(area for area, _ in places):
            weights = region_weights(layer.cast, height, width, layer.options.outside, _view(area, cache.size))
            bias = score_bias(weights.visible, layer.token_counts)
            grids[area] = bias, gate_affine(weights, layer.options.layout_strength)
        bias, affine = (
            torch.stack([grids[area][i][frame % len(grids[area][i])] for area, frame in places]) for i in (0, 1)
        )
        return bias.to(like.device, like.dtype), affine.to(like.device)

    return cache.get(("grid", id(layer), places, height, width, like.device, like.dtype), make)


def _view(area: tuple[int, ...] | None, size: tuple[int, int] | None) -> Box:
    if area is None or size is None:
        return WHOLE
    h, w, y, x = area
    return (y / size[0], x / size[1], min(1.0, (y + h) / size[0]), min(1.0, (x + w) / size[1]))


def prepare_call(
    layer: CastLayer, cache: RunCache, rows: tuple[Row, ...], x: Tensor, sigma: Tensor, base_model, sources: Sequence[int] = ()
) -> Call:
    """Everything that one model call needs, from the run's cache where possible. Never waits for the device.

    ``sources``: of :func:`repeated_rows`.
    """
    dtype, sampling, options = base_model.get_dtype_inference(), base_model.model_sampling, layer.options
    like = torch.empty(0, device=x.device, dtype=dtype)
    roles = tuple(row.role for row in rows)

    def gather() -> tuple[SiteFaces, ...]:
        index = torch.tensor(roles)
        rows_of = (packed[index].to(like.device, like.dtype) for packed in layer.packed)
        return tuple(map(site_faces, rows_of, layer.heads))

    def join() -> Grids:
        sizes = halvings(*x.shape[-2:])
        return Grids.of({size: make_grid(layer, cache, rows, *size, like) for size in sizes})

    sigma = sigma.float().flatten()
    sigma = sigma if len(sigma) == len(rows) else sigma[:1].expand(len(rows))
    start, end = (cache.sigma(sampling, fraction) for fraction in (options.start_at, options.end_at))
    boost = (sigma > cache.sigma(sampling, options.layout_end)).float()
    strength = ((sigma <= start) & (sigma >= end)).float() * options.weight
    faces = cache.get(("faces", id(layer), roles, like.device, like.dtype), gather)
    grids = cache.get(("grids", id(layer), rows, x.shape[-2:], like.device, like.dtype), join)
    grids, own = grids.at(boost, strength), tuple(range(len(rows)))
    call = Call(layer, cache, rows, faces, boost, strength, grids, sigma, sampling, own)
    if sources:
        some = torch.stack([sigma[i] for i in sources])  # a list as index would be copied to the device
        call.repeated = prepare_call(layer, cache, tuple(rows[i] for i in sources), x, some, base_model)
        call.repeated.sources = tuple(sources)
    return call


def repeated_rows(options: dict, x: Tensor, context: Tensor | None, cache: RunCache) -> tuple[int, ...]:
    """Which of a call's rows stand where, after other packs' patches before the cross attentions: their numbers.

    Attention couple, for one, repeats the rows of the positive side, once for each of its prompts. What a patch does is
    found by giving it rows that hold their own numbers: once a run, waiting for the device, and only where there is such a
    patch. () where rows stay as they are, or where it cannot be told.
    """
    patches = tuple(options.get("patches", {}).get("attn2_patch", ()))
    if not patches or context is None:
        return ()

    def ask() -> tuple[int, ...]:
        count, (height, width) = len(x), x.shape[-2:]
        numbers = torch.arange(1, count + 1, device=x.device, dtype=x.dtype)
        rows = numbers[:, None, None].repeat(1, height * width, context.shape[-1])
        text = value = torch.zeros_like(context)
        extra = {name: value for name, value in options.items() if name not in ("patches", "patches_replace")}
        extra |= {"activations_shape": list(x.shape), "block": ("input", 1), "block_index": 0, "n_heads": 8,
                  "dim_head": context.shape[-1] // 8, "attn_precision": None}  # fmt: skip
        try:
            for patch in patches:
                rows, text, value = patch(rows, text, value, extra)
        except Exception:
            logging.warning("DynamicID: another node's attention patch failed on numbered rows.", exc_info=True)
            return ()
        found = rows[:, 0, 0].tolist()
        same = bool((rows == rows[:, :1, :1]).all()) and set(found) <= set(range(1, count + 1)) and len(found) != count
        return tuple(int(number) - 1 for number in found) if same else ()

    return cache.get(("repeated", patches, tuple(options.get("cond_or_uncond", ())), x.shape), ask)


class FacePatch:
    """The attention patch of one cross attention: what was there before, plus the faces. Never changed once made."""

    def __init__(self, call: Call, index: int, inner=None):
        self.call, self.index, self.inner = call, index, inner

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        """Replaces one cross attention: ``q`` [B, N, C], ``k``, ``v`` [B, S, C], all projected -> [B, N, C]."""
        if self.inner is None:
            heads, precision = extra["n_heads"], extra["attn_precision"]
            text = optimized_attention(q, k, v, heads, attn_precision=precision, transformer_options=extra)
        else:
            text = self.inner(q, k, v, extra)
        call, (height, width) = self.call.for_rows(q.shape[0]), extra["activations_shape"][-2:]
        if call is None or q.shape[1] != height * width:
            _warn_once(f"rows {q.shape[0]} for {len(self.call.rows)}, cells {q.shape[1]} for {height} x {width}")
            return text
        faces = call.faces[self.index]
        bias, affine = call.grid(height, width, q)
        if q.dtype != bias.dtype:
            faces, bias = faces.to(q.dtype), bias.to(q.dtype)
        out, gate = add_faces(text, q, faces, bias, affine, call.layer.options.gate_threshold)
        if call.layer.recorder is not None:
            self.record(call, q, faces.keys, bias, gate, height, width)
        return out

    @staticmethod
    def record(call: Call, q: Tensor, keys: Tensor, bias: Tensor, gate: Tensor, height: int, width: int) -> None:
        """Hand the rows that see faces to the recorder."""
        rows = call.face_rows
        if rows:
            bias = bias[rows] if len(bias) > 1 else bias
            counts = call.layer.token_counts
            call.layer.recorder.record(q[rows], keys[rows], bias, gate[rows], counts, height, width, call.moment)


_warned: set[str] = set()


def _warn_once(what: str) -> None:
    """Another pack repeats rows or reorders cells in a way that cannot be told apart; better no face than a crash."""
    if what not in _warned:
        _warned.add(what)
        logging.warning("DynamicID: another node rearranges the attention input (%s); faces are left out there.", what)


class CastWrappers:
    """The wrappers of all casts on one model. Immutable; a further Apply replaces them by longer ones."""

    def __init__(self, layers: tuple[CastLayer, ...]):
        self.layers = layers

    def sampler_sample(self, executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
        """Around a sampling run: label the conditionings and open the run's cache."""
        for layer in self.layers:
            if layer.recorder is not None:
                layer.recorder.clear()
        guider.conds = label_conditionings(guider.conds, noise.shape[0])
        options = extra_args["model_options"].get("transformer_options", {})
        options = {**options, KEY: RunCache(size=tuple(noise.shape[-2:]))}
        extra_args = {**extra_args, "model_options": {**extra_args["model_options"], "transformer_options": options}}
        return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)

    def apply_model(self, executor, x, t, c_concat=None, c_crossattn=None, control=None, options=None, **kwargs):
        """Around every model call: put the attention patches into a copy of its transformer options."""
        if options is None:
            options = kwargs.pop("transformer_options", {})
        indices = options.get("cond_or_uncond", ())
        rows = rows_of_call(kwargs.pop(KEY, None), indices, len(x))
        if rows is None:
            _warn_once(f"{len(x)} rows for {len(indices)} conditionings")
        else:
            cache = options.get(KEY) or RunCache()
            sources = repeated_rows(options, x, c_crossattn, cache)
            calls = [prepare_call(layer, cache, rows, x, t, executor.class_obj, sources) for layer in self.layers]
            options = with_patches(options, calls)
            # A name, because TorchCompileModel checks the names of arguments, but nothing inside the transformer options:
            # without it, a compiled model would go on with the constants of the first cast it saw, or with no cast.
            kwargs[f"{KEY} {' '.join(call.constants for call in calls)}"] = None
        with _uncompiled() if any(layer.recorder is not None for layer in self.layers) else nullcontext():
            return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def _uncompiled():
    """Compiled models run uncompiled meanwhile: a recorder fills Python containers, which a compiler would take as they
    were when it first saw them. PyTorch before 2.6 cannot do that."""
    set_stance = getattr(torch.compiler, "set_stance", None)
    return set_stance("force_eager") if set_stance else nullcontext()


def with_patches(options: dict, calls: Sequence[Call]) -> dict:
    """A copy of a call's transformer options with an attention patch on each cross attention."""
    replaced = options.get("patches_replace", {})
    attn2 = dict(replaced.get("attn2", {}))
    for call in calls:
        for index, block in enumerate(call.layer.blocks):
            exact, whole = (block.stage, block.number, block.index), (block.stage, block.number)
            attn2[exact] = FacePatch(call, index, attn2.get(exact, attn2.get(whole)))
    return {**options, "patches_replace": {**replaced, "attn2": attn2}}


def cast_layers(model) -> tuple[CastLayer, ...]:
    """The casts on a model, in the order in which they were applied."""
    wrappers = model.model_options.get("transformer_options", {}).get("wrappers", {})
    before = wrappers.get(WrappersMP.APPLY_MODEL, {}).get(KEY)
    return before[0].__self__.layers if before else ()


def add_layer(model, layer: CastLayer) -> None:
    """Add a cast to a freshly cloned model."""
    both = CastWrappers((*cast_layers(model), layer))
    wrappers = model.model_options.setdefault("transformer_options", {}).setdefault("wrappers", {})
    for kind in (WrappersMP.APPLY_MODEL, WrappersMP.SAMPLER_SAMPLE):
        wrappers.get(kind, {}).pop(KEY, None)
    for kind, wrapper in ((WrappersMP.SAMPLER_SAMPLE, both.sampler_sample), (WrappersMP.APPLY_MODEL, both.apply_model)):
        add_wrapper_with_key(kind, KEY, wrapper, model.model_options, is_model_options=True)


def gate_maps(model, height: int, width: int, **chosen) -> list[tuple[Cast, Tensor]]:
    """What the recorders on a model saw while it was last sampled with: for each cast, its people and their maps.

    ``chosen``: what :meth:`gate_maps.GateRecorder.maps` takes besides a size in pixels. Raises DynamicIDError for a model
    without faces, and when nothing was recorded.
    """
    layers = cast_layers(model)
    if not layers:
        raise DynamicIDError("No face is applied to this model. Connect the model that comes out of Apply DynamicID.")
    if any(layer.recorder is None for layer in layers):
        raise DynamicIDError("This model was sampled without recording. Queue the graph again with this node in it.")
    return [(layer.cast, layer.recorder.maps(height, width, **chosen)) for layer in layers]
