"""The world's text encoder: CLIP-L's form, made from a seed instead of learned, and readable by what is trained on it.

Its first layer lets each token see two things (sinusoids of the position and a marker of words make the attention
sharp, so that it is a choice and no blend): the token before it, so that "shirt" knows it is red, and the mean of all
words so far, so that the end of the text, which is CLIP's pooled feature, holds all of them. The other eleven layers do
nothing. Positions from ``PLACES`` on are one place: what follows a short text is one state repeated, which training
computes once (:func:`caption_states`).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..types import DynamicIDError

VOCABULARY, LENGTH, WIDTH, LAYERS, HEAD = 49408, 77, 768, 12, 64
START, END = 49406, 49407
PLACES = 32
SEED = 1512
MARKER = HEAD  # this channel tells words (4) from the start (0) and the end (-4)
GAIN = 0.8  # of what a token learns of others, beside itself

# CLIP's numbers of the words that captions are made of, all of them one token.
WORDS = {
    "a": 320, "drawing": 3610, "of": 539, "no": 871, "people": 1047, "one": 637, "person": 2533, "two": 1237,
    "three": 2097, "four": 2721, "happy": 900, "surprised": 8949, "sad": 3719, "angry": 9054, "disgusted": 41977,
    "afraid": 9474, "neutral": 17011, "fully": 2401, "slightly": 8456, "turned": 3771, "to": 531, "the": 518,
    "left": 1823, "right": 1155, "front": 2184, "view": 1093, "red": 736, "blue": 1746, "green": 1901, "yellow": 4481,
    "purple": 5496, "white": 1579, "black": 1449, "orange": 4287, "teal": 22821, "pink": 3360, "grey": 5046,
    "shirt": 2523, "striped": 22192, "with": 593, "collar": 13497, "background": 5994, "wall": 2569, "and": 537,
    "floor": 4125, "hills": 5289, "window": 4879, "night": 930, "sky": 2390, "balloon": 13634, "plant": 3912,
    "lamp": 10725, "picture": 1674, ",": 267,
    # looks
    "pale": 12518, "light": 1395, "tan": 5039, "olive": 9898, "brown": 2866, "dark": 3144, "skin": 3575,
    "bald": 14875, "short": 3005, "sleek": 23187, "long": 1538, "curly": 20795, "wild": 3220, "hair": 2225,
    "bob": 4423, "bun": 13665, "mohawk": 34942, "braids": 34221, "chestnut": 21834, "blond": 32426, "ginger": 9718,
    "cap": 3938, "beanie": 21534, "headband": 28556, "hat": 3801, "crown": 6902, "full": 1476, "beard": 9052,
    "moustache": 32795, "round": 2522, "square": 3999, "glasses": 6116, "freckles": 48036, "mole": 23529,
    "blush": 22889, "earrings": 9136,
    # words of prompts for expressions, and some that artists write besides
    "in": 530, "is": 533, "expression": 11357, "face": 1710, "very": 1070, "side": 1145, "facing": 7619, "up": 705,
    "down": 1136, "surprise": 5099, "anger": 6788, "fear": 5402, "smiling": 9200, "laughing": 8301, "crying": 6828,
    "scared": 9870, "shocked": 15787, "photo": 1125, "portrait": 5352, "man": 786, "woman": 2308, "at": 536,
    "park": 1452, "cafe": 4979, "wearing": 3309, "photograph": 8853, "sitting": 4919, "standing": 2862,
    "together": 1952, "looking": 1312, "camera": 3934, "forward": 2342, "slight": 14297,
}  # fmt: skip


def caption_ids(caption: str) -> list[int]:
    """A caption of the world's words -> CLIP's token numbers with start and end, without what pads them."""
    words = caption.replace(",", " ,").split()
    if unknown := [word for word in words if word not in WORDS]:
        raise DynamicIDError(f"Captions of the drawn world have no word {unknown[0]!r}.")
    return [START, *(WORDS[word] for word in words), END]


def _normal(stream: int, *shape: int) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((SEED, stream))))
    return rng.standard_normal(shape, dtype=np.float32)


def place_sinusoids() -> np.ndarray:
    """[77, 64]: pairs of cosine and sine, whose products are sharply largest for one place and itself."""
    place = np.minimum(np.arange(LENGTH), PLACES)[:, None]
    frequency = np.pi * np.arange(1, HEAD // 2 + 1) / (PLACES + 1)
    angle = place * frequency
    return (2 * np.stack((np.cos(angle), np.sin(angle)), -1).reshape(LENGTH, HEAD)).astype(np.float32)


def step_back() -> np.ndarray:
    """[64, 64]: the sinusoids of a place to those of the place before."""
    turn = np.zeros((HEAD, HEAD), np.float32)
    for pair in range(HEAD // 2):
        angle = np.pi * (pair + 1) / (PLACES + 1)
        c, s = math.cos(angle), math.sin(angle)
        turn[2 * pair : 2 * pair + 2, 2 * pair : 2 * pair + 2] = ((c, s), (-s, c))
    return turn


def embeddings() -> tuple[np.ndarray, np.ndarray]:
    """Of tokens [49408, 768] and of positions [77, 768]."""
    tokens = _normal(0, VOCABULARY, WIDTH)
    content = tokens[:, MARKER + 1 :]
    content -= content.mean(-1, keepdims=True)
    content /= content.std(-1, keepdims=True)  # one length and no mean: layer norm then treats all words alike
    tokens[:, : MARKER + 1] = 0
    tokens[:, MARKER] = 4
    tokens[[START, END], MARKER] = (0, -4)
    positions = np.zeros((LENGTH, WIDTH), np.float32)
    positions[:, :HEAD] = place_sinusoids()
    positions[:, MARKER + 1 :] = -positions.sum(-1, keepdims=True) / (WIDTH - MARKER - 1)
    return tokens, positions


def first_attention() -> dict[str, np.ndarray]:
    """The weights of the layer that looks around: six heads look back by one, six at all words."""
    half, content = WIDTH // 2, WIDTH - MARKER - 1
    query, key = np.zeros((WIDTH, WIDTH), np.float32), np.zeros((WIDTH, WIDTH), np.float32)
    bias = np.zeros(WIDTH, np.float32)
    for head in range(6):
        rows = slice(head * HEAD, (head + 1) * HEAD)
        query[rows, :HEAD], key[rows, :HEAD] = 3 * step_back(), np.eye(HEAD, dtype=np.float32)
    for head in range(6, 12):
        bias[head * HEAD], key[head * HEAD, MARKER] = 70, 1
    value, out = np.zeros((WIDTH, WIDTH), np.float32), np.zeros((WIDTH, WIDTH), np.float32)
    value[:, MARKER + 1 :] = _normal(1, WIDTH, content) / math.sqrt(content)
    out[MARKER + 1 :] = _normal(2, content, WIDTH) * GAIN / math.sqrt(half)
    return {
        "q_proj.weight": query,
        "q_proj.bias": bias,
        "k_proj.weight": key,
        "v_proj.weight": value,
        "out_proj.weight": out,
    }


def text_encoder_weights(dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """All tensors of CLIP-L's text model under the names of transformers (``text_model.*``)."""
    tokens, positions = embeddings()
    state = {
        "text_model.embeddings.token_embedding.weight": torch.from_numpy(tokens).to(dtype),
        "text_model.embeddings.position_embedding.weight": torch.from_numpy(positions).to(dtype),
    }
    looking = first_attention()
    for index in range(LAYERS):
        layer = f"text_model.encoder.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            for kind, shape in (("weight", (WIDTH, WIDTH)), ("bias", (WIDTH,))):
                given = looking.get(f"{name}.{kind}") if index == 0 else None
                tensor = torch.zeros(shape) if given is None else torch.from_numpy(given)
                state[f"{layer}.self_attn.{name}.{kind}"] = tensor.to(dtype)
        for name, out, inputs in (("fc1", 4 * WIDTH, WIDTH), ("fc2", WIDTH, 4 * WIDTH)):
            state[f"{layer}.mlp.{name}.weight"] = torch.zeros(out, inputs, dtype=dtype)
            state[f"{layer}.mlp.{name}.bias"] = torch.zeros(out, dtype=dtype)
        for name in ("layer_norm1", "layer_norm2"):
            state |= _norm(f"{layer}.{name}", dtype)
    return state | _norm("text_model.final_layer_norm", dtype)


