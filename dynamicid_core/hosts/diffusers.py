"""diffusers: the faces of a cast in a Stable Diffusion 1.5 pipeline.

How faces get into a run:

- :func:`attach` puts an attention processor on every attention layer of the UNet. Those of the cross attentions hold the
  keys and values of all faces, computed once, as buffers, so that they follow the UNet to any device and dtype.
- At every call of the UNet a forward pre-hook, which torch.compile leaves outside its graphs, makes a :class:`Step`:
  what depends on the timestep, the rows and the size. It travels in ``cross_attention_kwargs``, so nothing is kept
  between calls.
- The LoRA is added to the weights themselves, whose originals are kept; or computed beside them (``lora="apart"``).
"""

from __future__ import annotations

import contextlib
import copy
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ..attention import Grids, add_faces, gate_affine, pack_cast, score_bias, site_faces
from ..checkpoints import MotionCheckpoint, SAACheckpoint, load_motion, load_saa
from ..detection import load_detector
from ..encode import EncodedFace, TokenEncoder, encode_photos
from ..face_files import load_face
from ..faces import FaceDetector
from ..files import describe, read_tensors
from ..gate_maps import GateRecorder
from ..layers import TransformerBlock, attention_blocks
from ..motion import MotionNetworks, edit_face
from ..networks.saa import LORA_TARGETS, SAAModule, Site
from ..pictures import to_rgb
from ..regions import halvings, region_weights, with_default_regions
from ..types import Cast, DynamicIDError, Face, Missing, Part, Person, SAAOptions, hinting

KEY = "dynamicid"  # in cross_attention_kwargs
LORA_MODES = ("fused", "apart")
CLIP_HEAD_WIDTHS = {1280: 80, 1664: 104}  # ViT-H and ViT-bigG; 64 in the other sizes

# --- the UNet -----------------------------------------------------------------------------------------------------


def _layer(layer: nn.Module) -> nn.Module:
    """The linear layer itself where PEFT has wrapped it."""
    return getattr(layer, "base_layer", layer)


def _projections(attention: nn.Module) -> dict[str, nn.Module]:
    """The linear layers of an attention by the names of :data:`LORA_TARGETS`."""
    layers = {name: getattr(attention, name) for name in LORA_TARGETS[:3]} | {"to_out": attention.to_out[0]}
    return {name: _layer(layer) for name, layer in layers.items()}


def _layout(layers: Sequence[tuple[int, int]]) -> str:
    contexts, widths = sorted({c for _, c in layers}), sorted({w for w, _ in layers})
    return f"{len(layers)} cross attentions (widths {widths}, text width {contexts})"


def matching_blocks(unet: nn.Module, saa: SAAModule) -> list[TransformerBlock]:
    """The UNet's transformer blocks in checkpoint order, if the weights fit it.

    Raises DynamicIDError that says what the UNet has and what the weights were made for.
    """
    modules = dict(unet.named_modules())
    try:
        blocks = attention_blocks(name for name in modules if name.endswith(".attn2.to_k"))
    except DynamicIDError:
        blocks = []
    layers = [_layer(modules[f"{block.name}.attn2.to_k"]) for block in blocks]
    have = [(layer.out_features, layer.in_features) for layer in layers]
    want = [(site.sizes.width, site.sizes.context) for site in saa.cross_sites]
    if have != want or 2 * len(want) != len(saa):
        kind = {1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}.get(have[0][1] if have else 0, type(unet).__name__)
        raise DynamicIDError(
            f"This model is {kind} with {_layout(have)}, but the DynamicID weights are made for {_layout(want)}. "
            "The published weights need a Stable Diffusion 1.5 model (e.g. Realistic Vision V6.0 B1)."
        )
    return blocks


def _sites(unet: nn.Module, saa: SAAModule) -> Iterator[tuple[str, nn.Module, Site]]:
    """Every attention layer of the UNet: its name, itself, its weights in the checkpoint."""
    modules = dict(unet.named_modules())
    for block in matching_blocks(unet, saa):
        for offset, name in enumerate(("attn1", "attn2")):
            yield f"{block.name}.{name}", modules[f"{block.name}.{name}"], saa[block.site + offset]


