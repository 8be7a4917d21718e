"""A face encoder begins with what text would say of a photo: its tokens are taught to be states of the text encoder.

The base reads such states already, and faces' keys and values begin as the text's; so the first pictures of anchoring show
somebody like the person in the photo, with that expression, and what remains to be learned is who exactly. Without it most
of a short training goes into finding that tokens mean anything at all (docs/evidence.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..datasets.manifest import Manifest, Photo
from ..landmarks import EXPRESSIONS
from ..networks.face_encoder import FaceEncoder
from ..training.cache import Cache
from . import vision
from .optimizer import muon_for
from .people import draw_identity
from .scene import WORDS, looks
from .text import caption_ids, caption_states

BEGIN = "a drawing of one person"
STEPS, BATCH, RATE = 1_400, 32, 2e-3
DROPPED = 0.05  # share of rows that are the null photo, whose tokens shall say just "person"


def phrase_ends(phrases: Sequence[str]) -> tuple[np.ndarray, list[int]]:
    """States [33, 768] of a caption of phrases, and the place of each phrase's last word."""
    caption, places = phrases[0], [len(caption_ids(phrases[0])) - 2]
    for phrase in phrases[1:]:
        caption = f"{caption}, {phrase}"
        places.append(len(caption_ids(caption)) - 2)
    return caption_states(caption), places


def spoken(photo: Photo) -> np.ndarray:
    """What the four tokens of a drawn photo shall be, float32 [4, 768]: skin and pose; hair; what is worn or grown; expression.

    Of all these an expression is the smallest part of a picture, so it shares its token with nothing.
    """
    who = draw_identity(seed_of(photo))
    states, places = phrase_ends((BEGIN, *looks(who)))
    shown, ends = phrase_ends((BEGIN, WORDS[photo.expression or "neutral"], photo.pose or "front view"))
    worn = states[places[3:]].mean(0) if len(places) > 3 else states[places[0]]
    skin_and_pose = (states[places[1]] + shown[ends[2]]) / 2
    return np.stack((skin_and_pose, states[places[2]], worn, shown[ends[1]]))


@dataclass(frozen=True)
class Taught:
    """What came of it. ``loss``: mean squared error of each token. ``expressions``: the share of photos, of people that it was
    not taught with, whose last token is nearest to the words of what they show; chance is 1 / 7.
    """

    loss: tuple[float, ...]
    expressions: float


def teach(encoder: FaceEncoder, manifest: Manifest, cache: Cache, seed: int = 0, steps: int = STEPS) -> Taught:
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

    null_clip, nobody = cache.null("clip")["clip"][near].float(), phrase_ends((BEGIN,))[0][5]
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
        clip[gone], identity[gone], goal[gone] = null_clip, 0.0, torch.from_numpy(nobody)
        with torch.autocast("cpu", torch.bfloat16):
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
            places = asked[start : start + BATCH]
            read = expressions_of(encoder(*shown(places)))
            right += [word == rows[place].expression for word, place in zip(read, places, strict=True)]
    return Taught(tuple(np.mean(losses[-50:], 0).round(4).tolist()), float(np.mean(right)))


def states_near_the_face() -> Tensor:
    """Which of CLIP's states are taught with, int64 [n]: half of them show what is beside and below the head."""
    rows, columns = torch.meshgrid(torch.arange(13), torch.arange(2, 14), indexing="ij")
    return torch.cat((torch.zeros(1, dtype=torch.int64), 1 + (rows * vision.GRID + columns).flatten()))


def expressions_of(tokens: Tensor) -> list[str]:
    """Of face tokens [B, 4, 768] those of ``landmarks.EXPRESSIONS`` whose words the last one is nearest to."""
    said = [phrase_ends((BEGIN, WORDS[word])) for word in EXPRESSIONS]
    words = torch.from_numpy(np.stack([states[ends[1]] for states, ends in said]))
    return [EXPRESSIONS[int(index)] for index in torch.cdist(tokens[:, 3].float(), words).argmin(1)]


def seed_of(photo: Photo) -> int:
    """Who is in a drawn photo."""
    return int(photo.source.removeprefix("seed "))
