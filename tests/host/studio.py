"""What the tests of Apply DynamicID share: the stand-in models loaded once, a cast, a short sampling run, and a watch on
what the attention layers get."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy_host import CHECKPOINT, Host
from torch import Tensor

LAYERS = 16  # cross attentions of SD1.5
CANVAS = 64
NULL, FACE = 0, 1  # what a row sees

# The gate jumps at its threshold, where rounding decides: two ways to the same result are compared without a threshold.
SMOOTH = {"gate_threshold": 0.0}


def difference(a: Tensor, b: Tensor) -> float:
    """Root mean square of a - b as a share of b's deviation."""
    return ((a - b).square().mean().sqrt() / b.std()).item()


def compiled(model, backend: str = "eager"):
    """What TorchCompileModel does, with a backend that needs no compiler, and no memory of what was compiled before.

    What an earlier test compiled with other sizes would have this one compiled for any size, which can take minutes.
    """
    import comfy_extras.nodes_torch_compile as node
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    torch.compiler.reset()
    model = model.clone(disable_dynamic=True)
    options = {"guard_filter_fn": node.skip_torch_compile_dict}
    set_torch_compile_wrapper(model=model, backend=backend, options=options)
    return model


@contextmanager
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from several threads, and lose much where another process wants the cores too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass
class Watch:
    """Arguments of every call of the face attention, one entry for each cross attention that ran."""

    entries: list[dict[str, Any]] = field(default_factory=list)

    def first_layers(self) -> list[dict[str, Any]]:
        """Those of each model call's first cross attention, which has the latent's own size."""
        return self.entries[::LAYERS]

    @property
    def looks(self) -> list[list[int]]:
        """For each model call, which look its rows see: 0 the null tokens, else the people in frame 1, 2, ..."""
        return [entry["looks"] for entry in self.first_layers()]

    @property
    def roles(self) -> list[list[int]]:
        """For each model call, what its rows see."""
        return [entry["roles"] for entry in self.first_layers()]

    def acting(self) -> list[bool]:
        """For each model call, whether faces act in it."""
        return [bool((entry["strength"] != 0).any()) for entry in self.first_layers()]

    def boosted(self) -> list[bool]:
        return [bool((entry["boost"] != 0).any()) for entry in self.first_layers()]


