"""Settings, a cache and a base become a run of either stage: what the commands call."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn

from ..bases import UNetLayout
from ..checkpoints import SAACheckpoint, load_motion, load_saa, write_motion, write_saa
from ..datasets.manifest import Manifest
from ..hosts.diffusers.lora import FusedLoRA
from ..networks.face_encoder import FaceEncoder
from ..networks.keypoints import KeypointEncoder
from ..networks.reconfigurator import Reconfigurator
from ..networks.saa import SAAModule
from ..origins import CLIP_VISION
from ..types import DynamicIDError, SAAOptions
from .anchor import AnchorModel, anchor_losses, new_face_encoder, new_saa
from .cache import Cache
from .data import AnchorData, Data, ReconfigureData, loader
from .face_unet import FaceUNet
from .frozen import Networks
from .loop import Batches, Draw, Losses, Stage, Summary, Trainer, Write, make_accelerator
from .losses import NoiseSchedule
from .reconfigure import ReconfigureModel, new_motion_networks, reconfigure_losses
from .settings import AnchorSettings, ReconfigureSettings, Settings, StageSettings
from .texts import text_feature
from .validation import Prompt, Sampler, anchor_sheet, edit_sheet, of_photos, people_to_show

VIT_H = (257, 1280)  # of CLIP ViT-H/14's states: tokens and width
SAA_FILE, IMR_FILE = "saa.safetensors", "imr.safetensors"  # what the stages leave in the output folder


def train_anchor(
    settings: Settings,
    manifest: Manifest,
    cache: Cache,
    networks: Networks,
    resume: bool = False,
    progress: bool = True,
) -> Summary:
    """Stage 1 to its last step: ``saa.safetensors`` in the output folder.

    ``cache``: opened with what :func:`cache.anchor_makers` makes. ``resume``: go on from the newest state, if there is one.
    Raises DynamicIDError for a base or initial weights that do not fit, a set without training photos, and what
    :meth:`loop.Trainer.train` raises.
    """
    options = settings.anchor
    data = AnchorData.of(cache, manifest, options, settings.seed)
    accelerator = make_accelerator(options, settings.output)
    unet = prepared_unet(networks.pipe.unet, accelerator, options, settings.base.dtype)
    schedule = NoiseSchedule.of(networks.pipe.scheduler.config)
    face_encoder, saa = _anchor_weights(unet, options, cache.null("clip")["clip"].shape[-1], settings.seed)
    stage = Stage(
        "anchor",
        SAA_FILE,
        AnchorModel(unet, face_encoder, saa, len(schedule.signal), _acting(options)),
        _anchor_losses(schedule, options.min_snr_gamma),
        _saa_writer(settings, manifest, cache, networks),
        _anchor_drawing(unet, options, manifest, cache, networks) if _can_draw(options, accelerator) else None,
        len(schedule.signal),
    )
    trainer = Trainer(stage, options, accelerator, settings.output, settings.seed)
    summary = trainer.train(_batches(data, options, accelerator), resume, progress)
    accelerator.end_training()
    return summary


def train_reconfigure(
    settings: Settings,
    manifest: Manifest,
    cache: Cache,
    networks: Networks,
    resume: bool = False,
    progress: bool = True,
) -> Summary:
    """Stage 2 to its last step: ``imr.safetensors`` in the output folder.

    ``cache``: opened with what :func:`cache.reconfigure_makers` makes; ``networks.saa``: the anchored checkpoint. ``resume``
    and errors as in :func:`train_anchor`.
    """
    options, saa = settings.reconfigure, networks.saa
    if saa is None:
        raise DynamicIDError(
            "Reconfiguration needs an SAA checkpoint. Run `train anchor` first, or set reconfigure.saa."
        )
    if not options.dfm_weight and not options.ldc_weight:
        raise DynamicIDError("reconfigure.dfm_weight and ldc_weight are both 0, so there is nothing to learn; set one.")
    data = ReconfigureData.of(cache, manifest, options, settings.seed)
    accelerator = make_accelerator(options, settings.output)
    unet = prepared_unet(networks.pipe.unet, accelerator, options, settings.base.dtype)
    schedule = NoiseSchedule.of(networks.pipe.scheduler.config)
    faces = anchored_unet(unet, saa, len(schedule.signal), _acting(options))
    feature, _, encoder = text_feature(networks, settings.base.text_feature)
    motion = _motion_networks(options, saa, encoder.config.hidden_size, settings.seed)
    stage = Stage(
        "reconfigure",
        IMR_FILE,
        ReconfigureModel(*motion, gather=accelerator.gather, process=accelerator.process_index),
        _reconfigure_losses(faces, schedule, options),
        _motion_writer(saa, feature),
        _edit_drawing(unet, options, saa, manifest, cache, networks) if _can_draw(options, accelerator) else None,
        len(schedule.signal),
    )
    trainer = Trainer(stage, options, accelerator, settings.output, settings.seed)
    summary = trainer.train(_batches(data, options, accelerator), resume, progress)
    accelerator.end_training()
    return summary


# --- The base -----------------------------------------------------------------------------------------------------


def prepared_unet(unet: nn.Module, accelerator: Any, options: StageSettings, dtype: str) -> nn.Module:
    """The base's UNet on the device, in half precision where training is mixed, unless ``dtype`` is float32."""
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(accelerator.mixed_precision, torch.float32)
    wanted = torch.float32 if dtype == "float32" else half
    unet.to(accelerator.device)
    if unet.dtype != wanted:  # diffusers warns of every change of dtype
        unet.to(dtype=wanted)
    if options.gradient_checkpointing:
        unet.enable_gradient_checkpointing()  # type: ignore[operator]
    return unet


