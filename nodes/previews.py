"""Previews that outlive the host's cache: a page that was opened anew gets them with its next run."""

from __future__ import annotations

from inspect import signature

from comfy_api.latest import io

INTERMEDIATE = "has_intermediate_output"  # known to hosts from 0.19


def sent_again() -> dict[str, bool]:
    """What a schema says for the host to send a node's preview with each run, also while the node is in its cache.

    Older hosts do so for output nodes alone.
    """
    return {INTERMEDIATE: True} if INTERMEDIATE in signature(io.Schema).parameters else {}
