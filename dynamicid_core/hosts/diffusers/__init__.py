"""diffusers: the faces of a cast in a Stable Diffusion pipeline.

How faces get into a run:

- :func:`attach` puts an attention processor on every attention of the UNet (``unet``).
- At every call of the UNet a forward pre-hook, which torch.compile leaves outside its graphs, makes a
  :class:`~dynamicid_core.call.Call`: what depends on the timestep, the rows and the size. It travels in
  ``cross_attention_kwargs``, so nothing is kept between calls but what depends on sizes and rows alone.
- The LoRA is added to the weights themselves, whose originals are kept (``lora``); or computed beside them (``lora="apart"``).

``photos`` turns photos into faces, and ``pipeline`` has the class that people use.
"""

from .clip_vision import load_clip_vision
from .lora import FusedLoRA
from .photos import HINTS, PhotoEncoder
from .pipeline import DynamicID
from .unet import Attachment, FaceProcessor, attach

__all__ = [
    "HINTS",
    "Attachment",
    "DynamicID",
    "FaceProcessor",
    "FusedLoRA",
    "PhotoEncoder",
    "attach",
    "load_clip_vision",
]