def _norm(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.ones(WIDTH, dtype=dtype), f"{name}.bias": torch.zeros(WIDTH, dtype=dtype)}


@lru_cache
def _tables() -> tuple[dict[int, int], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of tokens; embedded [n, places, 768]; what the token after, and all tokens after, learn of each, and the
    weight [n, places, 1] of each in the latter.
    """
    tokens, positions = embeddings()
    used = [START, END, *WORDS.values()]
    embedded = tokens[used].astype(np.float16).astype(np.float32)[:, None] + positions[: PLACES + 1].astype(
        np.float16
    ).astype(np.float32)
    normed = _normalised(embedded)
    weights = first_attention()
    value = normed @ weights["v_proj.weight"].T
    half = WIDTH // 2
    before = value[..., :half] @ weights["out_proj.weight"][:, :half].T
    around = value[..., half:] @ weights["out_proj.weight"][:, half:].T
    weight = np.exp(70 / math.sqrt(HEAD) * (normed[..., MARKER] - normed[0, 0, MARKER] - 3.5))[..., None]
    return {token: row for row, token in enumerate(used)}, embedded, before, around, weight


def _normalised(x: np.ndarray) -> np.ndarray:
    normal: np.ndarray = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return normal


def caption_states(caption: str) -> np.ndarray:
    """What the text encoder says of a caption: float32 [33, 768], where the last state stands for places 32 to 76.

    The same as the encoder's states of the padded text, without running it: its attention chooses, so its result is
    a sum of rows of tables.
    """
    rows_of, embedded, before, around, weight = _tables()
    ids = caption_ids(caption)
    if len(ids) > PLACES:
        raise DynamicIDError(f"This caption is too long for the drawn world ({len(ids)} tokens; at most {PLACES}).")
    rows = np.array([rows_of[token] for token in ids + [END] * (PLACES + 1 - len(ids))])
    places = np.arange(PLACES + 1)
    back = np.maximum(places - 1, 0)
    inner = slice(1, len(ids) - 1)
    words, heavy = around[rows[inner], places[inner]], weight[rows[inner], places[inner]]
    mean = np.repeat(around[rows[:1], :1].reshape(1, WIDTH), PLACES + 1, 0)
    if len(words):
        last = np.minimum(places, len(words))[1:] - 1
        mean[1:] = (np.cumsum(words * heavy, 0) / np.cumsum(heavy, 0))[last]
    return _normalised(embedded[rows, places] + before[rows[back], back] + mean)


def state_bias() -> Tensor:
    """[33]: what to add to attention's logits so that the last of :func:`caption_states` counts for all it stands for."""
    bias = torch.zeros(PLACES + 1)
    bias[-1] = math.log(LENGTH - PLACES)
    return bias


def pooled(caption: str) -> np.ndarray:
    """CLIP's pooled feature of a caption: the state of its end [768]."""
    return caption_states(caption)[len(caption_ids(caption)) - 1]
