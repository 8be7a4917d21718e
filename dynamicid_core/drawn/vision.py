"""The world's CLIP vision model: ViT-L/14's form, made from a seed, in which everything that is seen can be read.

Each patch is taken apart into the cosines of a JPEG's blocks, fine ones made louder, and a row of cosines says where it
is; random signs of a Hadamard matrix spread both over all channels, at right angles to each other. Every transformer
layer is zero, so that the state before the last one, which DynamicID reads, is this embedding, behind one layer or 24.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

WIDTH, LAYERS, HIDDEN, PROJECTION = 1024, 24, 4096, 768
SIDE, GRID, COLOURS = 14, 16, 3  # pixels of a patch, patches of a picture
TOKENS = GRID * GRID + 1
SEED = 1514
WAVES = 8  # of places along each axis
# Parts of the squared length of an ordinary state: what is seen takes the rest of 1.
PLACE, REST = 0.15, 0.25
ORDINARY = 28.0  # root mean square length of what is seen of a drawn picture's patch, before it is scaled


def _cosines(size: int) -> np.ndarray:
    """[size, size]: the orthonormal cosines (DCT-II) of so many samples, from the mean to the finest."""
    place = (np.arange(size) + 0.5) / size
    waves = np.cos(np.pi * np.arange(size)[:, None] * place) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves


def _spread() -> np.ndarray:
    """[1024, 1023]: orthonormal columns of mean 0 with entries of one size, in an order and with signs of the seed."""
    hadamard = np.ones((1, 1))
    while len(hadamard) < WIDTH:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((SEED, 0))))
    columns = hadamard[:, 1:][:, rng.permutation(WIDTH - 1)] * rng.choice((-1.0, 1.0), WIDTH - 1)
    return columns[rng.permutation(WIDTH)] / math.sqrt(WIDTH)


def coordinates() -> np.ndarray:
    """[606, 1024]: a state -> what is seen of its patch, [3 colours, 14, 14] cosines, then the 16 cosines of its place, then
    two numbers that say nothing. Rows are orthonormal.
    """
    return _spread()[:, : COLOURS * SIDE * SIDE + 2 * WAVES + 2].T


def place_code(x: float, y: float) -> np.ndarray:
    """[16]: the cosines of a place, fractions of the picture, as those of patches: their products are largest for
    neighbours, and 1 for one and the same."""
    waves = np.pi * np.arange(1, WAVES + 1)
    return np.concatenate((np.cos(waves * y), np.cos(waves * x))) / math.sqrt(WAVES)


def loudness() -> np.ndarray:
    """[14, 14]: by how much each cosine of a patch is enlarged, as fine ones are faint in pictures."""
    wave = np.arange(SIDE)
    return np.asarray(0.5 + np.minimum(np.hypot(wave[:, None], wave), SIDE / 2))


def embeddings() -> dict[str, np.ndarray]:
    """``class_embedding`` [1024], ``patch_embedding.weight`` [1024, 3, 14, 14], ``position_embedding.weight`` [257, 1024]."""
    spread, waves = _spread(), _cosines(SIDE)
    patches = COLOURS * SIDE * SIDE
    blocks = np.einsum("uy,vx->uvyx", waves, waves) * loudness()[..., None, None]
    seen = np.zeros((COLOURS, SIDE * SIDE, COLOURS, SIDE, SIDE))
    for colour in range(COLOURS):
        seen[colour, :, colour] = blocks.reshape(SIDE * SIDE, SIDE, SIDE)
    patch = (spread[:, :patches] @ seen.reshape(patches, patches)) * math.sqrt(1 - PLACE - REST) / ORDINARY
    axis = _cosines(GRID)[1 : WAVES + 1].T * math.sqrt(GRID / WAVES / 2)  # [16, 8], of length near the root of a half
    rows, columns = np.repeat(axis, GRID, 0), np.tile(axis, (GRID, 1))
    position = np.concatenate((rows, columns), 1) @ spread[:, patches : patches + 2 * WAVES].T * math.sqrt(PLACE)
    rest, class_token = spread[:, patches + 2 * WAVES], spread[:, patches + 2 * WAVES + 1]
    length = math.sqrt(WIDTH)  # a state has this one behind its norm
    return {
        "class_embedding": class_token * length,
        "patch_embedding.weight": patch.reshape(WIDTH, COLOURS, SIDE, SIDE) * length,
        "position_embedding.weight": (np.pad(position, ((1, 0), (0, 0))) + rest * math.sqrt(REST)) * length,
    }


def vision_weights(layers: int = LAYERS, hidden: int = HIDDEN, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """All tensors under the names of transformers' ``CLIPVisionModelWithProjection``.

    ``layers`` and the width ``hidden`` inside them change no state: few of them are quick, ViT-L/14's are what hosts know.

    Those that are zero are one zero seen many times (expanded), which takes no memory.
    """
    state = {
        f"vision_model.embeddings.{name}": torch.from_numpy(array).to(dtype) for name, array in embeddings().items()
    }
    state |= _norm("vision_model.pre_layrnorm", dtype)  # spelled so in every file
    for index in range(layers):
        layer = f"vision_model.encoder.layers.{index}"
        state |= _norm(f"{layer}.layer_norm1", dtype) | _norm(f"{layer}.layer_norm2", dtype)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            state |= _zero(f"{layer}.self_attn.{name}", WIDTH, WIDTH, dtype)
        state |= _zero(f"{layer}.mlp.fc1", hidden, WIDTH, dtype) | _zero(f"{layer}.mlp.fc2", WIDTH, hidden, dtype)
    state |= _norm("vision_model.post_layernorm", dtype)
    return state | {"visual_projection.weight": torch.zeros((), dtype=dtype).expand(PROJECTION, WIDTH)}


def _norm(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.ones(WIDTH, dtype=dtype), f"{name}.bias": torch.zeros(WIDTH, dtype=dtype)}


def _zero(name: str, out: int, inputs: int, dtype: torch.dtype) -> dict[str, Tensor]:
    zero = torch.zeros((), dtype=dtype)
    return {f"{name}.weight": zero.expand(out, inputs), f"{name}.bias": zero.expand(out)}
