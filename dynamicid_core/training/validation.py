"""Pictures while training goes on: people of the validation split, always the same prompts and seeds.

They are drawn as a user draws them, by a diffusers pipeline with ``hosts.diffusers.DynamicID`` on it, so what is seen here is
what the checkpoint of that step gives. Prompts, faces and features come from the cache: only UNet and VAE run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ..captions import caption_font, draw_caption
from ..checkpoints import MotionCheckpoint, SAACheckpoint
from ..datasets.manifest import Manifest, Photo
from ..hosts.diffusers import DynamicID
from ..hosts.diffusers.photos import FloatNetwork
from ..motion import edit_motion
from ..types import Cast, Face, Person, SAAOptions
from .cache import Cache
from .settings import EditValidationSettings, ValidationSettings
from .texts import source_text

INK = (255, 255, 255)


@dataclass(frozen=True, eq=False)
class Prompt:
    """One prompt as the UNet reads it, with the empty one beside it."""

    text: str
    states: Tensor  # [1, S, W]
    negative: Tensor  # [1, S, W]: of the empty prompt
    pooled: Tensor | None = None  # [1, W2]: SDXL's
    negative_pooled: Tensor | None = None

    @classmethod
    def of(cls, cache: Cache, text: str) -> Prompt:
        """Raises DynamicIDError if the cache lacks it."""
        said, empty = ({k: v[None].float() for k, v in cache.text(words).items()} for words in (text, ""))
        return cls(text, said["states"], empty["states"], said.get("pooled"), empty.get("pooled"))

    def arguments(self) -> dict[str, Tensor]:
        """As a diffusers pipeline takes them."""
        given = {"prompt_embeds": self.states, "negative_prompt_embeds": self.negative}
        if self.pooled is not None and self.negative_pooled is not None:
            given |= {"pooled_prompt_embeds": self.pooled, "negative_pooled_prompt_embeds": self.negative_pooled}
        return given


@dataclass(frozen=True, eq=False)
class Shown:
    """A person of the validation pictures."""

    photo: Photo
    identity: Tensor  # [512]
    landmarks: Tensor | None  # [106, 2]
    picture: Image.Image | None  # the photo, for the sheet

    @property
    def caption(self) -> str:
        """The person's name, and what one should know of the pictures beside it."""
        return self.photo.person if self.photo.split == "validation" else f"{self.photo.person} (trained on)"


def people_to_show(manifest: Manifest, cache: Cache, count: int) -> list[Shown]:
    """The first photos of ``count`` people of the validation split; of the training split where that has nobody."""
    people = manifest.people("validation") or manifest.people("train")
    photos = [next((p for p in mine if p.identity is not None), mine[0]) for mine in list(people.values())[:count]]
    rows = cache.photos({photo.person: [photo] for photo in photos}, ("measures",)).rows["measures"]
    measures = cache.parts["measures"].read(rows)
    shown = []
    for photo, identity, landmarks in zip(photos, measures["identity"], measures["landmarks"], strict=True):
        points = landmarks.float() if bool(torch.isfinite(landmarks).all()) else None
        picture = Image.fromarray(manifest.open(photo)) if photo.path and manifest.folder else None
        shown.append(Shown(photo, identity.float(), points, picture))
    return shown


def of_photos(cache: Cache, shown: Sequence[Shown], kind: str) -> Tensor:
    """A column of the cache for these people's photos: ``clip`` or ``tokens``, in float32."""
    rows = cache.photos({one.photo.person: [one.photo] for one in shown}, (kind,)).rows[kind]
    return cache.parts[kind].read(rows)[kind].float()


class Sampler:
    """A pipeline that draws faces with the UNet that is trained, which afterwards is as it was."""

    def __init__(self, pipe: Any, unet: nn.Module, size: int, settings: ValidationSettings):
        """``pipe``: whose VAE and scheduler are used; ``unet``: the one that is trained; ``size``: of pictures in px."""
        from diffusers import DDIMScheduler

        kind: Any = DDIMScheduler
        scheduler = kind.from_config(pipe.scheduler.config)
        # Prompts come as states, so no text encoder is needed.
        absent = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "safety_checker")
        parts = {**pipe.components, "unet": unet, "scheduler": scheduler}
        given = {name: None if name in absent else part for name, part in parts.items()}
        unchecked = {"requires_safety_checker": False} if "safety_checker" in parts else {}
        self.pipe = type(pipe)(**given, **unchecked)
        self.pipe.set_progress_bar_config(disable=True)
        self.size, self.settings = size, settings

    def draw(self, did: DynamicID, face: Face, prompt: Prompt, seed: int, options: SAAOptions) -> Image.Image:
        """One picture of one person."""
        unet, vae = self.pipe.unet, self.pipe.vae
        given = {name: tensor.to(unet.device, unet.dtype) for name, tensor in prompt.arguments().items()}
        home = vae.device
        vae.to(unet.device)
        try:
            with torch.no_grad(), did.apply(Cast((Person(face),)), options):
                latents = self.pipe(
                    **given,
                    height=self.size,
                    width=self.size,
                    num_inference_steps=self.settings.steps,
                    guidance_scale=self.settings.guidance,
                    generator=torch.Generator().manual_seed(seed),
                    output_type="latent",
                ).images
                pixels = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
        finally:
            vae.to(home)
        picture: Image.Image = self.pipe.image_processor.postprocess(pixels.float())[0]
        return picture


