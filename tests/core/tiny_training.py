"""A small base, networks and data for the tests of training: seconds, not minutes, and all of it seeded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from dynamicid_core.networks.keypoints import KeypointEncoder, KeypointEncoderSizes
from dynamicid_core.networks.reconfigurator import Reconfigurator, ReconfiguratorSizes
from dynamicid_core.training.anchor import AnchorModel, anchor_losses, new_face_encoder, new_saa
from dynamicid_core.training.batches import AnchorBatch, ReconfigureBatch, row_generator
from dynamicid_core.training.face_unet import FaceUNet
from dynamicid_core.training.loop import Stage, Trainer, make_accelerator
from dynamicid_core.training.losses import NoiseSchedule
from dynamicid_core.training.reconfigure import ReconfigureModel, reconfigure_losses
from dynamicid_core.training.settings import StageSettings

TEXT, CLIP, SIZE, WORDS = 32, 24, 8, 5  # widths of text tokens and CLIP states, side of latents, text tokens
SIZES = {"identity": 512, "hidden": 32, "depth": 1, "inner": 32, "feed_forward": 64}
SCHEDULER = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULE = NoiseSchedule((1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).cumprod(0))


def unet(seed: int = 0, **config) -> nn.Module:
    """A UNet2DConditionModel with 4 cross attentions of widths 32 and 64."""
    from diffusers import UNet2DConditionModel

    small = {
        "sample_size": SIZE, "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": TEXT,
        "attention_head_dim": 4, "norm_num_groups": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel(**(small | config)).eval().requires_grad_(False)


def sdxl_unet(seed: int = 0) -> nn.Module:
    """SDXL's form: linear projections, one transformer block and two, pooled text and sizes as conditions."""
    return unet(
        seed, use_linear_projection=True, transformer_layers_per_block=(1, 2), addition_embed_type="text_time",
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), addition_time_embed_dim=8,
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), projection_class_embeddings_input_dim=16 + 6 * 8,
    )  # fmt: skip


def anchor_model(base: nn.Module | None = None, rank: int = 4, perturbed: bool = False) -> AnchorModel:
    """``perturbed``: the LoRA adds something, as after some training."""
    base = unet() if base is None else base
    saa = new_saa(base, rank, seed=1)
    if perturbed:
        generator = torch.Generator().manual_seed(3)
        for site in saa.sites:
            for target in ("to_q", "to_k", "to_v", "to_out"):
                torch.nn.init.normal_(site.lora(target).up.weight, std=0.1, generator=generator)
    return AnchorModel(base, new_face_encoder(base, CLIP, seed=2, **SIZES), saa)


def anchor_batch(rows: int = 2, seed: int = 0, number: int = 0, first: int = 0, sdxl: bool = False) -> AnchorBatch:
    """Rows ``first`` and following of the global batch ``number``."""
    found = []
    for row in range(first, first + rows):
        g = row_generator(seed, number, row, "data")
        identity = torch.nn.functional.normalize(torch.randn(512, generator=g), dim=0)
        found.append(
            (torch.randn(4, SIZE, SIZE, generator=g), torch.randn(WORDS, TEXT, generator=g), identity,
             torch.randn(7, CLIP, generator=g), torch.randn(16, generator=g), torch.tensor([64.0, 64, 0, 0, 64, 64]))
        )  # fmt: skip
    latents, text, identity, clip, pooled, sizes = (torch.stack(part) for part in zip(*found, strict=True))
    batch = AnchorBatch(latents, text, identity, clip)
    return dataclasses.replace(batch, pooled=pooled, sizes=sizes) if sdxl else batch


def reconfigure_batch(rows: int = 2, k: int = 3, seed: int = 0, number: int = 0, first: int = 0) -> ReconfigureBatch:
    found = []
    for row in range(first, first + rows):
        g = row_generator(seed, number, row, "data")
        found.append(
            (torch.randn(4, TEXT, generator=g), torch.randn(k, 4, TEXT, generator=g), torch.rand(106, 2, generator=g),
             torch.rand(k, 106, 2, generator=g), torch.randn(16, generator=g), torch.randn(k, 16, generator=g),
             torch.randn(k, 4, SIZE, SIZE, generator=g))
        )  # fmt: skip
    prompt = torch.randn(WORDS, TEXT, generator=torch.Generator().manual_seed(9))
    return ReconfigureBatch(*(torch.stack(part) for part in zip(*found, strict=True)), prompt)


class Rows:
    """Batches for the loop: ``rows`` to a process, always new ones, or always those of batch 0 (``same``)."""

    def __init__(self, rows: int = 2, process: int = 0, same: bool = False, make=anchor_batch):
        self.rows, self.process, self.same, self.make = rows, process, same, make

    def __call__(self, start: int, stop: int) -> Iterator[AnchorBatch]:
        for number in range(start, stop):
            yield self.make(self.rows, number=0 if self.same else number, first=self.process * self.rows)


def losses(model, batch, noise, timesteps):
    return anchor_losses(model, batch, noise, timesteps, SCHEDULE)


def anchor_stage(model: AnchorModel | None = None) -> Stage:
    model = anchor_model() if model is None else model
    return Stage("anchor", "saa.safetensors", model, losses, write)


def write(path, tensors, step):
    from dynamicid_core.saving import write_safetensors

    write_safetensors(path, tensors, {"step": str(step)})


def motion_model(**options) -> ReconfigureModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        keypoints = KeypointEncoder(KeypointEncoderSizes((4, 8, 8, 8, 8, 8), (1, 2, 1, 1, 1, 1), head=8, out=16))
        sizes = ReconfiguratorSizes(token=TEXT, motion=16 + 16, width=32, inner=32, feed_forward=64)
        return ReconfigureModel(Reconfigurator(sizes), keypoints, **options)


def face_unet(seed: int = 0) -> FaceUNet:
    """With the LoRA computed beside the weights, and nothing trainable."""
    model = anchor_model(unet(seed), perturbed=True).requires_grad_(False)
    return model.faces


def reconfigure_stage(unet: FaceUNet | None, **options) -> Stage:
    def losses(model, batch, noise, timesteps):
        return reconfigure_losses(model, unet, batch, noise, timesteps, SCHEDULE)

    return Stage("reconfigure", "imr.safetensors", motion_model(**options), losses, write)


def trainer(stage: Stage, folder: Path, process: int = 0, **settings) -> Trainer:
    """With settings that are quick and quiet."""
    chosen = StageSettings(
        **{"steps": 6, "batch": 2, "save_every": 3, "mixed_precision": "no", "workers": 0} | settings
    )
    return Trainer(stage, chosen, make_accelerator(chosen, folder), folder, seed=0)


def plain_descent(parameters, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """In AdamW's place: weights move by their gradients, so that these can be compared."""
    return torch.optim.SGD(parameters, lr=lr)


def train_both(folder: Path, rows: int) -> None:
    """Two steps of each stage with ``rows`` to a process, one after another, and their checkpoints in ``folder``."""
    from accelerate import Accelerator

    accelerator = Accelerator()
    process = accelerator.process_index
    trainer(anchor_stage(anchor_model(perturbed=True)), folder, **TOGETHER).train(Rows(rows, process), progress=False)
    stage = reconfigure_stage(face_unet(), gather=accelerator.gather, process=process)
    trainer(stage, folder, **TOGETHER).train(Rows(rows, process, make=reconfigure_batch), progress=False)


TOGETHER = {"steps": 2, "learning_rate": 0.01, "ema_decay": 0.5}
