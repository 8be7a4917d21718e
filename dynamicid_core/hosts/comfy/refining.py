"""Crops of a finished picture sampled by the host's own functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.sample
import comfy.utils
from torch import Tensor

from ...refining import Patch
from ...types import Cast, DynamicIDError, Person, SAAOptions
from .cropping import cropped
from .model import apply_faces, with_lora
from .networks import LoadedDynamicID
from .run import applied_casts

MOST_MODELS = 16  # kept for further crops of the same person; of faces that move, every picture has its own
Callback = Callable[[int, Tensor, Tensor, int], None]  # of a sampler: step, x0, x, steps


@dataclass(frozen=True)
class Sampling:
    """What the host's KSampler takes, but for the denoise and the seed."""

    positive: Sequence[Sequence[Any]]
    negative: Sequence[Sequence[Any]]
    steps: int
    cfg: float
    sampler: str
    scheduler: str


class Redrawer:
    """A :data:`refining.Redraw`: image to image with a mask, with the person of each crop applied to the MODEL."""

    def __init__(
        self, model: Any, vae: Any, loaded: LoadedDynamicID, sampling: Sampling, options: SAAOptions,
        callback: Callable[[], Callback | None] = lambda: None,
    ):  # fmt: skip
        """``callback`` makes the sampler's callback for each crop. Raises DynamicIDError for a MODEL that has faces already."""
        if applied_casts(model):
            raise DynamicIDError(
                "This model has the faces of a whole picture already, which would be laid over each crop. Connect the model "
                "from before Apply DynamicID."
            )
        self.plain, self.vae, self.sampling, self.callback = model, vae, sampling, callback
        # Merged once: the host would merge it anew for the model of each person.
        self.loaded, self.options, self.ready = loaded, options, with_lora(model, loaded, options.lora_strength)
        self._models: dict[tuple[int, float], Any] = {}

    def __call__(self, patch: Patch) -> Tensor:
        how, model = self.sampling, self.plain if patch.person is None else self._model_of(patch.person)
        latent = self.vae.encode(patch.pixels[None])  # [1, 4, h / 8, w / 8]
        size = (patch.pixels.shape[0], patch.pixels.shape[1])
        sampled = comfy.sample.sample(
            model,
            comfy.sample.prepare_noise(latent, patch.seed),
            how.steps,
            how.cfg,
            how.sampler,
            how.scheduler,
            cropped(how.positive, patch.crop, size),
            cropped(how.negative, patch.crop, size),
            latent,
            denoise=patch.denoise,
            noise_mask=patch.mask[None],
            callback=self.callback(),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=patch.seed,
        )
        drawn: Tensor = self.vae.decode(sampled)[0]  # [h, w, 3]
        return drawn

    def _model_of(self, person: Person) -> Any:
        key = id(person.face), person.weight
        if key not in self._models:
            if len(self._models) >= MOST_MODELS:
                self._models.pop(next(iter(self._models)))
            self._models[key] = apply_faces(self.ready, self.loaded, Cast((person,)), self.options)
        return self._models[key]