def _face(saa: SAACheckpoint, shown: Shown, tokens: Tensor, null: Tensor, **known: Any) -> Face:
    return Face(tokens, null, saa.encoder_hash, name=shown.photo.person, recogniser=saa.origin.recogniser, **known)


def anchor_sheet(sampler: Sampler, saa: SAACheckpoint, shown: Sequence[Shown], clip: Tensor, null_clip: Tensor,
                 prompts: Sequence[Prompt]) -> Image.Image:  # fmt: skip
    """A row for each person: the photo, then a picture for each prompt and seed.

    ``clip`` [K, L, Wc] of the people's photos, ``null_clip`` [L, Wc] of the null photo.
    """
    encoder = FloatNetwork(saa.face_encoder)
    identities = torch.stack([one.identity for one in shown])
    tokens = encoder(identities, clip)  # [K, T, 768]
    null = encoder(torch.zeros_like(identities[:1]), null_clip[None])
    did = DynamicID(sampler.pipe, saa)
    rows = []
    for one, own in zip(shown, tokens, strict=True):
        face = _face(saa, one, own[None], null)
        drawn = [
            (f"{prompt.text} ({seed})", sampler.draw(did, face, prompt, seed, SAAOptions()))
            for prompt in prompts
            for seed in sampler.settings.seeds
        ]
        rows.append([(one.caption, one.picture), *drawn])
    return sheet(rows, sampler.size)


def edit_sheet(sampler: Sampler, saa: SAACheckpoint, motion: MotionCheckpoint, shown: Sequence[Shown], tokens: Tensor,
               null: Tensor, cache: Cache, prompts: Sequence[Prompt]) -> Image.Image:  # fmt: skip
    """A row for each person: the photo, the face as it is, and as each expression makes it, for each prompt and seed.

    ``tokens`` [K, T, 768] of the people's photos, ``null`` [T, 768]. The UNet has the LoRA in its weights already.
    """
    assert isinstance(sampler.settings, EditValidationSettings)
    expressions = sampler.settings.expressions
    did, options = DynamicID(sampler.pipe, saa, motion), SAAOptions(lora_strength=0.0)
    target = torch.stack([cache.feature(words) for words in expressions])
    rows = []
    for one, own in zip(shown, tokens, strict=True):
        if one.landmarks is None:
            continue
        face = _face(saa, one, own[None], null[None], landmarks=one.landmarks)
        source = cache.feature(source_text(one.photo))[None]
        edited = [face, *edit_motion(face, motion, source, target)]
        drawn = [
            (f"{words} ({seed})", sampler.draw(did, who, prompt, seed, options))
            for prompt in prompts
            for words, who in zip(("as it is", *expressions), edited, strict=True)
            for seed in sampler.settings.seeds
        ]
        rows.append([(one.caption, one.picture), *drawn])
    return sheet(rows, sampler.size)


def sheet(rows: Sequence[Sequence[tuple[str, Image.Image | None]]], size: int) -> Image.Image:
    """Pictures with captions, in rows, each ``size`` px wide and high."""
    made = Image.new("RGB", (size * max(map(len, rows), default=1), size * max(1, len(rows))), (40, 40, 40))
    font = caption_font(size, size)
    for y, row in enumerate(rows):
        for x, (caption, picture) in enumerate(row):
            tile = Image.new("RGB", (size, size), (40, 40, 40)) if picture is None else picture.convert("RGB")
            tile = tile.resize((size, size), Image.Resampling.LANCZOS)
            draw_caption(tile, [caption], 2, 2, INK, font)
            made.paste(tile, (x * size, y * size))
    return made