def anchored_unet(unet: nn.Module, saa: SAACheckpoint, timesteps: int, options: SAAOptions = SAAOptions()) -> FaceUNet:
    """The UNet with the anchored weights, which are frozen: the LoRA in its own weights, where it costs nothing."""
    FusedLoRA(unet, saa.saa, 1.0)
    for site in saa.saa.cross_sites:
        for layer in (site.to_k_ip, site.to_v_ip):
            layer.to(unet.device)  # type: ignore[arg-type]
    return FaceUNet(unet, saa.saa, False, timesteps, saa.face_encoder.sizes.tokens, options)


def _acting(options: StageSettings) -> SAAOptions:
    return SAAOptions(gate_threshold=options.gate_threshold)


def _can_draw(options: StageSettings, accelerator: Any) -> bool:
    """Pictures are drawn by one process, which under FSDP has a part of the UNet only."""
    return bool(options.validation.every) and not str(accelerator.distributed_type).endswith("FSDP")


def _batches(data: Data, options: StageSettings, accelerator: Any) -> Batches:
    share = {"rank": accelerator.process_index, "world": accelerator.num_processes}
    pin = accelerator.device.type == "cuda"
    return lambda start, stop: loader(data, start, stop, workers=options.workers, pin=pin, **share)


# --- Anchoring ----------------------------------------------------------------------------------------------------


def _anchor_weights(
    unet: nn.Module, options: AnchorSettings, clip_width: int, seed: int
) -> tuple[FaceEncoder, SAAModule]:
    """Those of a checkpoint to go on from, else new ones."""
    if options.initial is None:
        return new_face_encoder(unet, clip_width, seed), new_saa(unet, options.rank, seed)
    start = load_saa(options.initial, assign=False)
    if start.face_encoder.sizes.clip != clip_width:
        raise DynamicIDError(
            f"{options.initial} reads CLIP states of width {start.face_encoder.sizes.clip}, but base.clip_vision gives "
            f"{clip_width}. Set the CLIP vision model that it was trained with."
        )
    return start.face_encoder, start.saa


def _anchor_losses(schedule: NoiseSchedule, min_snr_gamma: float) -> Losses:
    def losses(model: nn.Module, batch: Any, noise: Tensor, timesteps: Tensor) -> dict[str, Tensor]:
        return anchor_losses(model, batch, noise, timesteps, schedule, min_snr_gamma)

    return losses


