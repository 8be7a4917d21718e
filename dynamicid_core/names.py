"""Names of people: as they are typed, and as messages call them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .plain import one_line
from .types import DynamicIDError

LONGEST_NAME = 60  # characters


def parse_names(text: str) -> list[str]:
    """Names out of a text, with line breaks, commas or semicolons between them, also of Chinese and Japanese.

    An empty one keeps its place: whoever stands there has no name. Those at the end do not count.
    """
    parts = re.split("[\n,;\uff0c\uff1b\u3001]", text)
    names = [one_line(part, LONGEST_NAME) for part in parts]
    while names and not names[-1]:
        names.pop()
    return names


def names_of(names: Sequence[str], people: int) -> list[str]:
    """A name for each of ``people``, "" where there is none. Raises DynamicIDError where there are more names than people."""
    if len(names) > people:
        count = "is 1 person" if people == 1 else f"are {people} people"
        raise DynamicIDError(
            f"There {count} but {len(names)} names ({', '.join(name or 'none' for name in names)}). Give one name for each, in their order."
        )
    return [*names, *[""] * (people - len(names))]


def person_called(number: int, name: str) -> str:
    """ "person 2 (Ben)": what messages call person ``number`` (from 1)."""
    return f"person {number} ({name})" if name else f"person {number}"
