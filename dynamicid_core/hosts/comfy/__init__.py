"""ComfyUI: LoRA as weight patches, faces as one attention patch, networks under the host's memory management.

How faces get into a run (facts: ComfyUI 0.33, ``comfy/samplers.py``, ``comfy/ldm/modules/attention.py``):

- ``apply_faces`` computes the keys and values of all faces once, when its node runs (``model``).
- When sampling starts, a SAMPLER_SAMPLE wrapper labels every conditioning with its role (``rows``), which the host then
  carries to the model row by row, whatever it batches, splits, crops or repeats.
- At every model call, an APPLY_MODEL wrapper, outside the part that TorchCompileModel compiles, puts one attention patch on
  each cross attention, around whatever other packs put there before (``run``). It does so in copies of the options of this
  very call, so reruns, clones and bypass cannot leak.
- What other packs and the compiler need besides stands in ``neighbours``.

- Parts of a picture that other packs sample by themselves are known by maps among the conditionings (``tiles``).

``refining`` samples crops of a finished picture, each with one person; ``segs`` lets another pack's detailers do it.
"""

from .model import apply_faces, gate_maps
from .networks import ClipVision, LoadedDynamicID, load
from .refining import Redrawer, Sampling
from .segs import PeopleInCrops, to_segs
from .tiles import with_map

__all__ = [
    "ClipVision",
    "LoadedDynamicID",
    "PeopleInCrops",
    "Redrawer",
    "Sampling",
    "apply_faces",
    "gate_maps",
    "load",
    "to_segs",
    "with_map",
]