def _saa_writer(settings: Settings, manifest: Manifest, cache: Cache, networks: Networks) -> Write:
    clip = cache.null("clip")["clip"]
    given = settings.base.clip_vision
    named = CLIP_VISION if given is None or tuple(clip.shape) == VIT_H else given.name.removesuffix(".safetensors")
    origin = UNetLayout.of(networks.pipe.unet).origin(
        recogniser=manifest.recogniser,
        clip_vision=named,
        text_feature=text_feature(networks, settings.base.text_feature)[0],
    )

    def write(path: Path, tensors: Mapping[str, Tensor], step: int) -> object:
        made = load_saa(dict(tensors))
        return write_saa(path, made.face_encoder, made.saa, dataclasses.replace(origin, step=step))

    return write


def _anchor_drawing(
    unet: nn.Module, options: AnchorSettings, manifest: Manifest, cache: Cache, networks: Networks
) -> Draw:
    sampler = Sampler(networks.pipe, unet, options.size, options.validation)
    shown = people_to_show(manifest, cache, options.validation.people)
    prompts = [Prompt.of(cache, text) for text in options.validation.prompts]
    clip, null = of_photos(cache, shown, "clip"), cache.null("clip")["clip"].float()

    def draw(tensors: Mapping[str, Tensor], step: int) -> Image:
        return anchor_sheet(sampler, load_saa(dict(tensors)), shown, clip, null, prompts)

    return draw


# --- Reconfiguration ----------------------------------------------------------------------------------------------


def _motion_networks(
    options: ReconfigureSettings, saa: SAACheckpoint, text_width: int, seed: int
) -> tuple[Reconfigurator, KeypointEncoder]:
    """Those of a checkpoint to go on from, else new ones."""
    token_width = saa.face_encoder.sizes.width
    if options.initial is None:
        return new_motion_networks(token_width, text_width, options.depth, seed)
    start = load_motion(options.initial, assign=False)
    if start.reconfigurator.sizes.token != token_width:
        raise DynamicIDError(
            f"{options.initial} edits tokens of width {start.reconfigurator.sizes.token}, but the SAA checkpoint makes "
            f"tokens of width {token_width}. Choose checkpoints that belong together."
        )
    return start.reconfigurator, start.keypoint_encoder


def _reconfigure_losses(faces: FaceUNet, schedule: NoiseSchedule, options: ReconfigureSettings) -> Losses:
    def losses(model: nn.Module, batch: Any, noise: Tensor, timesteps: Tensor) -> dict[str, Tensor]:
        weights = options.dfm_weight, options.ldc_weight
        return reconfigure_losses(model, faces, batch, noise, timesteps, schedule, *weights)

    return losses


def _motion_writer(saa: SAACheckpoint, feature: str) -> Write:
    origin = dataclasses.replace(saa.origin, encoder=saa.encoder_hash, text_feature=feature, version="")

    def write(path: Path, tensors: Mapping[str, Tensor], step: int) -> object:
        made = load_motion(dict(tensors))
        return write_motion(path, made.reconfigurator, made.keypoint_encoder, dataclasses.replace(origin, step=step))

    return write


def _edit_drawing(
    unet: nn.Module,
    options: ReconfigureSettings,
    saa: SAACheckpoint,
    manifest: Manifest,
    cache: Cache,
    networks: Networks,
) -> Draw:
    sampler = Sampler(networks.pipe, unet, options.size, options.validation)
    shown = people_to_show(manifest, cache, options.validation.people)
    prompts = [Prompt.of(cache, text) for text in options.validation.prompts]
    tokens, null = of_photos(cache, shown, "tokens"), cache.null("tokens")["tokens"].float()

    def draw(tensors: Mapping[str, Tensor], step: int) -> Image:
        return edit_sheet(sampler, saa, load_motion(dict(tensors)), shown, tokens, null, cache, prompts)

    return draw
