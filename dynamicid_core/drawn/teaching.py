"""A face encoder begins with what text would say of a photo: its tokens are taught to be states of the text encoder.

The base reads such states already, and faces' keys and values begin as the text's; so the first pictures of anchoring show
somebody like the person in the photo, with that expression, and what remains to be learned is who exactly. Without it most
of a short training goes into finding that tokens mean anything at all (docs/evidence.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..datasets.manifest import Manifest, Photo
from ..landmarks import EXPRESSIONS
from ..networks.face_encoder import FaceEncoder
from ..prompts import GRID_POSES
from ..training.cache import Cache as TrainingCache
from . import vision
from .optimizer import muon_for, quick_dtype
from .people import draw_identity
from .scene import WORDS, told
from .text import caption_ids, caption_states

BEGIN = "a drawing of one person"
# What the tokens of a drawn photo say. A state of this text encoder holds a word and the one before it, so longer phrases
# take two, and there are more tokens than the published four. The last ones say what the padding of texts says, nothing:
# queries that want none of the rest go there, as most of them do in texts (half to four fifths of the attention).
TOKENS = (
    "skin", "hair", "hair", "hat", "beard", "beard", "glasses", "glasses", "mark", "expression", "pose", "pose",
    "", "", "", "",
)  # fmt: skip
STEPS, BATCH, RATE = 1_400, 32, 2e-3
DROPPED = 0.05  # share of rows that are the null photo, whose tokens shall say just "person"
SMALL = ("to", "the")  # words of poses that say nothing


@cache
def states_of(phrase: str, count: int) -> np.ndarray:
    """What a text says with the last ``count`` words of a phrase, float32 [count, 768]; shorter phrases repeat their first.

    No phrase: just that this is a person.
    """
    caption, words = (f"{BEGIN}, {phrase}", phrase.split()) if phrase else (BEGIN, BEGIN.split()[-1:])
    first = len(caption_ids(caption)) - 1 - len(words)
    places = [first + index for index, word in enumerate(words) if word not in SMALL][-count:]
    said: np.ndarray = caption_states(caption)[places[:1] * (count - len(places)) + places]
    return said


def spoken(photo: Photo) -> np.ndarray:
    """What the tokens of a drawn photo shall be, float32 [16, 768], in the order of ``TOKENS``."""
    phrases = told(draw_identity(seed_of(photo)))
    phrases |= {"expression": WORDS[photo.expression or "neutral"], "pose": photo.pose or "front view"}
    return np.concatenate([*(states_of(phrase, TOKENS.count(what)) for what, phrase in phrases.items()), _rest()])


def spoken_of_nobody() -> np.ndarray:
    """What the tokens of the null photo shall be, float32 [16, 768]."""
    return np.concatenate((np.repeat(states_of("", 1), len(TOKENS) - TOKENS.count(""), 0), _rest()))


def _rest() -> np.ndarray:
    return np.repeat(caption_states(BEGIN)[-1:], TOKENS.count(""), 0)


@dataclass(frozen=True)
class Taught:
    """What came of it. ``loss``: mean squared error of each token. ``expressions``, ``poses``: the share of photos, of people
    that it was not taught with, whose tokens are nearest to the words of what they show; chance is 1 / 7 and 1 / 5.
    """

    loss: tuple[float, ...]
    expressions: float
    poses: float


def teach(encoder: FaceEncoder, manifest: Manifest, cache: TrainingCache, seed: int = 0, steps: int = STEPS) -> Taught:
    """Trains the encoder in place on a set of drawn people whose cache has ``clip``; those of every 25th seed are asked."""
    people = manifest.people("train")
    photos, known = cache.photos(people, ("clip",)), {photo.id: photo for photo in manifest.taken}
    rows = [known[photos.id(place)] for place in range(len(photos))]
    asked = [place for place, photo in enumerate(rows) if seed_of(photo) % 25 == 0]
    taught = np.setdiff1d(np.arange(len(rows)), asked)

    near = states_near_the_face()

    def shown(places: Sequence[int]) -> tuple[Tensor, Tensor]:
        clip = cache.parts["clip"].read(photos.rows["clip"][list(places)], ("clip",))["clip"][:, near].float()
        return torch.from_numpy(np.stack([np.asarray(rows[place].identity) for place in places])).float(), clip

    null_clip, nobody = cache.null("clip")["clip"][near].float(), torch.from_numpy(spoken_of_nobody())
    encoder.float().requires_grad_().train()
    encoder.perceiver_resampler.proj_in.requires_grad_(False)  # takes states apart as they were put together
    optimizer = muon_for(encoder, RATE, ())
    rng, losses = np.random.default_rng(seed), [np.ones(encoder.sizes.tokens)]
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 50) * (1 - step / steps)
        places = rng.choice(taught, BATCH).tolist()
        identity, clip = shown(places)
        goal = torch.from_numpy(np.stack([spoken(rows[place]) for place in places]))
        gone = torch.from_numpy(rng.uniform(size=BATCH) < DROPPED)
        clip[gone], identity[gone], goal[gone] = null_clip, 0.0, nobody
        with torch.autocast("cpu", torch.bfloat16, enabled=quick_dtype("cpu") is torch.bfloat16):
            tokens: Tensor = encoder(identity, clip)
        loss = (tokens.float() - goal).square().mean((0, 2))  # [T]
        optimizer.zero_grad()
        loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach().numpy())
    encoder.eval().requires_grad_()
    right = []
    with torch.no_grad():
        for start in range(0, len(asked), BATCH):
            some = [rows[place] for place in asked[start : start + BATCH]]
            tokens = encoder(*shown(asked[start : start + BATCH]))
            read = zip(some, expressions_of(tokens), poses_of(tokens), strict=True)
            right += [(photo.expression == expression, photo.pose == pose) for photo, expression, pose in read]
    return Taught(tuple(np.mean(losses[-50:], 0).round(4).tolist()), *np.mean(right, 0).round(3).tolist())


def states_near_the_face() -> Tensor:
    """Which of CLIP's states are taught with, int64 [n]: half of them show what is beside and below the head."""
    rows, columns = torch.meshgrid(torch.arange(13), torch.arange(2, 14), indexing="ij")
    return torch.cat((torch.zeros(1, dtype=torch.int64), 1 + (rows * vision.GRID + columns).flatten()))


def expressions_of(tokens: Tensor) -> list[str]:
    """Of face tokens [B, 16, 768] those of ``landmarks.EXPRESSIONS`` whose words they are nearest to."""
    return [EXPRESSIONS[index] for index in _nearest(tokens, "expression", [WORDS[word] for word in EXPRESSIONS])]


def poses_of(tokens: Tensor) -> list[str]:
    """Of face tokens [B, 16, 768] those of ``prompts.GRID_POSES`` whose words they are nearest to."""
    return [GRID_POSES[index] for index in _nearest(tokens, "pose", GRID_POSES)]


def _nearest(tokens: Tensor, what: str, phrases: Sequence[str]) -> list[int]:
    """Which of ``phrases`` the tokens [B, 16, 768] for ``what`` say."""
    own = [index for index, name in enumerate(TOKENS) if name == what]
    words = torch.from_numpy(np.stack([states_of(phrase, len(own)) for phrase in phrases]))
    found: list[int] = torch.cdist(tokens[:, own].float().flatten(1), words.flatten(1)).argmin(1).tolist()
    return found


def seed_of(photo: Photo) -> int:
    """Who is in a drawn photo."""
    return int(photo.source.removeprefix("seed "))
