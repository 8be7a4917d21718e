"""Memory of an anchoring step on SD1.5's sizes, counted tensor by tensor: ``python benchmarks/training_memory.py``.

Nothing is computed: tensors are fakes that know their sizes (torch's FakeTensorMode), and what lives is added up at every
operation of forward, backward and optimiser, under autocast to half precision as on a GPU. What a GPU keeps besides
(CUDA's context, some 0.5 GB, and what fragmentation wastes) is not in it.
"""

from __future__ import annotations

import argparse
import sys
import warnings
import weakref

import torch
from full_size import TEXT_TOKENS, TOKEN_WIDTH
from measure import REPOSITORY
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.append(str(REPOSITORY))
GIGABYTE = 1024**3
CARDS = (6, 8, 10, 12, 16, 24, 40, 48, 80)  # GB
BESIDES = 0.8  # GB: context and fragmentation


def main() -> None:
    found = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    found.add_argument("--size", type=int, default=512, help="px")
    found.add_argument("--batch", type=int, default=1)
    found.add_argument("--no-checkpointing", action="store_true")
    found.add_argument("--average", action="store_true", help="with an average of the weights (EMA)")
    options = found.parse_args()
    warnings.filterwarnings("ignore")
    kept, peak = measured(options)
    print("| what | GB |\n|---|---|")
    for name, size in (*kept.items(), ("activations and copies in half precision", peak - sum(kept.values()))):
        print(f"| {name} | {size / GIGABYTE:.2f} |")
    print(f"| highest point | {peak / GIGABYTE:.2f} |")
    fits = next((card for card in CARDS if peak / GIGABYTE + BESIDES <= card), None)
    print(f"\nWith {BESIDES} GB besides, it " + (f"fits a card with {fits} GB." if fits else "fits no single card."))


class Live(TorchDispatchMode):
    """Bytes of all storages that live, and their highest sum."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def measured(options) -> tuple[dict[str, int], int]:
    """Bytes that stay, by kind, and those at the highest point of the second step, when the moments are there."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from training import schedule

    from dynamicid_core.training.anchor import anchor_losses

    make_real_what_is_looked_at()
    noises = schedule()
    with FakeTensorMode(allow_non_fake_inputs=True), Live() as live:
        model, optimizer, average, batch = parts(options)
        noise, timesteps = torch.randn_like(batch.latents), torch.zeros(options.batch, dtype=torch.long)
        for step in (1, 2):
            live.peak = live.now
            with torch.autocast("cpu", dtype=torch.float16):
                loss = anchor_losses(model, batch, noise, timesteps, noises)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            average.update(step)
            del loss
        trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
        kept = {
            "UNet, half precision": sum(p.nbytes for p in model.parameters() if not p.requires_grad),
            "trained weights": trained,
            "their gradients": trained,
            "AdamW's moments": 2 * trained,
            "their average": sum(tensor.nbytes for tensor in average.shadow),
        }
        return {name: size for name, size in kept.items() if size}, live.peak


def parts(options):
    """Model, optimiser, average and a batch."""
    from diffusers import UNet2DConditionModel

    from dynamicid_core.training.anchor import AnchorModel, new_face_encoder, new_saa
    from dynamicid_core.training.batches import AnchorBatch
    from dynamicid_core.training.state import Average

    torch.set_default_dtype(torch.float16)
    unet = UNet2DConditionModel(cross_attention_dim=TOKEN_WIDTH, attention_head_dim=8)
    torch.set_default_dtype(torch.float32)
    if not options.no_checkpointing:
        unet.enable_gradient_checkpointing()
    model = AnchorModel(unet, new_face_encoder(unet, 1280), new_saa(unet, 128))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    latents = torch.randn(options.batch, 4, options.size // 8, options.size // 8)
    rows = ((TEXT_TOKENS, TOKEN_WIDTH), (512,), (257, 1280))
    batch = AnchorBatch(latents, *(torch.randn(options.batch, *shape) for shape in rows))
    return model, optimizer, Average(model, 0.9999 if options.average else 0.0), batch


def make_real_what_is_looked_at() -> None:
    """Regions and checks of values need real tensors; they are small."""
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    from dynamicid_core.training import face_unet

    face, prepare = face_unet.Face, face_unet.prepare_call

    def real_face(tokens, *rest):
        with unset_fake_temporarily():
            zeros = torch.zeros(tokens.shape)
            return face(zeros, zeros, *rest[1:])

    def real_call(applied, rows, latent, levels, schedule, like, memory, recorded):
        with unset_fake_temporarily():
            levels, like = torch.zeros(len(rows)), torch.empty(0, dtype=like.dtype)
            return prepare(applied, rows, latent, levels, schedule, like, memory, recorded)

    face_unet.Face, face_unet.prepare_call = real_face, real_call
    torch.nn.Module.float = lambda self: self  # a fake parameter cannot be swapped, and these are float32


if __name__ == "__main__":
    main()
