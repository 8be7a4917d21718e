"""The losses of both stages, and the noise that they are about: functions of tensors, without data, loop or device.

docs/method.md, section 4. Rows are rows of a batch; every loss is a float32 scalar, the mean over the rows, so that the mean
over processes with equally many rows is the loss of all rows together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..types import DynamicIDError

PREDICTIONS = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """How much signal is left at each timestep, and what the UNet says of a noisy latent."""

    signal: Tensor  # [timesteps], float32: the cumulative product of alphas, falling from 1
    prediction: str = "epsilon"  # one of PREDICTIONS: the noise, the velocity, or the latent itself

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise DynamicIDError(
                f"The base model predicts {self.prediction!r}; training knows {', '.join(PREDICTIONS)}. Use another base."
            )

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> NoiseSchedule:
        """From the configuration of a diffusers scheduler, of whatever sampler, that comes with the base model."""
        from diffusers import DDPMScheduler

        kind: Any = DDPMScheduler
        scheduler = kind.from_config(dict(config))
        return cls(scheduler.alphas_cumprod.float(), scheduler.config.prediction_type)

    def _of_rows(self, timesteps: Tensor) -> Tensor:
        return self.signal.to(timesteps.device)[timesteps][:, None, None, None]  # [B, 1, 1, 1]

    def noisy(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``latents``, ``noise`` [B, 4, h, w], ``timesteps`` [B] (integers) -> [B, 4, h, w]"""
        signal = self._of_rows(timesteps)
        return signal.sqrt() * latents + (1 - signal).sqrt() * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the UNet should say of :meth:`noisy`: [B, 4, h, w]"""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return latents
        signal = self._of_rows(timesteps)
        return signal.sqrt() * noise - (1 - signal).sqrt() * latents

    def min_snr_weights(self, timesteps: Tensor, gamma: float) -> Tensor:
        """Weights [B] of rows at ``timesteps`` [B] that hold back those with little noise (Hang et al., 2023, section 3.4).

        ``min(SNR, gamma)`` for a prediction of the latent; what the UNet predicts instead has this divided by SNR (noise) or
        SNR + 1 (velocity).
        """
        signal = self.signal.to(timesteps.device)[timesteps].double()
        snr = signal / (1 - signal)
        divisor = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}[self.prediction]
        # A schedule may end in pure noise, where SNR is 0 and so is what the noise's prediction is asked.
        return (snr.clamp_max(gamma) / divisor).nan_to_num(1.0).float()


def mean_square(a: Tensor, b: Tensor, weights: Tensor | None = None, places: Tensor | None = None) -> Tensor:
    """The mean over all values of the squared difference; ``weights`` [B] of the rows, ``places`` of values in a row.

    ``a`` and ``b`` [B, ...], in any dtype, ``places`` of a shape that spreads to theirs -> a float32 scalar.
    """
    squares = (a.float() - b.float()).square()
    rows = (squares if places is None else squares * places).flatten(1).mean(1)  # [B]
    return rows.mean() if weights is None else (rows * weights).mean()


def token_loss(edited: Tensor, encoded: Tensor) -> Tensor:
    """L_DFM: how far edited face tokens are from those of a photo that shows the motion, both [B, T, 768]."""
    return mean_square(edited, encoded)


def noise_loss(with_edited: Tensor, with_encoded: Tensor) -> Tensor:
    """L_LDC: how far the UNet's words about one noisy latent are apart with either tokens, both [B, 4, h, w].

    ``with_encoded`` is what is aimed at: no gradient goes through it.
    """
    return mean_square(with_edited, with_encoded.detach())
