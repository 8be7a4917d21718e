"""The one kind of error that is for users. Standard library only: scripts raise it before anything is installed."""

from __future__ import annotations


class DynamicIDError(ValueError):
    """A mistake that the user can mend. Its text says what was found and what to do."""
