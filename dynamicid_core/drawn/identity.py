"""What a recogniser should say of a drawn person: a vector of length 1 that follows from the record.

The world's recogniser is taught to read these vectors from pixels; training sets hold the exact ones. What nobody sees
(the paint of a hat that is not worn) is not in them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .people import (
    BEARDS,
    CUTS,
    GLASSES,
    GLASSES_PAINT,
    HATS,
    IRIS,
    MARKS,
    NOSES,
    PAINT,
    VALIDATION,
    Identity,
    draw_identity,
)

WIDTH = 512
PAINTED_HATS = ("cap", "beanie", "band", "brim")
SPREAD = 0.35  # what a number's whole range counts for beside a choice


def _choice(value: str, values: tuple[str, ...], seen: bool = True) -> list[float]:
    return [float(seen and value == each) for each in dict.fromkeys(values)]


def traits(identity: Identity) -> np.ndarray:
    """Everything visible of a person as numbers, float32 [n]."""
    who = identity
    numbers = [
        (who.width - 0.85) / 0.09, 2 * who.jaw - 1, (who.eye_size - 1) / 0.15, (who.eye_distance - 0.365) / 0.035,
        (who.brow - 0.12) / 0.03, (who.nose_size - 1.05) / 0.3, (who.lips - 0.065) / 0.015, 2 * who.lip_red - 1,
    ]  # fmt: skip
    colors = [c / 128 - 1 for color in (who.skin, who.hair if who.cut != "bald" else (128, 128, 128)) for c in color]
    iris = [float(who.iris == each) for each in IRIS]
    values = [SPREAD * n for n in numbers] + [1.2 * c for c in colors] + [0.6 * i for i in iris]
    values += (
        _choice(who.cut, CUTS) + _choice(who.beard, BEARDS) + _choice(who.hat, HATS) + _choice(who.glasses, GLASSES)
    )
    values += _choice(who.nose, NOSES) + _choice(who.mark, MARKS)
    values += _choice(who.glasses_paint, GLASSES_PAINT, who.glasses != "none")
    values += _choice(who.hat_paint, tuple(PAINT), who.hat in PAINTED_HATS or who.cut == "pigtails")
    return np.array(values, np.float32)


@lru_cache
def _projection() -> tuple[np.ndarray, np.ndarray]:
    """The mean of traits [n] over people, and a matrix [n, 512] that keeps distances."""
    mean = np.mean([traits(draw_identity(seed)) for seed in range(0, VALIDATION, 9)], axis=0)
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((512, len(mean)))))
    return mean, rng.standard_normal((len(mean), WIDTH), dtype=np.float32) / np.sqrt(WIDTH)


def identity_vector(identity: Identity) -> np.ndarray:
    """float32 [512], length 1; the cosine of two strangers is about 0."""
    mean, matrix = _projection()
    vector = (traits(identity) - mean) @ matrix
    unit: np.ndarray = (vector / np.linalg.norm(vector)).astype(np.float32)
    return unit
