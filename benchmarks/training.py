"""What a step of training costs, as ratios to a plain LoRA step of the same UNet and batch: ``python benchmarks/training.py``.

The plain step is peft's LoRA of the same rank on the same layers (q, k, v, out of both attentions) with the same optimiser;
all steps share one set of frozen weights and alternate. ``--form full`` has SD1.5's sizes (some 10 GB), ``small`` half its
widths. Sizes count, not values: weights are seeded.
"""

from __future__ import annotations

import copy
import sys

import torch
from full_size import TEXT_TOKENS, TOKEN_WIDTH, TOKENS, fill
from measure import REPOSITORY, Table, interleaved, milliseconds, parser, prepare, ratio, report
from torch import Tensor, nn

sys.path.append(str(REPOSITORY))

WIDTHS = {"full": (320, 640, 1280, 1280), "small": (160, 320, 640, 640), "tiny": (64, 128, 256, 256)}
CLIP_TOKENS, CLIP_WIDTH, RANK = 257, 1280, 128
TARGETS = {"anchor": 1.15, "reconfigure": 2.2}


def main() -> None:
    options = arguments()
    device = prepare(options)
    unet = make_unet(WIDTHS[options.form], device)
    steps = {"plain LoRA": plain_step(unet, options, device), "anchor": anchor_step(unet, options, device)}
    if options.average:
        steps["anchor, with an average"] = anchor_step(unet, options, device, average=True)
    steps["reconfigure"] = reconfigure_step(unet, options, device, ldc=1.0)
    steps["reconfigure, L_DFM alone"] = reconfigure_step(unet, options, device, ldc=0.0)
    times = interleaved(steps, "plain LoRA", options.rounds, device)
    table = Table(
        f"One step, {options.size} px, {options.batch} pictures, {options.form} UNet; ratio to a plain LoRA step (95% "
        "interval of the median)",
        ("step", "ratio", "target", "ms"),
    )
    for name, seconds in times.items():
        compared = "1" if name == "plain LoRA" else ratio(seconds, times["plain LoRA"])
        table.add(
            name,
            compared,
            TARGETS.get(name.partition(",")[0], "") if "alone" not in name else "",
            milliseconds(seconds),
        )
    report("training", [table], options, device)


def arguments():
    found = parser(__doc__.split("\n")[0], rounds=5)
    found.add_argument("--form", choices=tuple(WIDTHS), default="small", help="of the UNet")
    found.add_argument("--size", type=int, default=256, help="px, a multiple of 64")
    found.add_argument("--batch", type=int, default=2, help="pictures to a step; targets of one source in stage 2")
    found.add_argument("--checkpointing", action="store_true", help="gradient checkpointing in all steps")
    found.add_argument("--average", action="store_true", help="also anchoring with an average of the weights (EMA)")
    return found.parse_args()


def make_unet(widths, device: torch.device) -> nn.Module:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(block_out_channels=widths, cross_attention_dim=TOKEN_WIDTH, attention_head_dim=8)
    return fill(unet.to_empty(device=device))


def twin(unet: nn.Module, checkpointing: bool) -> nn.Module:
    """Another UNet object around the same weights."""
    made = copy.deepcopy(unet, {id(tensor): tensor for tensor in (*unet.parameters(), *unet.buffers())})
    if checkpointing:
        made.enable_gradient_checkpointing()
    return made


def optimised(model: nn.Module, average=None):
    """``step(loss)``: backward and AdamW on what is trainable."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, weight_decay=1e-2)

    def step(loss: Tensor) -> None:
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if average is not None:
            average.update(1)

    return step


def latents_of(options, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents, noise, timesteps and text of a batch."""
    generator = torch.Generator().manual_seed(1)
    shape = options.batch, 4, options.size // 8, options.size // 8
    latents, noise = (torch.randn(shape, generator=generator).to(device) for _ in range(2))
    text = torch.randn(options.batch, TEXT_TOKENS, TOKEN_WIDTH, generator=generator).to(device)
    return latents, noise, torch.arange(options.batch, device=device) * 300 + 100, text


def schedule():
    from dynamicid_core.training.losses import NoiseSchedule

    return NoiseSchedule((1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).cumprod(0))


def plain_step(unet: nn.Module, options, device: torch.device):
    try:
        from peft import LoraConfig
    except ImportError:
        sys.exit("The plain LoRA step is peft's: python -m pip install peft")
    model = twin(unet, options.checkpointing)
    model.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    latents, noise, timesteps, text = latents_of(options, device)
    noises, step = schedule(), optimised(model)

    def call() -> None:
        said = model(noises.noisy(latents, noise, timesteps), timesteps, encoder_hidden_states=text).sample
        step(torch.nn.functional.mse_loss(said, noise))

    return call


def anchor_step(unet: nn.Module, options, device: torch.device, average: bool = False):
    from dynamicid_core.training.anchor import AnchorModel, anchor_losses, new_face_encoder, new_saa
    from dynamicid_core.training.batches import AnchorBatch
    from dynamicid_core.training.state import Average

    mine = twin(unet, options.checkpointing)
    model = AnchorModel(mine, new_face_encoder(mine, CLIP_WIDTH), new_saa(mine, RANK)).to(device)
    latents, noise, timesteps, text = latents_of(options, device)
    generator = torch.Generator().manual_seed(2)
    identity = torch.randn(options.batch, 512, generator=generator).to(device) / 22
    clip = torch.randn(options.batch, CLIP_TOKENS, CLIP_WIDTH, generator=generator).to(device)
    batch, noises = AnchorBatch(latents, text, identity, clip), schedule()
    step = optimised(model, Average(model, 0.9999) if average else None)
    return lambda: step(anchor_losses(model, batch, noise, timesteps, noises)["loss"])


def reconfigure_step(unet: nn.Module, options, device: torch.device, ldc: float):
    """One source with as many targets as the other steps have pictures."""
    from dynamicid_core.training.anchor import new_saa
    from dynamicid_core.training.batches import ReconfigureBatch
    from dynamicid_core.training.face_unet import FaceUNet
    from dynamicid_core.training.reconfigure import ReconfigureModel, new_motion_networks, reconfigure_losses

    mine, k = twin(unet, options.checkpointing), options.batch
    faces = FaceUNet(mine, new_saa(mine, 1).requires_grad_(False).to(device), lora=False)  # LoRA is in the weights
    model = ReconfigureModel(*new_motion_networks(TOKEN_WIDTH, TOKEN_WIDTH)).to(device)
    latents, noise, timesteps, text = latents_of(options, device)
    g = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g).to(device)

    batch = ReconfigureBatch(
        source_tokens=normal(1, TOKENS, TOKEN_WIDTH), target_tokens=normal(1, k, TOKENS, TOKEN_WIDTH),
        source_landmarks=normal(1, 106, 2).sigmoid(), target_landmarks=normal(1, k, 106, 2).sigmoid(),
        source_text=normal(1, TOKEN_WIDTH), target_text=normal(1, k, TOKEN_WIDTH), latents=latents[None], prompt=text[0],
    )  # fmt: skip
    noises, step = schedule(), optimised(model)

    def call() -> None:
        losses = reconfigure_losses(model, faces, batch, noise[None], timesteps[None], noises, 1.0, ldc)
        step(losses["loss"])

    return call


if __name__ == "__main__":
    main()
