"""What a cast adds to a model call, in operations: none that waits for the device or copies to it, and few others.

A GPU works through a small picture's operations faster than Python hands them over, so each one counts, and every wait
for a result costs more than all of them. Both can be counted on a CPU.
"""

from __future__ import annotations

from collections import Counter

import comfy_host
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

SITES = 16
WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique_consecutive", "_unique2", "masked_select"}
COPIES = {"lift_fresh", "lift_fresh_copy", "copy_", "to device"}  # of what a call made on the CPU
# No work on the device: they only look at a tensor's memory in another way, or set some aside.
FREE = {"view", "_unsafe_view", "transpose", "select", "slice", "split", "split_with_sizes", "unsqueeze", "squeeze", "expand",
        "alias", "detach", "as_strided", "permute", "t", "empty", "empty_strided", "empty_like", "unbind", "chunk"}  # fmt: skip


class Operations(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        self.counts["to device" if name == "_to_copy" and kwargs.get("device") is not None else name] += 1
        return function(*args, **kwargs)


def operations(model) -> Counter[str]:
    """Of one model call for both sides of the guidance, the second of a run, through the host's sampling code."""
    import comfy.sample
    import comfy.samplers

    found = Operations()

    def sampler_function(denoise, x, sigmas, extra_args=None, **kwargs):
        denoise(x, sigmas[:1], **extra_args)  # a run's first call prepares what all share
        with found:
            denoise(x, sigmas[:1] * 0.9, **extra_args)
        return x

    generator = torch.Generator().manual_seed(0)
    conds = [[[torch.randn(1, 77, 768, generator=generator), {}]] for _ in range(2)]
    latent, sigmas = torch.zeros(1, 4, 8, 8), torch.tensor([5.0, 0.0])
    sampler = comfy.samplers.KSAMPLER(sampler_function)
    with torch.no_grad():  # under inference_mode some operations are seen as wholes, which hides their parts
        comfy.sample.sample_custom(model, latent, 5.0, sampler, sigmas, *conds, latent, disable_pbar=True)
    return found.counts


def cast_of(host, people: int, masks: bool):
    types = host.module("dynamicid_core.types")
    placed = []
    for i in range(people):
        tokens, nulls = torch.randn(2, 1, 4, 768, generator=torch.Generator().manual_seed(i))
        mask = torch.linspace(0, 1, 64).roll(8 * i).expand(1, 64, 64)
        region = types.Region(mask=mask) if masks else types.Region(box=(0.0, i / people, 1.0, (i + 1) / people))
        placed.append(types.Person(types.Face(tokens, nulls, "test"), region))
    return types.Cast(tuple(placed))


@pytest.fixture(scope="module")
def plain(host) -> tuple:
    model = host.load_model(comfy_host.CHECKPOINT)[0]
    return model, operations(model)


@pytest.mark.parametrize("people,masks", [(1, False), (2, False), (5, True), (8, True)])
def test_a_cast_adds_few_operations_and_no_waits(host, plain, people, masks) -> None:
    model, before = plain
    (loaded,) = host.node("DynamicIDLoader")(saa_file="saa.safetensors", imr_file="none")
    options = {"weight": 1.0, "start_at": 0.0, "end_at": 1.0, "layout_strength": 2.0, "layout_end": 0.24}
    (patched,) = host.node("DynamicIDApply")(
        model=model, dynamicid=loaded, cast=cast_of(host, people, masks), gate_threshold=0.3, outside="everyone",
        lora_strength=1.0, **options,
    )  # fmt: skip
    after = operations(patched)
    added = after - before
    assert added, "the cast does nothing"
    assert not WAITS & added.keys()
    assert not COPIES & added.keys()
    work = sum(count for name, count in added.items() if name not in FREE)
    # The attention itself, the gate's steps, the sum; and a handful for each call.
    assert work <= 10 * SITES + 10, dict(added)
    print(f"{people} people: {work} operations beside {sum(n for name, n in before.items() if name not in FREE)}")
    # Whatever the number of people.
    assert (
        after["_scaled_dot_product_flash_attention_for_cpu"]
        == before["_scaled_dot_product_flash_attention_for_cpu"] + SITES
    )
