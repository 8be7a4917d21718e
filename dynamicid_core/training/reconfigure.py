"""Stage 2, reconfiguration: the IMR learns to give face tokens another motion (docs/method.md, section 4).

Trained are the IMR and the key point encoder. From a source's tokens they shall make those that the face encoder makes of
other photos of the same person (L_DFM), and tokens with which the UNet says the same of a noisy picture (L_LDC).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..landmarks import landmark_raster
from ..networks.keypoints import KeypointEncoder
from ..networks.reconfigurator import Reconfigurator, ReconfiguratorSizes
from .batches import ReconfigureBatch
from .losses import NoiseSchedule, noise_loss, token_loss


class ReconfigureModel(nn.Module):
    """What reconfiguration trains, by the checkpoint's names."""

    def __init__(
        self,
        reconfigurator: Reconfigurator,
        keypoint_encoder: KeypointEncoder,
        gather: Callable[[Tensor], Tensor] = lambda rows: rows,
        process: int = 0,
    ):
        """``gather``: rows [n, ...] of all processes, in their order, n of each; ``process``: which of them this is."""
        super().__init__()
        self.IMR = reconfigurator.float().requires_grad_().train()
        self.key_point_encoder = keypoint_encoder.float().requires_grad_().train()
        self._gather, self._process = gather, process

    def motion_features(self, landmarks: Tensor) -> Tensor:
        """Landmarks [n, 106, 2] -> features [n, 768], normalised over the pictures of all processes.

        Every process computes the features of all: the rasters are small, and so statistics and gradients are those of one
        process with all rows, to the last term.
        """
        features = self.key_point_encoder(landmark_raster(self._gather(landmarks.float())))
        return features[self._process * len(landmarks) :][: len(landmarks)]

    def forward(
        self,
        source_tokens: Tensor,
        source_landmarks: Tensor,
        target_landmarks: Tensor,
        source_text: Tensor,
        target_text: Tensor,
    ) -> Tensor:
        """B sources with k targets each, in the shapes of :class:`ReconfigureBatch` -> edited tokens [B * k, T, 768]"""
        landmarks = torch.cat((source_landmarks, target_landmarks.flatten(0, 1)))  # [B + B * k, 106, 2]
        source, target = self.motion_features(landmarks).split(
            [len(source_landmarks), target_landmarks[..., 0, 0].numel()]
        )
        return self.IMR(source_tokens.float(), source, target, source_text.float(), target_text.flatten(0, 1).float())


def reconfigure_losses(
    model: nn.Module,
    unet: nn.Module | None,
    batch: ReconfigureBatch,
    noise: Tensor,
    timesteps: Tensor,
    schedule: NoiseSchedule,
    dfm_weight: float = 1.0,
    ldc_weight: float = 1.0,
) -> dict[str, Tensor]:
    """``loss``: the weighted sum of ``dfm`` (L_DFM) and ``ldc`` (L_LDC); one whose weight is 0 is not in it.

    ``model``: a :class:`ReconfigureModel`; ``unet``: a :class:`FaceUNet`, which does not run where ``ldc_weight`` is 0.
    ``noise`` [B, k, 4, h, w], ``timesteps`` [B, k].
    """
    edited = model(
        batch.source_tokens, batch.source_landmarks, batch.target_landmarks, batch.source_text, batch.target_text
    )  # [B * k, T, 768]
    encoded = batch.target_tokens.flatten(0, 1).float()
    losses = {}
    if dfm_weight:
        losses["dfm"] = token_loss(edited, encoded)
    if ldc_weight and unet is not None:
        flat, rows = timesteps.flatten(), len(edited)
        noisy = schedule.noisy(batch.latents.flatten(0, 1).float(), noise.flatten(0, 1), flat)
        pooled = None if batch.pooled is None else batch.pooled.expand(rows, -1)
        sizes = None if batch.sizes is None else batch.sizes.flatten(0, 1)
        text = batch.prompt.expand(rows, -1, -1)
        with torch.no_grad():
            wanted = unet(noisy, flat, text, encoded, pooled, sizes)
        losses["ldc"] = noise_loss(unet(noisy, flat, text, edited, pooled, sizes), wanted)
    weights = {"dfm": dfm_weight, "ldc": ldc_weight}
    total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
    return {"loss": total, **losses}


def new_motion_networks(
    token_width: int, text_width: int, depth: int = 1, seed: int = 0
) -> tuple[Reconfigurator, KeypointEncoder]:
    """IMR and key point encoder of the published form with random weights.

    ``token_width``: of the face tokens; ``text_width``: of the text feature; ``depth``: layers of DisENet and of ReENet.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        keypoints = KeypointEncoder()
        motion = keypoints.sizes.out + text_width
        sizes = ReconfiguratorSizes(token=token_width, motion=motion, depth_out=depth, depth_in=depth)
        return Reconfigurator(sizes), keypoints
