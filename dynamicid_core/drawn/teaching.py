"""A face encoder begins with what text would say of a photo: its tokens are taught to be states of the text encoder.

The base reads such states already, and faces' keys and values begin as the text's; so the first pictures of anchoring show
somebody like the person in the photo, with that expression, and what remains to be learned is who exactly. Without it most
of a short training goes into finding that tokens mean anything at all (docs/evidence.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets.manifest import Manifest, Photo
from ..networks.face_encoder import FaceEncoder
from ..training.cache import Cache
from .people import draw_identity
from .scene import WORDS, looks
from .text import caption_ids, caption_states

BEGIN = "a drawing of one person"
STEPS, BATCH, RATE = 900, 32, 1e-3
DROPPED = 0.05  # share of rows that are the null photo, whose tokens shall say just "person"


def phrase_ends(phrases: Sequence[str]) -> tuple[np.ndarray, list[int]]:
    """States [33, 768] of a caption of phrases, and the place of each phrase's last word."""
    caption, places = phrases[0], [len(caption_ids(phrases[0])) - 2]
    for phrase in phrases[1:]:
        caption = f"{caption}, {phrase}"
        places.append(len(caption_ids(caption)) - 2)
    return caption_states(caption), places


def spoken(photo: Photo) -> np.ndarray:
    """What the four tokens of a drawn photo shall be, float32 [4, 768]: skin; hair; what is worn or grown; what is shown."""
    who = draw_identity(int(photo.source.removeprefix("seed ")))
    states, places = phrase_ends((BEGIN, *looks(who)))
    shown, ends = phrase_ends((BEGIN, WORDS[photo.expression or "neutral"], photo.pose or "front view"))
    worn = states[places[3:]].mean(0) if len(places) > 3 else states[places[0]]
    return np.stack((states[places[1]], states[places[2]], worn, shown[ends[1:]].mean(0)))


def teach(encoder: FaceEncoder, manifest: Manifest, cache: Cache, seed: int = 0, steps: int = STEPS) -> float:
    """Trains the encoder in place on a set of drawn people whose cache has ``clip``; returns the last losses' mean."""
    people = manifest.people("train")
    photos, known = cache.photos(people, ("clip",)), {photo.id: photo for photo in manifest.taken}
    null_clip, nobody = cache.null("clip")["clip"].float(), phrase_ends((BEGIN,))[0][5]
    optimizer = torch.optim.AdamW(
        encoder.float().requires_grad_().train().parameters(), RATE, betas=(0.9, 0.98), weight_decay=1e-2
    )
    rng, losses = np.random.default_rng(seed), [1.0]
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 50) * (1 - step / steps)
        places = rng.integers(0, len(photos), BATCH)
        rows = [known[photos.id(int(place))] for place in places]
        clip = cache.parts["clip"].read(photos.rows["clip"][list(places)], ("clip",))["clip"].float()
        identity = torch.from_numpy(np.stack([np.asarray(row.identity) for row in rows])).float()
        goal = torch.from_numpy(np.stack([spoken(row) for row in rows]))
        gone = torch.from_numpy(rng.uniform(size=BATCH) < DROPPED)
        clip[gone], identity[gone], goal[gone] = null_clip, 0.0, torch.from_numpy(nobody)
        with torch.autocast("cpu", torch.bfloat16):
            tokens: Tensor = encoder(identity, clip)
        loss = nn.functional.mse_loss(tokens.float(), goal)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    encoder.eval()
    return float(np.mean(losses[-50:]))