class FusedLoRA:
    """The LoRA of all attention layers added to the UNet's own weights; :meth:`remove` brings back every bit."""

    def __init__(self, unet: nn.Module, saa: SAAModule, strength: float):
        self.saa, self.strength = saa, strength
        pairs = [
            (projection.weight, site.lora(target))
            for _, attention, site in _sites(unet, saa)
            for target, projection in _projections(attention).items()
        ]
        if any(weight.is_meta or not weight.is_floating_point() for weight, _ in pairs):
            raise DynamicIDError(
                "The UNet's weights cannot be changed (they are quantized, or offloaded one by one). Apply DynamicID "
                "before enable_sequential_cpu_offload(), or with lora='apart'."
            )
        # On the CPU: the originals are needed once, after sampling.
        self._originals = [(weight, weight.detach().to("cpu", copy=True)) for weight, _ in pairs]
        with torch.no_grad():
            for weight, lora in pairs:
                up, down = (layer.weight.to(weight.device, torch.float32) for layer in (lora.up, lora.down))
                weight.copy_(torch.addmm(weight.float(), up, down, alpha=strength))

    def remove(self) -> None:
        with torch.no_grad():
            for weight, original in self._originals:
                weight.copy_(original)


@dataclass(eq=False)
class Step:
    """What the processors need to know of one call of the UNet. All that varies from step to step are tensors."""

    guided: bool  # the first half of the rows is unconditional
    grids: dict[int, tuple[Tensor, Tensor]]  # N -> bias [B or 1, 1, N, M], affine [B, 2, N]
    threshold: float
    recording: Recording | None = None


@dataclass(eq=False)
class Recording:
    """A recorder, and what it wants to know of one call."""

    recorder: GateRecorder
    counts: list[int]  # face tokens of each person
    sizes: dict[int, tuple[int, int]]  # N -> height and width of the grid
    moment: Tensor  # [B]: fraction of the schedule, of the rows that see people

    @torch.compiler.disable
    def record(self, q: Tensor, keys: Tensor, bias: Tensor, gate: Tensor) -> None:
        first = len(q) - len(self.moment)  # unconditional rows come first and show null tokens
        bias = bias if len(bias) == 1 else bias[first:]
        size = self.sizes[q.shape[1]]
        self.recorder.record(q[first:], keys[first:], bias, gate[first:], self.counts, *size, self.moment)


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # [B, H, N, D]


