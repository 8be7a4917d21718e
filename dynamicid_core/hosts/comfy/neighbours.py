"""Living with other packs and with the compiler, so that everything else reads without them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ...call import Call, Memory

_warned: set[str] = set()


def warn_once(what: str) -> None:
    """Another pack rearranges rows or cells in a way that cannot be told apart; better no face than a crash."""
    if what not in _warned:
        _warned.add(what)
        logging.warning("DynamicID: another node rearranges the attention input (%s); faces are left out there.", what)


def repeated_rows(options: dict[str, Any], x: Tensor, context: Tensor | None, memory: Memory) -> tuple[int, ...]:
    """Which of a call's rows stand where, after other packs' patches before the cross attentions: their numbers.

    Attention couple, for one, repeats the rows of the positive side, once for each of its prompts. What a patch does is
    found by giving it rows that hold their own numbers: once a run, waiting for the device, and only where there is such a
    patch. () where rows stay as they are, or where it cannot be told.

    ``options``: the call's transformer options; ``x`` [B, 4, h, w]: what the model is given; ``context`` [B, S, 768].
    """
    patches = tuple(options.get("patches", {}).get("attn2_patch", ()))
    if not patches or context is None:
        return ()

    def ask() -> tuple[int, ...]:
        count, (height, width) = len(x), x.shape[-2:]
        numbers = torch.arange(1, count + 1, device=x.device, dtype=x.dtype)
        rows = numbers[:, None, None].repeat(1, height * width, context.shape[-1])
        text = value = torch.zeros_like(context)
        extra = {name: value for name, value in options.items() if name not in ("patches", "patches_replace")}
        extra |= {"activations_shape": list(x.shape), "block": ("input", 1), "block_index": 0, "n_heads": 8,
                  "dim_head": context.shape[-1] // 8, "attn_precision": None}  # fmt: skip
        try:
            for patch in patches:
                rows, text, value = patch(rows, text, value, extra)
        except comfy.model_management.OOM_EXCEPTION:  # the host's to handle
            raise
        except Exception:
            logging.warning("DynamicID: another node's attention patch failed on numbered rows.", exc_info=True)
            return ()
        found = rows[:, 0, 0].tolist()
        same = bool((rows == rows[:, :1, :1]).all()) and set(found) <= set(range(1, count + 1)) and len(found) != count
        return tuple(int(number) - 1 for number in found) if same else ()

    return memory.get(("repeated", patches, tuple(options.get("cond_or_uncond", ())), x.shape), ask)


def first_of_each(sources: Sequence[int], recorded: Sequence[int]) -> list[int]:
    """Where rows are repeated, the places that a recorder notes down: each row's first, of those it would without."""
    return [sources.index(row) for row in recorded if row in sources]


def compile_key(calls: Sequence[Call], sources: Sequence[int]) -> str:
    """Everything but tensors' values, and shapes that follow from the latent's, that attention patches depend on.

    TorchCompileModel checks the names of a model's arguments, but nothing inside the transformer options: unless an
    argument's name says so, a compiled model would go on with the constants of the first cast it saw, or with none.
    """

    def constants(call: Call) -> str:
        shapes = sorted({(len(bias), bias.shape[-1]) for bias, _ in call.grids.values()})
        return f"{shapes} {call.applied.options.gate_threshold} {tuple(sources)}"

    return " ".join(map(constants, calls))


def uncompiled() -> AbstractContextManager[Any]:
    """Compiled models run uncompiled meanwhile: a recorder fills Python containers, which a compiler would take as they
    were when it first saw them. PyTorch before 2.6 cannot do that."""
    set_stance = getattr(torch.compiler, "set_stance", None)
    return set_stance("force_eager") if set_stance else nullcontext()
