"""A finished picture's faces sampled again, each enlarged and with its person alone.

:func:`plan` finds the faces, matches them with the cast (:mod:`matching`) and says which parts of the picture are sampled
again. :func:`refine` does that with a host's ``redraw``, keeps the best of several seeds, and looks once more who is who.
"""

from .planning import WHICH, Job, Plan, RefineOptions, plan
from .redrawing import Patch, Redraw, refine
from .report import RefinedPerson, RefinedPicture

__all__ = [
    "WHICH",
    "Job",
    "Patch",
    "Plan",
    "Redraw",
    "RefineOptions",
    "RefinedPerson",
    "RefinedPicture",
    "plan",
    "refine",
]