def _rows(faces: Tensor, rows: int, guided: bool) -> Tensor:
    """Null and face tokens' [2, L, C] -> each row's own [rows, L, C]; without a copy where there is one picture."""
    if not guided:
        return faces[1:].expand(rows, -1, -1)
    return faces[:, None].expand(-1, rows // 2, -1, -1).flatten(0, 1)


class FaceProcessor(nn.Module):
    """The attention processor of one layer: PyTorch's fused attention, plus the faces at cross attention."""

    def __init__(self, faces: Tensor | None, lora: nn.ModuleDict | None, lora_strength: float):
        """``faces``: of :func:`attention.pack_faces`, [2, 2 * M + 1, C], None at
        self attention; ``lora``: by :data:`LORA_TARGETS`, where it is not fused.
        """
        super().__init__()
        self.lora_strength = lora_strength
        self.lora = lora
        self.register_buffer("faces", faces, persistent=False)

    def _project(self, projection: nn.Module, target: str, x: Tensor) -> Tensor:
        if self.lora is None:
            return projection(x)
        return projection(x) + self.lora_strength * self.lora[target](x)

    # Not `forward`: diffusers reads the names of this method's parameters and passes on only those keywords.
    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        dynamicid: Step | None = None,
    ) -> Tensor:
        """``hidden_states`` [B, N, C], ``encoder_hidden_states`` [B, S, 768] or None -> [B, N, C]"""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(attention_mask, context.shape[1], len(context))
            attention_mask = attention_mask.unflatten(0, (-1, attn.heads))  # [B, H, 1, S]
        q = self._project(attn.to_q, "to_q", hidden_states)
        k = self._project(attn.to_k, "to_k", context)
        v = self._project(attn.to_v, "to_v", context)
        out = scaled_dot_product_attention(*(_heads(x, attn.heads) for x in (q, k, v)), attn_mask=attention_mask)
        out = out.transpose(1, 2).flatten(2)
        if self.faces is not None and dynamicid is not None:
            out = self._add_faces(out, q, dynamicid, attn.heads)
        return attn.to_out[1](self._project(attn.to_out[0], "to_out", out))

    def _add_faces(self, text: Tensor, q: Tensor, step: Step, heads: int) -> Tensor:
        if q.shape[1] not in step.grids:
            raise DynamicIDError(
                f"A cross attention has {q.shape[1]} queries, which is no size that this picture has in the UNet. "
                "Something merges or splits them (e.g. token merging of cross attention); switch that off."
            )
        bias, affine = step.grids[q.shape[1]]
        bias, faces = bias.to(q.dtype), site_faces(_rows(self.faces.to(q), len(q), step.guided), heads)
        out, gate = add_faces(text, q, faces, bias, affine, step.threshold)
        if step.recording is not None:
            step.recording.record(q, faces.keys, bias, gate)
        return out


