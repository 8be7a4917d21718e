"""A CLIP tokenizer's vocabulary for the drawn world: CLIP's own numbers for the words that the world and the method use.

ComfyUI brings the complete vocabulary; a diffusers pipeline needs one of its own, and this one has a hundred words of
it. Other words become bytes, or whatever parts are known, under numbers that mean nothing in particular.
"""

from __future__ import annotations

from itertools import pairwise

from .text import END, START, WORDS

LAST = "</w>"  # ends the last part of a word
PARTS = {("disgu", "st" + LAST): (9793, 545)}  # a word that CLIP has no number of its own for


def _letters() -> list[str]:
    """The 256 characters that stand for bytes, in the order of their numbers."""
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printed]
    return [chr(byte) for byte in printed] + [chr(256 + n) for n in range(len(others))]


def _joined(parts: list[str], merges: dict[tuple[str, str], int]) -> list[str]:
    """What byte pair encoding makes of a word's parts: the earliest merge that fits, wherever it does, again and again."""
    while fitting := [pair for pair in pairwise(parts) if pair in merges]:
        first = min(fitting, key=lambda pair: merges[pair])
        joined: list[str] = []
        for part in parts:
            if joined and (joined[-1], part) == first:
                joined[-1] += part
            else:
                joined.append(part)
        parts = joined
    return parts


def _merges(words: list[tuple[str, ...]]) -> dict[tuple[str, str], int]:
    """Merges, in order, that make exactly these parts of words of their letters.

    Later merges are only tried when no earlier one fits, so that a word that came out right stays right.
    """
    merges: dict[tuple[str, str], int] = {}
    for wanted in words:
        letters = [*("".join(wanted).removesuffix(LAST))]
        letters[-1] += LAST
        while (parts := _joined(letters, merges)) != list(wanted):
            merges[next(pair for pair in pairwise(parts) if any("".join(pair) in part for part in wanted))] = len(
                merges
            )
    return merges


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Numbers of all parts of words, and the merges that make them, as a CLIP tokenizer takes them."""
    numbers = {word + LAST: number for word, number in WORDS.items()}
    numbers |= {part: n for parts, known in PARTS.items() for part, n in zip(parts, known, strict=True)}
    merges = list(_merges([*PARTS, *((word + LAST,) for word in WORDS)]))
    letters = _letters()
    numbers |= {part: n for n, part in enumerate([*letters, *(letter + LAST for letter in letters)])}
    free = iter(sorted(set(range(2 * len(letters), START)) - set(numbers.values())))
    numbers |= {part: next(free) for pair in merges if (part := "".join(pair)) not in numbers}
    return numbers | {"<|startoftext|>": START, "<|endoftext|>": END}, merges
