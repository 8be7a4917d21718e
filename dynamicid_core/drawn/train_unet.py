"""Training the base UNet on drawn scenes of one to four people, as SD1.5 was trained: noise is predicted from text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..hosts.diffusers.unet import text_attention
from .autoencoder import Autoencoder
from .latents import KINDS, SCHEDULE, Latents, face_weights, scene_of, training_caption
from .optimizer import muon_for
from .runs import Run, pictures_of, tiled
from .text import PLACES, caption_states, state_bias
from .train_autoencoder import rate_at
from .unet import make_unet, schedule

ENDS = ("conv_in.", "conv_out.", "time_embedding.")
SHOWN = (
    "a drawing of one person, happy, front view, red shirt, blue background",
    "a drawing of one person, surprised, front view, green striped shirt, yellow striped background",
    "a drawing of one person, sad, slightly turned to the left, white shirt, green hills",
    "a drawing of one person, angry, front view, black shirt with collar, night sky",
    "a drawing of one person, disgusted, fully turned to the right, purple shirt, pink wall and floor",
    "a drawing of one person, afraid, front view, orange shirt, teal wall with window, red balloon",
    "a drawing of one person, neutral, fully turned to the left, pink striped shirt, grey background",
    "a drawing of one person",
)
SHOWN_WIDE = ("a drawing of two people, happy, blue background", "a drawing of two people, green hills",
              "a drawing of three people, night sky", "a drawing of four people, yellow striped background")  # fmt: skip


@dataclass(frozen=True)
class UNetOptions:
    """How the UNet is trained. ``pictures`` in all; ``snr`` is the bound of min-SNR weights."""

    pictures: int = 170_000
    rate: float = 1e-3
    snr: float = 5.0
    average: float = 0.99
    seed: int = 0
    sheet_seconds: float = 900


def text_states(captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """States [B, 33, 768] and the attention mask [33] under which they stand for CLIP's 77."""
    states = torch.from_numpy(np.stack([caption_states(caption) for caption in captions]))
    return states, 1 + state_bias() / 10_000  # diffusers adds (mask - 1) * 10,000 to logits


def predicted(unet: nn.Module, noisy: Tensor, times: Tensor, states: Tensor, mask: Tensor) -> Tensor:
    noise: Tensor = unet(
        noisy, times, encoder_hidden_states=states, encoder_attention_mask=mask.expand(len(noisy), PLACES + 1)
    ).sample
    return noise


def training_loss(
    unet: nn.Module, latents: Tensor, captions: Sequence[str], seed: int, snr: float, weights: Tensor | None = None
) -> Tensor:
    """min-SNR weighted error of the predicted noise (Hang et al. 2023) for noise and timesteps of a seed.

    ``weights`` [B, 1, h, w]: how much each place counts.
    """
    device, generator = latents.device, torch.Generator().manual_seed(seed)
    noise = torch.randn(latents.shape, generator=generator).to(device)
    # one timestep from each of B equal parts, so that all batches are equally hard
    share = (torch.randperm(len(latents), generator=generator) + torch.rand(len(latents), generator=generator)) / len(
        latents
    )
    times = (share * 1000).long().clamp(0, 999).to(device)
    level = schedule().to(device)[times][:, None, None, None]
    noisy = (level.sqrt() * latents + (1 - level).sqrt() * noise).contiguous(memory_format=torch.channels_last)
    states, mask = text_states(captions)
    error = (predicted(unet, noisy, times, states.to(device), mask.to(device)).float() - noise).square()
    error = (error if weights is None else error * weights).mean((1, 2, 3))
    ratio = (level / (1 - level)).flatten()
    return (error * ratio.clamp(max=snr) / ratio).mean()