class StepHook:
    """A forward pre-hook of the UNet that adds a :class:`Step` to its ``cross_attention_kwargs``.

    It remembers regions by grid size, which depend on nothing else, and nothing of the calls themselves.
    """

    def __init__(
        self, cast: Cast, options: SAAOptions, levels: int, timesteps: int, guided: Callable[[], bool], recorder: GateRecorder | None
    ):
        """``levels``: of the UNet; ``timesteps``: of the noise schedule it was trained with."""
        self.cast, self.options, self.levels, self.timesteps = cast, options, levels, timesteps
        self.guided, self.recorder = guided, recorder
        self.counts = [person.face.tokens.shape[1] for person in cast.people]
        self._grids: dict[tuple, Grids] = {}

    @torch.compiler.disable
    def __call__(self, unet: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        sample = args[0] if args else kwargs["sample"]
        timestep = args[1] if len(args) > 1 else kwargs["timestep"]
        given = kwargs.get("cross_attention_kwargs") or {}
        return args, {**kwargs, "cross_attention_kwargs": {**given, KEY: self.step(sample, timestep)}}

    def step(self, sample: Tensor, timestep: Tensor | float) -> Step:
        """``sample`` [B, 4, h, w]; ``timestep``: one for all rows or [B]. Waits for no device."""
        rows, guided = len(sample), self.guided()
        if guided and rows % 2:
            raise DynamicIDError(
                f"The pipeline guides, but the UNet was called with {rows} rows, which are not as many unconditional as "
                "conditional ones. Apply DynamicID with guided=False if the rows are conditional only."
            )
        sizes = halvings(*sample.shape[-2:], self.levels)
        options, time = self.options, torch.as_tensor(timestep, device=sample.device).float().reshape(-1).expand(rows)
        boost = (time > self._time(options.layout_end)).float()
        strength = self._acts(time, options.start_at, options.end_at) * options.weight
        grids = self._grids_of(tuple(sizes), rows // 2 if guided else rows, rows, sample).at(boost, strength)
        return Step(
            guided,
            {h * w: grid for (h, w), grid in grids.items()},
            options.gate_threshold,
            self.recorder and self._recording(time, sizes, guided),
        )

    def _time(self, fraction: float) -> float:
        """The timestep at a fraction of the schedule."""
        return (1 - fraction) * (self.timesteps - 1)

    def _acts(self, time: Tensor, start: float, end: float) -> Tensor:
        """[B]: 1 where a timestep lies between two fractions of the schedule; 0 and 1 themselves include everything."""
        first = float("inf") if start == 0 else self._time(start)
        last = float("-inf") if end == 1 else self._time(end)
        return ((time <= first) & (time >= last)).float()

    def _recording(self, time: Tensor, sizes: Sequence[tuple[int, int]], guided: bool) -> Recording:
        moment = (1 - time / (self.timesteps - 1))[len(time) // 2 if guided else 0 :].clone()
        return Recording(self.recorder, self.counts, {h * w: (h, w) for h, w in sizes}, moment)

    def _grids_of(self, sizes: tuple[tuple[int, int], ...], pictures: int, rows: int, like: Tensor) -> Grids:
        """Biases as ``like``, affine in float32; picture i has the regions of frame i modulo frames."""
        key = (sizes, pictures, rows, like.device, like.dtype)
        if key not in self._grids:
            with torch.inference_mode(False):
                grids = Grids.of({size: self._grid(*size, pictures, rows) for size in sizes})
            biases = {size: bias.to(like.device, like.dtype) for size, bias in grids.biases.items()}
            self._grids[key] = Grids(biases, grids.affine.to(like.device))
        return self._grids[key]

    def _grid(self, height: int, width: int, pictures: int, rows: int) -> tuple[Tensor, Tensor]:
        weights = region_weights(self.cast, height, width, self.options.outside)
        bias, affine = score_bias(weights.visible, self.counts), gate_affine(weights, self.options.layout_strength)
        frames = [row % pictures % len(bias) for row in range(rows)] if len(bias) > 1 else [0]
        return bias[frames], affine[frames]


class Attachment:
    """Faces on a UNet. Made by :func:`attach`."""

    def __init__(self, unet: nn.Module, processors: dict, hook: StepHook):
        self.unet, self.hook = unet, hook
        self._before = dict(unet.attn_processors)
        unet.set_attn_processor(processors)
        # First of all hooks, so that those of others (offloading) see the complete arguments.
        self._handle = unet.register_forward_pre_hook(hook, prepend=True, with_kwargs=True)

    def remove(self) -> None:
        """Give the UNet its own attention processors back."""
        self._handle.remove()
        self.unet.set_attn_processor(dict(self._before))


def _check_processors(unet: nn.Module) -> None:
    own = {type(p).__name__ for p in unet.attn_processors.values() if isinstance(p, nn.Module)}
    if own:
        raise DynamicIDError(
            f"The UNet carries attention processors with weights of their own ({', '.join(sorted(own))}), which DynamicID "
            "would replace. Remove them first (for an IP-Adapter: pipe.unload_ip_adapter())."
        )


def attach(
    unet: nn.Module,
    saa: SAAModule,
    cast: Cast,
    options: SAAOptions = SAAOptions(),
    *,
    guided: Callable[[], bool],
    timesteps: int = 1000,
    lora: str = "fused",
    recorder: GateRecorder | None = None,
) -> Attachment:
    """Put a cast into a UNet2DConditionModel; also compiled ones.

    ``guided`` says at each call whether the first half of the rows is unconditional. With ``lora="apart"`` the LoRA is
    computed beside the weights; with ``"fused"`` it must be in them (:class:`FusedLoRA`).
    Raises DynamicIDError for an empty cast, a UNet that is not SD1.5, faces that do not fit.
    """
    if lora not in LORA_MODES:
        raise DynamicIDError(f"lora is {lora!r}; it must be 'fused' or 'apart'.")
    unet = getattr(unet, "_orig_mod", unet)  # torch.compile's wrapper
    cast = with_default_regions(cast)
    sites = list(_sites(unet, saa))
    _check_processors(unet)
    packed = iter(pack_cast(saa, cast))
    # Weights offloaded one by one stand on "meta"; what follows them there is fetched when it is used.
    place = {"device": unet.device if unet.device.type != "meta" else "cpu", "dtype": unet.dtype}
    processors = {}
    for name, _, site in sites:
        faces = next(packed) if site.is_cross else None
        beside = {target: copy.deepcopy(site.lora(target)).to(**place) for target in LORA_TARGETS} if lora == "apart" else None
        processors[f"{name}.processor"] = FaceProcessor(
            None if faces is None else faces.to(**place),
            None if beside is None else nn.ModuleDict(beside),
            options.lora_strength,
        )
    hook = StepHook(cast, options, len(unet.config.block_out_channels), timesteps, guided, recorder)
    return Attachment(unet, processors, hook)


# --- CLIP ---------------------------------------------------------------------------------------------------------


def load_clip_vision(source: str | os.PathLike, dtype: torch.dtype = torch.float32) -> nn.Module:
    """CLIP's vision model from a folder in Hugging Face's format or from a single file with its tensor names.

    A file such as ComfyUI's ``CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors`` has no configuration beside it; its sizes are
    read from its tensors. Raises DynamicIDError for files that are no CLIP vision model.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    path = Path(source)
    if path.is_dir():
        try:
            return CLIPVisionModelWithProjection.from_pretrained(path, dtype=dtype).eval()
        except (OSError, ValueError) as error:
            raise DynamicIDError(f"{path} is no folder with a CLIP vision model ({error}).") from error
    tensors = read_tensors(path)
    patch = tensors.get("vision_model.embeddings.patch_embedding.weight")
    position = tensors.get("vision_model.embeddings.position_embedding.weight")
    fc1 = tensors.get("vision_model.encoder.layers.0.mlp.fc1.weight")
    projection = tensors.get("visual_projection.weight")
    if any(tensor is None for tensor in (patch, position, fc1, projection)):
        raise DynamicIDError(
            f"{path} is {describe(tensors)}; expected a CLIP vision model with Hugging Face's tensor names, "
            "such as CLIP-ViT-H-14-laion2B-s32B-b79K (the file that IP-Adapter uses)."
        )
    layers = {name.split(".")[3] for name in tensors if name.startswith("vision_model.encoder.layers.")}
    width = patch.shape[0]
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=fc1.shape[0],
        projection_dim=projection.shape[0],
        num_hidden_layers=len(layers),
        num_attention_heads=max(width // CLIP_HEAD_WIDTHS.get(width, 64), 1),
        image_size=round((len(position) - 1) ** 0.5) * patch.shape[-1],
        patch_size=patch.shape[-1],
        hidden_act="quick_gelu" if width == 1024 else "gelu",  # OpenAI's models have the former, OpenCLIP's the latter
    )
    model, report = CLIPVisionModelWithProjection.from_pretrained(
        None, config=config, state_dict=tensors, dtype=dtype, output_loading_info=True
    )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise DynamicIDError(f"{path} lacks {len(missing)} tensors of a CLIP vision model, e.g. {missing[0]}; get it again.")
    return model.eval()


@contextlib.contextmanager
def _visiting(module: nn.Module, device: torch.device) -> Iterator[None]:
    """A network on ``device`` for a moment: what is needed only before sampling does not stay there."""
    home = next(module.parameters()).device
    module.to(device)
    try:
        yield
    finally:
        module.to(home)


HINTS: dict[Part, str] = {
    "face detector": "Give detector (detection.load_detector).",
    "detected face": "Encode a photo in which the face is visible, with a detector.",
    "IMR weights": "Give imr (IMR.bin or imr.safetensors).",
    "CLIP vision": "Give clip_vision (CLIP-ViT-H-14-laion2B-s32B-b79K).",
}


def _running(module: nn.Module) -> Callable[..., Tensor]:
    """A network as the core calls it: float32 on the CPU in and out, no gradients."""

    def run(*inputs: Tensor) -> Tensor:
        weight = next(module.parameters())
        with torch.no_grad():
            return module(*(x.to(weight) for x in inputs)).float().cpu()

    return run


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
    def encode(self, *images, name: str = "", **how) -> EncodedFace:
        """Photos of one person (paths, PIL images, arrays); ``how`` as in :func:`encode.encode_photos`."""
        if self.clip_vision is None:
            raise Missing("CLIP vision", "Encoding photos needs a CLIP vision model.")
        if not name and images and isinstance(images[0], (str, os.PathLike)):
            name = Path(images[0]).stem
        pictures = [to_rgb(image) for image in images]
        network = self.saa.face_encoder
        encoder = TokenEncoder(_running(network), network.sizes, self.saa.encoder_hash)
        return encode_photos(pictures, self.detector, self, encoder, name=name, **how)

    @property
    def model(self) -> nn.Module:
        return self.clip_vision

    def tokens(self, pixels: Tensor) -> Tensor:
        """Hidden states before CLIP's last layer: [K, 3, 224, 224], normalised -> [K, 257, 1280], float32 on the CPU."""
        with _visiting(self.clip_vision, self.device()), torch.no_grad():
            parameter = next(self.clip_vision.parameters())
            seen = self.clip_vision(pixel_values=pixels.to(parameter), output_hidden_states=True)
        return seen.hidden_states[-2].float().cpu()


# --- the pipeline -------------------------------------------------------------------------------------------------


class DynamicID:
    """DynamicID on a diffusers pipeline with an SD1.5 UNet (text to image, image to image, inpainting, ControlNet).

    Photos become faces (:meth:`encode`), faces get expressions (:meth:`edit`), a cast of them goes into the pipeline
    (:meth:`apply`) until :meth:`remove`, which leaves the pipeline as it was, bit for bit. :meth:`apply` can be used in a
    ``with`` statement.
    """

    def __init__(
        self,
        pipe,
        saa: SAACheckpoint,
        motion: MotionCheckpoint | None = None,
        *,
        clip_vision: nn.Module | None = None,
        detector: FaceDetector | None = None,
    ):
        """``clip_vision``: ViT-H/14 (:func:`load_clip_vision`), and ``detector`` (:func:`detection.load_detector`): needed to
        encode photos, not for face files; ``motion``: needed to edit.

        Raises DynamicIDError if the pipeline's UNet is not the one the weights were made for.
        """
        self.pipe, self.saa, self.motion = pipe, saa, motion
        self.photos = PhotoEncoder(saa, clip_vision, detector, lambda: self.pipe._execution_device)
        self._attachment: Attachment | None = None
        self._fused: FusedLoRA | None = None
        matching_blocks(getattr(pipe.unet, "_orig_mod", pipe.unet), saa.saa)

    @classmethod
    def from_files(
        cls,
        pipe,
        saa: str | os.PathLike,
        imr: str | os.PathLike | None = None,
        *,
        clip_vision: str | os.PathLike | nn.Module | None = None,
        detector: str | os.PathLike | FaceDetector | None = None,
    ) -> DynamicID:
        """``saa``: SAA.bin or saa.safetensors; ``imr``: IMR.bin or imr.safetensors; ``clip_vision``: a file or folder;
        ``detector``: the folder of an InsightFace model pack, or its name if it lies in ``~/.insightface/models``.
        """
        if isinstance(clip_vision, (str, os.PathLike)):
            clip_vision = load_clip_vision(clip_vision)
        if isinstance(detector, (str, os.PathLike)):
            detector = load_detector(str(detector))
        motion = load_motion(imr) if imr is not None else None
        return cls(pipe, load_saa(saa), motion, clip_vision=clip_vision, detector=detector)

    # Faces

    def encode(
        self,
        *images,
        name: str = "",
        order: str = "large-small",
        index: int = 0,
        crop_factor: float = 0.0,
        on_no_face: str = "error",
    ) -> Face:
        """One or several photos of one person (paths, PIL images, arrays) -> a face.

        ``order``, ``index``: which face of a group photo; the rest as in :func:`encode.encode_photos`. What the user should
        know (photos without a face that were left out) becomes a Python warning.
        Raises DynamicIDError for photos that cannot be used.
        """
        how = {"order": order, "index": index, "crop_factor": crop_factor, "on_no_face": on_no_face}
        encoded = self.photos.encode(*images, name=name, **how)
        if encoded.message:
            warnings.warn(encoded.message, stacklevel=2)
        return encoded.face

    def load_face(self, path: str | os.PathLike, warn: Callable[[str], None] | None = None) -> Face:
        """Read a face file; ``warn`` gets a sentence if another encoder made it (default: a Python warning)."""
        return load_face(path, self.saa.encoder_hash, warn or warnings.warn)

    @hinting(HINTS)
    def edit(self, face: Face, expression: str = "", *, source: str = "", pose_image=None, strength: float = 1.0) -> Face:
        """The same person with another expression or pose, e.g. ``"a very surprised expression, front view"``.

        As :func:`motion.edit_face`; ``pose_image``: a photo (path, PIL image, array) of anybody.
        """
        networks = None
        if self.motion is not None:
            run = (_running(network) for network in (self.motion.reconfigurator, self.motion.keypoint_encoder))
            networks = MotionNetworks(*run, self.text_features)
        return edit_face(
            face, networks, expression=expression, source=source, strength=strength, detector=self.photos.detector,
            pose_image=None if pose_image is None else to_rgb(pose_image),
        )  # fmt: skip

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Unprojected pooler outputs of the pipeline's CLIP-L text encoder: K texts -> [K, 768], float32 on the CPU."""
        tokenizer, encoder = self.pipe.tokenizer, self.pipe.text_encoder
        # Padded to the longest only: the feature is read at the text's end, and what follows does not act on it.
        tokens = tokenizer(
            list(texts), padding=True, max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        )
        with torch.no_grad():
            return encoder(tokens.input_ids.to(self.pipe._execution_device)).pooler_output.float().cpu()

    # The pipeline

    def apply(
        self,
        cast: Cast | Sequence[Face],
        options: SAAOptions = SAAOptions(),
        *,
        lora: str = "fused",
        guided: bool | None = None,
        recorder: GateRecorder | None = None,
    ) -> DynamicID:
        """Put the people of ``cast`` into every picture that the pipeline makes from now on; another cast replaces it.

        ``lora``: "fused" into the UNet's weights costs nothing while sampling; "apart" leaves them alone, for weights
        that cannot be changed (quantized). ``guided``: whether the first half of the UNet's rows is unconditional;
        None asks the pipeline at every call. ``recorder`` collects gate maps.
        Raises DynamicIDError for an empty cast, faces that do not fit the weights, and UNets that cannot take it.
        """
        cast = cast if isinstance(cast, Cast) else Cast(tuple(Person(face) for face in cast))
        attached = self._attachment
        if attached is not None:
            attached.remove()
            self._attachment = None
        try:
            self._fuse(options.lora_strength if lora == "fused" else None)
            self._attachment = attach(
                self.pipe.unet,
                self.saa.saa,
                cast,
                options,
                guided=self._is_guided if guided is None else lambda: guided,
                timesteps=self.pipe.scheduler.config.get("num_train_timesteps", 1000),
                lora=lora,
                recorder=recorder,
            )
        except BaseException:
            self.remove()
            raise
        return self

    def _fuse(self, strength: float | None) -> None:
        """Bring the LoRA in the weights to ``strength``; None: take it out."""
        if self._fused is not None and self._fused.strength != strength:
            self._fused.remove()
            self._fused = None
        if self._fused is None and strength is not None:
            self._fused = FusedLoRA(getattr(self.pipe.unet, "_orig_mod", self.pipe.unet), self.saa.saa, strength)

    def _is_guided(self) -> bool:
        return bool(getattr(self.pipe, "do_classifier_free_guidance", False))

    def remove(self) -> None:
        """Leave the pipeline as it was: its attention processors, its weights to the bit. Without effect if nothing is applied."""
        if self._attachment is not None:
            self._attachment.remove()
            self._attachment = None
        self._fuse(None)

    def __enter__(self) -> DynamicID:
        return self

    def __exit__(self, *error) -> None:
        self.remove()
