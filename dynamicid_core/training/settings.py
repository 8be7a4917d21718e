"""What can be set of a training run, with the published values as defaults (docs/method.md, section 4).

One TOML file holds it (``settings_file`` reads it and writes a template); every value has its range here, and what it
does in one line, which the template shows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..types import DynamicIDError

TRACKERS = ("none", "tensorboard", "wandb")
PRECISIONS = ("auto", "no", "fp16", "bf16")
SCHEDULES = ("constant", "cosine")
DTYPES = ("float16", "bfloat16", "float32")
PORTRAIT_PROMPT = "a portrait photo of a person"


def setting(
    default: Any,
    says: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """A field with what it does, the values that it may have (both ends included), and its default."""
    return dataclasses.field(default=default, metadata={"says": says, "low": low, "high": high, "choices": choices})


def check(settings: Any, section: str = "") -> None:
    """Raise DynamicIDError for a value outside its range, by its name in the file."""
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), f"{section}{field.name}"
        if dataclasses.is_dataclass(value):
            check(value, f"{name}.")
            continue
        low, high, choices = (field.metadata.get(key) for key in ("low", "high", "choices"))
        if choices and value not in choices:
            raise DynamicIDError(f"{name} is {value!r}; choose one of {', '.join(choices)}.")
        if low is not None or high is not None:
            low, high = -float("inf") if low is None else low, float("inf") if high is None else high
            for number in value if isinstance(value, tuple) else (value,):
                if not low <= number <= high:  # also catches NaN
                    raise DynamicIDError(f"{name} is {number}; it must be {_range(low, high)}.")


def _range(low: float, high: float) -> str:
    if high == float("inf"):
        return f"{low} or more"
    return f"{high} or less" if low == -float("inf") else f"from {low} to {high}"


@dataclass(frozen=True)
class BaseSettings:
    """The frozen networks."""

    model: Path | None = setting(None, "base model: a diffusers folder, or a single .safetensors or .ckpt file")
    config: Path | None = setting(None, "for a single file: a diffusers folder with its configuration and tokenizer")
    clip_vision: Path | None = setting(None, "CLIP-ViT-H-14-laion2B-s32B-b79K: a file, or a folder as on the hub")
    text_feature: str = setting(
        "", "text encoder that words expressions: clip_l, clip_h, clip_g; empty: the base's first"
    )
    recogniser: str = setting("", "InsightFace model pack of the identities; empty: the dataset's")
    crop_factor: float = setting(
        0.0, "what CLIP sees: 0 the whole photo, else so many face sizes around the face", low=0, high=100
    )
    dtype: str = setting("float16", "of the frozen networks on an accelerator", choices=DTYPES)


@dataclass(frozen=True)
class ValidationSettings:
    """Pictures on fixed seeds while training goes on."""

    every: int = setting(1000, "steps between validations; 0: none", low=0)
    prompts: tuple[str, ...] = setting((PORTRAIT_PROMPT, "a person reading in a cafe"), "what is drawn of each person")
    seeds: tuple[int, ...] = setting((0, 1), "a picture for each prompt, person and seed", low=0, high=2**53)
    people: int = setting(2, "people of the validation split", low=1)
    steps: int = setting(30, "of the sampler (DDIM)", low=1, high=1000)
    guidance: float = setting(5.0, "classifier-free guidance", low=1, high=50)


@dataclass(frozen=True)
class EditValidationSettings(ValidationSettings):
    """Pictures on fixed seeds while training goes on, of faces with other expressions."""

    prompts: tuple[str, ...] = setting((PORTRAIT_PROMPT,), "what is drawn of each person and expression")
    expressions: tuple[str, ...] = setting(
        ("a very happy expression, front view", "a very surprised expression, front view"), "what faces are edited to"
    )


@dataclass(frozen=True)
class StageSettings:
    """What both stages have."""

    steps: int = setting(100_000, "optimizer steps", low=1)
    batch: int = setting(8, "rows of a batch, on each process", low=1)
    accumulation: int = setting(1, "batches to an optimizer step", low=1)
    size: int = setting(512, "side of the training pictures in px, a multiple of 8", low=16, high=4096)
    learning_rate: float = setting(1e-4, "AdamW's", low=0, high=1)
    weight_decay: float = setting(1e-2, "AdamW's", low=0, high=1)
    warmup: int = setting(0, "steps in which the learning rate rises from 0", low=0)
    schedule: str = setting(
        "constant", "of the learning rate after that: constant, or cosine (falling to 0)", choices=SCHEDULES
    )
    max_gradient_norm: float = setting(1.0, "gradients are scaled down to this norm; 0: never", low=0)
    ema_decay: float = setting(
        0.0, "of the averaged weights, which are then what is saved; 0: no average", low=0, high=0.999999
    )
    mixed_precision: str = setting("auto", "auto: bf16 or fp16 on an accelerator, no on the CPU", choices=PRECISIONS)
    gradient_checkpointing: bool = setting(False, "less memory, about a third more time")
    workers: int = setting(2, "processes that read batches ahead; 0: none", low=0, high=64)
    log_every: int = setting(10, "steps between logged losses", low=1)
    save_every: int = setting(1000, "steps between checkpoints", low=1)
    keep: int = setting(3, "checkpoints that stay, the newest ones; 0: all", low=0)
    tracker: str = setting("none", "where losses and pictures go", choices=TRACKERS)
    gate_threshold: float = setting(
        0.3, "activations below it count as 0, as in pictures that are made later (published: 0.3)", low=0, high=1
    )
    validation: ValidationSettings = ValidationSettings()


@dataclass(frozen=True)
class AnchorSettings(StageSettings):
    """Stage 1, anchoring: face encoder and SAA."""

    rank: int = setting(128, "of the LoRA", low=1, high=1024)
    drop_face: float = setting(0.05, "share of rows without a face (null tokens)", low=0, high=1)
    drop_text: float = setting(0.05, "share of rows without a text (empty prompt)", low=0, high=1)
    drop_both: float = setting(0.05, "share of rows without both", low=0, high=1)
    min_snr_gamma: float = setting(
        0.0, "weights of the loss by noise level (Hang et al. 2023); 5 is usual, 0: none", low=0
    )
    face_weight: float = setting(
        1.0, "of the loss in the box of the face, against elsewhere; 1: all places alike (published)", low=1, high=100
    )
    initial: Path | None = setting(None, "SAA checkpoint to go on from, e.g. the published one; empty: from the base")


@dataclass(frozen=True)
class ReconfigureSettings(StageSettings):
    """Stage 2, reconfiguration: IMR and key point encoder."""

    steps: int = setting(50_000, "optimizer steps", low=1)
    batch: int = setting(4, "sources of a batch, on each process", low=1)
    saa: Path | None = setting(None, "SAA checkpoint of the frozen face encoder; empty: the newest of `train anchor`")
    targets: int = setting(2, "target photos to a source (k)", low=1, high=64)
    kdef_share: float = setting(0.05, "share of batches from the collection kdef, if there is one", low=0, high=1)
    keep_landmarks: float = setting(
        0.0, "share of targets that come with the source's landmarks, as edits by words alone do", low=0, high=1
    )
    depth: int = setting(1, "layers of each of the IMR's two networks", low=1, high=24)
    dfm_weight: float = setting(1.0, "of the loss between face tokens (L_DFM)", low=0)
    ldc_weight: float = setting(1.0, "of the loss between predicted noises (L_LDC); 0: the UNet does not run", low=0)
    prompt: str = setting(PORTRAIT_PROMPT, "the fixed prompt of L_LDC")
    initial: Path | None = setting(None, "IMR checkpoint to go on from; empty: from random weights")
    validation: EditValidationSettings = EditValidationSettings()


@dataclass(frozen=True)
class Settings:
    """A training run."""

    dataset: Path | None = setting(None, "folder that `dataset build` made")
    cache: Path | None = setting(None, "folder for the cache; empty: `cache` in the dataset's folder")
    output: Path = setting(Path("dynamicid-training"), "folder for checkpoints, states, logs and validation pictures")
    seed: int = setting(0, "of everything random", low=0, high=2**53)
    cache_dtype: str = setting("float16", "of cached tensors", choices=DTYPES)
    base: BaseSettings = BaseSettings()
    anchor: AnchorSettings = AnchorSettings()
    reconfigure: ReconfigureSettings = ReconfigureSettings()

    def __post_init__(self) -> None:
        check(self)
        for name in ("anchor", "reconfigure"):
            if (size := getattr(self, name).size) % 8:
                raise DynamicIDError(f"{name}.size is {size}; it must be a multiple of 8.")
        dropped = self.anchor.drop_face + self.anchor.drop_text + self.anchor.drop_both
        if dropped > 1:
            raise DynamicIDError(
                f"anchor.drop_face, drop_text and drop_both add up to {dropped:g}; at most 1 is possible."
            )

    def need_dataset(self) -> Path:
        """The dataset's folder, or an error that says how to name it."""
        if self.dataset is None:
            raise DynamicIDError("No dataset is named. Set `dataset` in the configuration, or give --dataset.")
        return self.dataset

    @property
    def cache_folder(self) -> Path:
        return self.cache or self.need_dataset() / "cache"
