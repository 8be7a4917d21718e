"""CLIP-T: does the picture show what its prompt says, by a CLIP model that the user names?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..pictures import to_rgb
from ..types import DynamicIDError
from .cases import checksum
from .store import Store


class ClipScore:
    """Cosines of pictures and texts by one CLIP model (both its towers), -1..1; usual values lie around 0.2 to 0.35."""

    def __init__(self, name: str, store: Store, device: Any = "cpu") -> None:
        """``name``: a folder as on the Hugging Face hub, or a model's name in the hub's cache; nothing is downloaded."""
        self.name = name
        self._store, self._device = store, device
        self._model, self._processor = _load(name)
        self._model.to(device)

    def score(self, picture: Path, text: str) -> float:
        """The cosine of a picture and a text; texts are cut off where CLIP's context ends."""
        key = f"{checksum(picture)} {text}"
        if (known := self._store.get(f"clip {self.name}", key)) is None:
            known = {"cosine": np.array(self._cosine(to_rgb(picture), text))}
            self._store.put(f"clip {self.name}", key, known)
        return float(known["cosine"])

    def _cosine(self, image: np.ndarray, text: str) -> float:
        import torch

        inputs = self._processor(
            text=[text], images=Image.fromarray(image), return_tensors="pt", padding=True, truncation=True
        )
        with torch.inference_mode():
            out = self._model(**inputs.to(self._device))
            return float(torch.cosine_similarity(out.text_embeds.float(), out.image_embeds.float()).item())


def _load(name: str) -> tuple[Any, Any]:
    try:
        from transformers import CLIPModel, CLIPProcessor
    except ImportError as error:
        raise DynamicIDError(
            f"CLIP-T needs the package transformers ({error}). Install it with: python -m pip install transformers"
        ) from error
    try:
        models: Any = CLIPModel
        model = models.from_pretrained(name, local_files_only=True).eval().requires_grad_(False)
        return model, CLIPProcessor.from_pretrained(name, local_files_only=True)
    except Exception as error:  # transformers' own kinds, those of the hub and of the file readers
        raise DynamicIDError(
            f"The CLIP model {name} cannot be loaded ({str(error).strip().splitlines()[0]}). Give a folder as on the Hugging "
            "Face hub (config.json, weights, tokenizer and preprocessor), with both towers; nothing is downloaded."
        ) from error