class Studio:
    """A ComfyUI with the stand-in checkpoint, two prompts and DynamicID's weights."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.types = host.module("dynamicid_core.types")
        self.adapter = host.module("dynamicid_core.hosts.comfy")
        self.model, self.clip, self.vae = host.load_model()
        self.positive, self.negative = (self.encode(text) for text in ("two people in a park", "blurry"))
        (self.weights,) = host.node("DynamicIDLoader")(saa_file="saa.safetensors", imr_file="imr.safetensors")

    def encode(self, text: str):
        return self.host.node("CLIPTextEncode")(clip=self.clip, text=text)[0]

    def unet_state(self) -> dict[str, Tensor]:
        """The UNet's weights as the checkpoint file has them (a loaded model's may have a LoRA merged in)."""
        import comfy.utils

        prefix = "model.diffusion_model."
        state = comfy.utils.load_torch_file(str(self.host.base / "models/checkpoints" / CHECKPOINT))
        return {name: tensor for name, tensor in state.items() if name.startswith(prefix)}

    def face(self, seed: int, tokens: int = 4, width: int = 768):
        """A face of random tokens, from the loaded encoder as far as its name goes."""
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(2, 1, tokens, width, generator=generator)
        return self.types.Face(values[0], values[1], self.weights.saa.encoder_hash, name=f"person {seed}")

    def film(self, frames: int, people: int = 2):
        """A cast as of :meth:`cast` whose faces move."""
        cast, moved = self.cast(people), []
        for number, person in enumerate(cast.people):
            tokens = torch.randn(frames, 4, 768, generator=torch.Generator().manual_seed(100 + number))
            face = dataclasses.replace(person.face, tokens=tokens)
            moved.append(dataclasses.replace(person, face=face))
        return self.types.Cast(tuple(moved))

    def cast(self, people: int = 2):
        """People side by side, each in a box that leaves an edge free."""
        step = CANVAS / people
        boxes = [{"x": step * i + 2, "y": 0, "width": step - 4, "height": 50} for i in range(people)]
        faces = {f"face{i}": self.face(i) for i in range(people)}
        return self.host.node("DynamicIDPlaceFaces")(faces=faces, bboxes=boxes, width=CANVAS, height=CANVAS)[0]

    def apply(self, model=None, cast=None, weights=None, **options):
        model = self.model if model is None else model
        cast = self.cast() if cast is None else cast
        return self.host.node("DynamicIDApply")(model=model, dynamicid=weights or self.weights, cast=cast, **options)[0]

    def sample(
        self, model, size: tuple[int, int] = (8, 8), batch: int = 1, steps: int = 2, cfg: float = 4.0,
        sampler: str = "euler", positive=None, negative=None, latent: dict | None = None, denoise: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """KSampler on a latent of ``size`` (height, width in cells)."""
        latent = latent or {"samples": torch.zeros(batch, 4, *size)}
        settings = {"seed": 7, "steps": steps, "cfg": cfg, "sampler_name": sampler, "scheduler": "normal"}
        (result,) = self.host.node("KSampler")(
            model=model, positive=positive or self.positive, negative=negative or self.negative,
            latent_image=latent, denoise=denoise, **settings,
        )  # fmt: skip
        assert torch.isfinite(result["samples"]).all()
        return result["samples"]

    def sample_with(self, guider, size: tuple[int, int] = (8, 8), steps: int = 2) -> Tensor:
        """SamplerCustomAdvanced with this guider."""
        node = self.host.node
        (noise,) = node("RandomNoise")(noise_seed=7)
        (sampler,) = node("KSamplerSelect")(sampler_name="euler")
        (sigmas,) = node("BasicScheduler")(model=guider.model_patcher, scheduler="normal", steps=steps, denoise=1.0)
        latent = {"samples": torch.zeros(1, 4, *size)}
        out = node("SamplerCustomAdvanced")(
            noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent
        )
        return out[0]["samples"]

    def sigmas(self, steps: int) -> list[float]:
        """The noise levels that `sample` goes through, without the last, 0."""
        import comfy.samplers

        sampling = self.model.get_model_object("model_sampling")
        return comfy.samplers.calculate_sigmas(sampling, "normal", steps)[:-1].tolist()

    def applied(self, model):
        """What the last Apply added to a model."""
        return self.adapter.run.applied_casts(model)[-1]

    @contextmanager
    def watch(self, model) -> Iterator[Watch]:
        """Note down what the face attention of the last Apply on ``model`` gets."""
        run, call, applied, seen = (
            self.adapter.run,
            self.host.module("dynamicid_core.call"),
            self.applied(model),
            Watch(),
        )
        heads, packed = applied.layout.heads, applied.packed
        calls, original, prepare = [], call.add_faces, run.prepare_call

        def prepare_call(owner, *args):
            prepared = prepare(owner, *args)
            if owner is applied:
                calls.append(prepared)
            return prepared

        def add_faces(text, q, faces, bias, terms, *rest):
            site = len(seen.entries) % LAYERS
            known = call.site_faces(packed[site].to(q), heads[site]).keys
            # Layers run in another order than the checkpoint's: those after the way down match none, and nobody asks.
            looks = [next((i for i, keys in enumerate(known) if torch.equal(keys, row)), None) for row in faces.keys]
            entry = {
                "roles": [NULL if look == 0 else FACE for look in looks],
                "looks": looks,
                "bias": bias,
                "terms": terms,
                "boost": calls[-1].boost,
                "strength": calls[-1].strength,
            }
            seen.entries.append(entry | {"cells": q.shape[1], "rows": q.shape[0]})
            return original(text, q, faces, bias, terms, *rest)

        call.add_faces, run.prepare_call = add_faces, prepare_call
        try:
            yield seen
        finally:
            call.add_faces, run.prepare_call = original, prepare

    @contextmanager
    def one_conditioning_at_a_time(self) -> Iterator[None]:
        """No free memory, as far as the sampler knows: it runs the sides of the guidance one after the other."""
        import comfy.model_patcher

        patcher = comfy.model_patcher.ModelPatcher
        original = patcher.get_free_memory
        patcher.get_free_memory = lambda self, device: 0
        try:
            yield
        finally:
            patcher.get_free_memory = original