@torch.no_grad()
def sampled(
    unet: nn.Module,
    captions: Sequence[str],
    width: int,
    seed: int = 0,
    steps: int = 20,
    guidance: float = 3.0,
) -> Tensor:
    """DDIM samples [B, 4, 16, width] with classifier-free guidance."""
    device = next(unet.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((len(captions), 4, 16, width), generator=generator).to(device)
    states, mask = text_states([*[""] * len(captions), *captions])
    levels, times = schedule().to(device), torch.linspace(999, 0, steps + 1).long().tolist()
    for now, then in pairwise(times):
        moment = torch.full((2 * len(x),), now, device=device)
        free, told = predicted(unet, torch.cat((x, x)), moment, states.to(device), mask.to(device)).chunk(2)
        noise = free + guidance * (told - free)
        clean = (x - (1 - levels[now]).sqrt() * noise) / levels[now].sqrt()
        x = levels[then].sqrt() * clean + (1 - levels[then]).sqrt() * noise
    return clean


def sheet(unet: nn.Module, autoencoder: Autoencoder) -> np.ndarray:
    """Samples of fixed captions: two rows of one person, then two and more."""
    rows = []
    for seed in (0, 1):
        latents = sampled(unet, SHOWN, 16, seed)
        rows.append(tiled(pictures_of(autoencoder.decode(latents)), len(SHOWN)))
    wide = sampled(unet, SHOWN_WIDE, 32, 2)
    rows.append(tiled(pictures_of(autoencoder.decode(wide)), len(SHOWN_WIDE)))
    return np.concatenate(rows)


def step_batch(
    stores: dict[str, Latents], step: int, seed: int, process: int = 0, processes: int = 1
) -> tuple[Tensor, Tensor, list[str], int]:
    """Latents, their weights and captions of a process's rows in a step, functions of its number alone, and a number of
    their own."""
    kind = KINDS[SCHEDULE[step % len(SCHEDULE)]]
    turn = step // len(SCHEDULE) * SCHEDULE.count(kind.name) + SCHEDULE[: step % len(SCHEDULE)].count(kind.name)
    first = turn * kind.batch
    rows = range(process, kind.batch, processes)
    indices = [(first + row) % kind.scenes for row in rows]
    scenes = [scene_of(kind, index) for index in indices]
    captions = [training_caption(scene, seed + first + row) for row, scene in zip(rows, scenes, strict=True)]
    latents = stores[kind.name].of(indices)
    weights = torch.from_numpy(np.stack([face_weights(scene, latents.shape[2]) for scene in scenes]))
    return latents, weights[:, None], captions, seed + step * processes + process


def train_unet(folder: Path, autoencoder: Autoencoder, options: UNetOptions, accelerator: Any) -> nn.Module:
    """Trains, or goes on where ``folder`` stands; returns the averaged network. ``accelerator``: accelerate's.

    Several processes share the rows of each batch, and the drawing of scenes.
    """
    torch.manual_seed(options.seed)
    unet = make_unet().to(device=accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    unet.set_attn_processor(PlainAttention())
    optimizer = muon_for(unet, options.rate, ENDS)
    run = Run(folder, unet, optimizer, accelerator)
    run.resume()
    with accelerator.main_process_first():  # who makes the files
        stores = {name: Latents(folder, kind, autoencoder.to(accelerator.device)) for name, kind in KINDS.items()}
    wrapped = accelerator.prepare(unet)
    steps = round(options.pictures / (sum(KINDS[name].batch for name in SCHEDULE) / len(SCHEDULE)))
    share = {"process": accelerator.process_index, "processes": accelerator.num_processes}
    while run.step < steps:
        latents, weights, captions, number = step_batch(stores, run.step, options.seed, **share)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(run.step, steps, options.rate)
        with accelerator.autocast():
            loss = training_loss(
                wrapped, latents.to(accelerator.device), captions, number, options.snr, weights.to(accelerator.device)
            )
        run.learn(loss, options.average)
        run.done_step(len(latents) * accelerator.num_processes, {"loss": loss.item()}, every=30)
        run.show(lambda: sheet(run.average, autoencoder), options.sheet_seconds)
    run.save()
    return run.average


class PlainAttention:
    """diffusers' attention by the function that trains and draws faces, which is quick in bfloat16 on a CPU."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        out, _ = text_attention(attn, _projected, hidden_states, encoder_hidden_states, attention_mask)
        result: Tensor = attn.to_out[1](attn.to_out[0](out))
        return result


def _projected(layer: nn.Module, name: str, x: Tensor) -> Tensor:
    result: Tensor = layer(x)
    return result
