"""ComfyUI and diffusers give the same picture from the same weights, faces, seed and steps."""

from __future__ import annotations

import pytest
import torch
from standins import pipeline as standins
from studio import SMOOTH, Studio, difference

from dynamicid_core.checkpoints import load_saa
from dynamicid_core.types import Cast, Face, Person, Region, SAAOptions

diffusers = pytest.importorskip("diffusers")

STEPS = 4  # ComfyUI's "normal" schedule then lies on whole timesteps: 999, 666, 333, 0
LATENT_SCALE = 0.18215


@pytest.fixture(scope="module")
def did(studio: Studio):
    """A diffusers pipeline with the UNet of ComfyUI's checkpoint, and the same DynamicID weights."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    from dynamicid_core.hosts.diffusers import DynamicID

    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(320,) * 4, cross_attention_dim=768, attention_head_dim=8
    )
    state = {name: tensor.float() for name, tensor in studio.unet_state().items()}
    unet.load_state_dict(convert_ldm_unet_checkpoint(state, dict(unet.config)))
    pipe = standins.make_pipeline()
    pipe.unet = unet.eval().requires_grad_(False)
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing="leading")
    return DynamicID(pipe, load_saa(studio.host.base / "models" / "dynamicid" / "saa.safetensors"))


def sample(did, studio: Studio, size: tuple[int, int], cfg: float) -> torch.Tensor:
    """What `Studio.sample` does, in diffusers: the same noise, noise levels and text."""
    noise = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(7))
    latents = did.pipe(
        prompt_embeds=studio.positive[0][0].float(), negative_prompt_embeds=studio.negative[0][0].float(),
        latents=noise, sigmas=[*studio.sigmas(STEPS), 0.0], num_inference_steps=STEPS, guidance_scale=cfg,
        height=8 * size[0], width=8 * size[1], output_type="latent",
    ).images  # fmt: skip
    return latents / LATENT_SCALE


def of_the_core(cast) -> Cast:
    """A cast of the pack's copy of the core -> one of the copy under test."""
    return Cast(
        tuple(
            Person(Face(p.face.tokens, p.face.uncond_tokens, p.face.encoder), Region(box=p.region.box), p.weight)
            for p in cast.people
        )
    )


@pytest.mark.parametrize("size, cfg", [((8, 8), 4.0), ((8, 8), 1.0), ((9, 13), 4.0)])
def test_hosts_agree(studio: Studio, did, size, cfg) -> None:
    cast = studio.cast()
    comfy = studio.sample(studio.apply(cast=cast, **SMOOTH), size=size, steps=STEPS, cfg=cfg)
    plain = studio.sample(studio.model, size=size, steps=STEPS, cfg=cfg)
    with did.apply(of_the_core(cast), SAAOptions(**SMOOTH)):
        here = sample(did, studio, size, cfg)
    assert difference(comfy, plain) > 0.1  # there is something to agree about
    assert difference(here, comfy) < 1e-3
    assert difference(sample(did, studio, size, cfg), plain) < 1e-3  # and so do the models without faces


def test_hosts_find_the_same_places(studio: Studio, did) -> None:
    cast = studio.types.Cast(tuple(studio.types.Person(studio.face(number)) for number in range(2)))
    own = Cast(tuple(Person(Face(p.face.tokens, p.face.uncond_tokens, p.face.encoder)) for p in cast.people))
    finding = {**SMOOTH, "placement": "automatic", "find_until": 0.3}
    comfy = studio.sample(studio.apply(cast=cast, **finding), size=(8, 8), steps=STEPS)
    with did.apply(own, SAAOptions(**finding), warn=lambda text: None):
        here = sample(did, studio, (8, 8), 4.0)
    assert difference(here, comfy) < 1e-3
    assert difference(studio.sample(studio.apply(cast=cast, **SMOOTH), size=(8, 8), steps=STEPS), comfy) > 0.01


def test_hosts_agree_on_when_faces_act(studio: Studio, did) -> None:
    when = {**SMOOTH, "start_at": 0.2, "end_at": 0.7, "layout_end": 0.5, "layout_strength": 1.0, "weight": 0.7}
    cast = studio.cast(3)
    comfy = studio.sample(studio.apply(cast=cast, **when), steps=STEPS)
    with did.apply(of_the_core(cast), SAAOptions(**when)):
        here = sample(did, studio, (8, 8), 4.0)
    assert difference(here, comfy) < 1e-3
