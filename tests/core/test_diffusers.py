"""DynamicID on diffusers: the published values through a whole UNet, and everything that a pipeline may do."""

from __future__ import annotations

import copy
import dataclasses
import gc
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import recipe
import torch
from standins import pipeline as standins
from standins.dynamicid import saa
from standins.portraits import draw_portrait
from standins.weights import tensors
from test_attention import CASES

from dynamicid_core.casting import Places
from dynamicid_core.checkpoints import load_saa
from dynamicid_core.face_files import save_face
from dynamicid_core.gate_maps import GateRecorder
from dynamicid_core.networks.saa import SAAModule, SiteSizes
from dynamicid_core.pictures import clip_pixels
from dynamicid_core.regions import halvings
from dynamicid_core.saving import write_safetensors
from dynamicid_core.types import Cast, DynamicIDError, Face, Person, Region, SAAOptions

diffusers = pytest.importorskip("diffusers")
host = pytest.importorskip("dynamicid_core.hosts.diffusers")
attach = pytest.importorskip("dynamicid_core.hosts.diffusers.unet").attach


def face(name: str, tokens: int = 4) -> Face:
    return Face(
        recipe.tensor(name, (1, tokens, 768)), recipe.tensor(f"{name}/null", (1, tokens, 768)), "test", name=name
    )


def two_people() -> Cast:
    left, right = Region(box=(0.0, 0.0, 1.0, 0.5)), Region(box=(0.0, 0.5, 1.0, 1.0))
    return Cast((Person(face("anna"), left), Person(face("ben"), right, weight=0.8)))


# --- the published values -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full_unet():
    """The UNet of SD1.5 with the recipe's weights; 3.4 GB, so it is gone after these tests."""
    torch.set_num_threads(2)
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    unet.load_state_dict({k[5:]: v for k, v in recipe.state_dict(unet, "unet.").items()}, assign=True)
    yield unet.eval().requires_grad_(False)
    del unet
    gc.collect()
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def published_saa():
    widths = (320, 320, 640, 640, 1280, 1280, *(1280,) * 3, *(640,) * 3, *(320,) * 3, 1280)
    with torch.device("meta"):
        module = SAAModule(tuple(SiteSizes(w, 128, context) for w in widths for context in (None, 768)))
    module.load_state_dict({k[11:]: v for k, v in recipe.state_dict(module, "SAA_module.").items()}, assign=True)
    return module.requires_grad_(False)


def published_cast(people: int, boxes) -> Cast:
    tokens = recipe.tensor("id_tokens", (2, 4 * people, 768))
    return Cast(
        tuple(
            Person(Face(tokens[1:, 4 * i : 4 * i + 4], tokens[:1, 4 * i : 4 * i + 4], "test"), Region(box=box))
            for i, box in enumerate(boxes)
        )
    )


def predict(unet) -> torch.Tensor:
    latent, text = recipe.tensor("latent32x32", (2, 4, 32, 32)), recipe.tensor("text", (2, 77, 768))
    with torch.no_grad():
        return unet(latent, torch.tensor(501), encoder_hidden_states=text).sample


@pytest.mark.parametrize("name, lora", [("single", "fused"), ("pair", "fused"), ("pair", "apart")])
def test_published_values_of_the_whole_unet(full_unet, published_saa, name, lora):
    _, _, boxes, strength, _, _ = CASES[name]
    # The reference has the boost on at timestep 501, the middle of the schedule.
    options = SAAOptions(layout_strength=strength, layout_end=0.6)
    fused = host.FusedLoRA(full_unet, published_saa, 1.0) if lora == "fused" else None
    cast = published_cast(len(boxes), boxes)
    attached = host.attach(full_unet, published_saa, cast, options, guided=lambda: True, lora=lora)
    out = predict(full_unet)
    attached.remove()
    if fused:
        fused.remove()
    torch.testing.assert_close(out, recipe.reference("unet")[name], atol=2e-4, rtol=0)


def test_published_values_without_faces(full_unet):
    """After the tests above: what they left behind is the plain UNet."""
    torch.testing.assert_close(predict(full_unet), recipe.reference("unet")["base_32x32"], atol=2e-4, rtol=0)


# --- a small pipeline ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    """A pipeline with stand-in weights and what belongs to it."""
    return host.DynamicID(standins.make_pipeline(), load_saa(standins.saa_tensors()))


@pytest.fixture
def did(small):
    """The small pipeline, with its own scheduler and without faces before and after each test."""
    scheduler = small.pipe.scheduler
    yield small
    small.remove()
    small.pipe.scheduler = scheduler
    assert {type(p).__name__ for p in small.pipe.unet.attn_processors.values()} == {"AttnProcessor2_0"}


def sample(pipe, prompt="two people", steps=3, cfg=5.0, size=(64, 64), seed=1, **more) -> torch.Tensor:
    """Latents [B, 4, h, w] of one run."""
    height, width = size
    return pipe(
        prompt, height=height, width=width, num_inference_steps=steps, guidance_scale=cfg, output_type="latent",
        generator=torch.Generator().manual_seed(seed), **more,
    ).images  # fmt: skip


def test_faces_act_and_removal_restores_every_bit(did):
    before = {k: v.clone() for k, v in did.pipe.unet.state_dict().items()}
    processors = did.pipe.unet.attn_processors
    plain = sample(did.pipe)
    with did.apply(two_people()):
        first, second = sample(did.pipe), sample(did.pipe)
        assert {type(p) for p in did.pipe.unet.attn_processors.values()} == {host.FaceProcessor}
        assert before.keys() == did.pipe.unet.state_dict().keys()  # faces are no part of a saved UNet
    assert torch.equal(first, second)
    assert not torch.allclose(first, plain, atol=1e-2)
    assert all(torch.equal(before[k], v) for k, v in did.pipe.unet.state_dict().items())
    assert did.pipe.unet.attn_processors == processors
    assert torch.equal(sample(did.pipe), plain)


def test_a_person_acts_where_its_region_is(did):
    """At the first cross attention, another weight for the person on the right changes the right half alone."""
    anna, ben = two_people().people
    seen = []
    layer = did.pipe.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    handle = layer.register_forward_hook(lambda module, args, out: seen.append(out.unflatten(1, (8, 8))))
    for weight in (1.0, 2.0):
        did.apply(Cast((anna, Person(ben.face, ben.region, weight))))
        sample(did.pipe, steps=1)
    handle.remove()
    changed = (seen[0] - seen[1]).abs().amax(-1)  # [2, h, w]
    assert (changed[:, :, :4] == 0).all()
    assert (changed[:, :, 4:] > 0).float().mean() > 0.5


@pytest.mark.parametrize("kind", ["img2img", "inpaint", "controlnet"])
def test_other_pipelines_of_the_same_unet(did, kind):
    """Image to image, inpainting and ControlNet: faces act, and afterwards the pipeline is what it was."""
    from diffusers import (
        ControlNetModel,
        StableDiffusionControlNetPipeline,
        StableDiffusionImg2ImgPipeline,
        StableDiffusionInpaintPipeline,
    )

    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    classes = {"img2img": StableDiffusionImg2ImgPipeline, "inpaint": StableDiffusionInpaintPipeline}
    given = {"image": picture}
    if kind == "controlnet":
        controlnet = ControlNetModel.from_unet(did.pipe.unet)
        pipe = StableDiffusionControlNetPipeline.from_pipe(did.pipe, controlnet=controlnet)
    else:
        pipe = classes[kind].from_pipe(did.pipe)
        given["strength"] = 0.8
    if kind == "inpaint":
        given["mask_image"] = torch.ones(1, 1, 64, 64)

    def run():
        generator = torch.Generator().manual_seed(2)
        return pipe("two people", num_inference_steps=4, output_type="latent", generator=generator, **given).images

    plain, other = run(), host.DynamicID(pipe, did.saa)
    with other.apply(two_people()):
        faces = run()
    assert torch.isfinite(faces).all()
    assert not torch.allclose(faces, plain, atol=1e-2)
    assert torch.equal(run(), plain)


def test_casts_replace_one_another_without_traces(did):
    first = sample(did.apply(two_people()).pipe)
    weights = next(iter(did._fused._originals))[0]
    address, fused = weights.data_ptr(), weights.clone()
    sample(did.apply(Cast((Person(face("dora")),))).pipe)
    assert weights.data_ptr() == address and torch.equal(weights, fused)  # the LoRA stays in
    assert torch.equal(sample(did.apply(two_people()).pipe), first)
    assert not torch.equal(sample(did.apply(two_people(), SAAOptions(lora_strength=0.5)).pipe), first)
    assert torch.equal(sample(did.apply(two_people()).pipe), first)


def test_lora_apart_equals_lora_fused(did):
    fused = sample(did.apply(two_people()).pipe)
    weights = {k: v.clone() for k, v in did.pipe.unet.state_dict().items()}
    did.remove()
    apart = sample(did.apply(two_people(), lora="apart").pipe)
    torch.testing.assert_close(apart, fused, atol=5e-3, rtol=0)
    unchanged = did.pipe.unet.state_dict()
    changed = [k for k, v in weights.items() if not torch.equal(unchanged[k], v)]
    assert len(changed) == 128 and all("attn" in k for k in changed)


def test_a_weight_of_zero_leaves_the_lora_alone(did):
    nobody = sample(did.apply(two_people(), SAAOptions(weight=0.0)).pipe)
    did.remove()
    fused = host.FusedLoRA(did.pipe.unet, did.saa.saa, 1.0)
    torch.testing.assert_close(nobody, sample(did.pipe), atol=1e-4, rtol=0)
    fused.remove()


SCHEDULERS = {
    "ddim": ("DDIMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "dpm++ 2m": ("DPMSolverMultistepScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "kdpm2 ancestral": ("KDPM2AncestralDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers(did, name):
    kind, settings = SCHEDULERS[name]
    did.pipe.scheduler = getattr(diffusers, kind).from_config(did.pipe.scheduler.config, **settings)
    plain = sample(did.pipe, steps=4)
    first = sample(did.apply(two_people()).pipe, steps=4)
    assert torch.isfinite(first).all()
    assert not torch.allclose(first, plain, atol=1e-2)
    assert torch.equal(sample(did.pipe, steps=4), first)


def steps_of(did, options, steps=50, **settings):
    """The steps of a run, as (timestep, whether the boost acts, strength), from the UNet's real calls.

    Inside a person's region the gate is scaled by the strength, and shifted under the boost alone.
    """
    calls = []
    did.apply(two_people(), options)
    hook = did._attachment.hook
    original = hook.step

    def spy(latent, timestep):
        step = original(latent, timestep)
        (scale, shift), *_ = (grid.gate[0] for grid in step.call.grids.values())
        calls.append((float(timestep), float(shift.max() > 0), float(scale.max())))
        return step

    hook.step = spy
    sample(did.pipe, steps=steps, **settings)
    return calls


def test_published_layout_boost_lasts_twelve_of_fifty_ddim_steps(did):
    did.apply(two_people(), guided=False)
    for spacing in ("leading", "trailing", "linspace"):
        scheduler = diffusers.DDIMScheduler.from_config(did.pipe.scheduler.config, timestep_spacing=spacing)
        scheduler.set_timesteps(50)
        latent = torch.zeros(1, 4, 2, 2)
        boosts = [did._attachment.hook.step(latent, time).call.boost.item() for time in scheduler.timesteps]
        assert boosts == [1.0] * 12 + [0.0] * 38, spacing


def test_boost_follows_the_timestep_not_the_count_of_calls(did):
    """Heun calls the UNet twice a step, at one timestep."""
    did.pipe.scheduler = diffusers.HeunDiscreteScheduler.from_config(did.pipe.scheduler.config)
    calls = steps_of(did, SAAOptions(layout_end=0.5), steps=6, size=(16, 16))
    assert len(calls) == 11
    assert all(boost == (time > 499.5) for time, boost, _ in calls)
    assert {boost for _, boost, _ in calls} == {0.0, 1.0}


def test_faces_act_between_start_and_end(did):
    calls = steps_of(did, SAAOptions(start_at=0.2, end_at=0.6, weight=0.7), steps=20, size=(16, 16))
    for time, _, strength in calls:
        assert strength == pytest.approx(0.7 if 0.4 * 999 <= time <= 0.8 * 999 else 0.0)
    assert len({strength for _, _, strength in calls}) == 2


def test_each_call_of_the_pipeline_finds_places_of_its_own(did):
    people, finding = (
        Cast((Person(face("anna")), Person(face("ben")))),
        SAAOptions(placement="automatic", find_until=0.3),
    )
    did.apply(people, finding, warn=lambda text: None)
    first, other, again = (sample(did.pipe, steps=4, seed=seed, size=(64, 96)) for seed in (1, 2, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    did.apply(people, finding, warn=lambda text: None)
    torch.testing.assert_close(sample(did.pipe, steps=4, seed=2, size=(64, 96)), other, atol=0, rtol=0)
    did.apply(people)
    assert not torch.equal(sample(did.pipe, steps=4, seed=1, size=(64, 96)), first)


def test_people_without_a_place_become_a_warning(did):
    everywhere = Region(box=(0.0, 0.0, 1.0, 1.0))
    did.apply(Cast((Person(face("anna"), everywhere), Person(face("ben")))), SAAOptions(placement="automatic"))
    with pytest.warns(UserWarning, match="No place was found for ben"):
        sample(did.pipe, steps=4)


def test_without_guidance_all_rows_see_faces(did):
    """The row that is conditional under guidance and a row without guidance are predicted alike."""
    unet, embeds = did.pipe.unet, torch.randn(2, 77, 768, generator=torch.Generator().manual_seed(3))
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        did.apply(two_people(), guided=True)
        both = unet(latent.expand(2, -1, -1, -1), 700, encoder_hidden_states=embeds).sample
        did.apply(two_people(), guided=False)
        alone = unet(latent, 700, encoder_hidden_states=embeds[1:]).sample
        wrong = unet(latent, 700, encoder_hidden_states=embeds[:1]).sample
    torch.testing.assert_close(alone, both[1:], atol=1e-5, rtol=0)
    assert not torch.allclose(wrong, both[:1], atol=1e-3)  # that row saw null tokens
    assert torch.isfinite(sample(did.apply(two_people()).pipe, cfg=1.0)).all()


def test_odd_rows_under_guidance_are_refused(did):
    did.apply(two_people(), guided=True)
    with pytest.raises(DynamicIDError, match="3 rows"):
        did.pipe.unet(torch.zeros(3, 4, 8, 8), 500, encoder_hidden_states=torch.zeros(3, 77, 768))


def test_several_pictures_are_each_as_if_alone(did):
    did.apply(two_people())
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    latents = torch.cat([torch.randn(1, 4, 8, 8, generator=g) for g in generators])
    alone = torch.cat([sample(did.pipe, latents=latent[None]) for latent in latents])
    together = sample(did.pipe, num_images_per_prompt=2, latents=latents)
    prompts = sample(did.pipe, prompt=["two people", "two people"], latents=latents)
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(prompts, alone, atol=1e-3, rtol=1e-3)


def test_masks_with_frames_give_each_picture_its_own_regions(did):
    left, right = torch.zeros(2, 1, 8, 8).unbind()
    left[:, :, :4], right[:, :, 4:] = 1, 1
    frames, swapped = torch.cat((left, right)), torch.cat((right, left))
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7)).expand(2, -1, -1, -1)

    def run(one, two, latents):
        cast = Cast((Person(face("anna"), Region(mask=one)), Person(face("ben"), Region(mask=two))))
        return sample(did.apply(cast).pipe, num_images_per_prompt=len(latents), latents=latents.clone())

    together = run(frames, swapped, latents)
    torch.testing.assert_close(together[:1], run(left, right, latents[:1]), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(together[1:], run(right, left, latents[:1]), atol=1e-3, rtol=1e-3)


def films() -> Cast:
    """Two people whose faces change from picture to picture, one of them for a shorter time."""
    left, right = two_people().people
    faces = [
        dataclasses.replace(person.face, tokens=recipe.tensor(f"{person.face.name}/film", (frames, 4, 768)))
        for person, frames in ((left, 3), (right, 2))
    ]
    return Cast((dataclasses.replace(left, face=faces[0]), dataclasses.replace(right, face=faces[1])))


@pytest.mark.parametrize("cfg", [5.0, 1.0], ids=["guided", "unguided"])
def test_faces_that_move_show_each_picture_of_a_batch_its_frame(did, cfg):
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7)).expand(4, -1, -1, -1)
    film = sample(did.apply(films()).pipe, num_images_per_prompt=4, latents=latents.clone(), cfg=cfg)
    for frame in range(4):
        alone = sample(did.apply(films().at(frame)).pipe, latents=latents[:1].clone(), cfg=cfg)
        torch.testing.assert_close(film[frame : frame + 1], alone, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(film[0], film[1], atol=1e-2)
    torch.testing.assert_close(film[2], film[3], atol=1e-3, rtol=1e-3)  # the last frame stays


@pytest.fixture(scope="module")
def video(small):
    """A pipeline for videos of the same networks, whose motion module leaves frames alone until it is told otherwise."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapter = diffusers.MotionAdapter(
            block_out_channels=standins.WIDTHS,
            motion_num_attention_heads=4,
            motion_norm_num_groups=8,
            motion_max_seq_length=8,
        )
    for name, parameter in adapter.named_parameters():
        if ".proj_out." in name:
            torch.nn.init.zeros_(parameter)
    pipe = diffusers.AnimateDiffPipeline.from_pipe(small.pipe, motion_adapter=adapter)
    pipe.set_progress_bar_config(disable=True)
    return host.DynamicID(pipe, small.saa)


def test_a_video_pipeline_gives_each_frame_its_faces(did, video):
    noise = torch.randn(1, 4, 1, 8, 8, generator=torch.Generator().manual_seed(7)).expand(-1, -1, 3, -1, -1)
    how = {"num_inference_steps": 2, "guidance_scale": 5.0, "height": 64, "width": 64, "output_type": "latent"}

    def film():
        return video.pipe("two people", num_frames=3, latents=noise.clone(), **how).frames

    before = video.pipe.unet.attn_processors
    plain = film()
    with video.apply(films()):
        made = film()  # [1, 4, F, h, w]
    assert video.pipe.unet.attn_processors == before and torch.equal(film(), plain)
    for frame in range(3):
        alone = sample(did.apply(films().at(frame)).pipe, steps=2, latents=noise[:, :, 0].clone())
        torch.testing.assert_close(made[:, :, frame], alone, atol=1e-3, rtol=1e-3)
    assert (made[:, :, 0] - made[:, :, 2]).abs().max() > 0.1  # so it is that frame's face, not another's


def test_rows_of_several_videos_are_their_frames_one_video_after_another(did):
    attached = attach(did.pipe.unet, did.saa.saa, films(), guided=lambda: True)
    try:
        step = attached.hook.step(torch.zeros(4, 4, 3, 8, 8), torch.tensor([9, 9, 500, 500]))
        assert [row.frame for row in step.call.rows] == [0, 1, 2] * 4
        assert step.looks.tolist() == [0] * 6 + [1, 2, 3] * 2
        assert step.call.levels.tolist() == [9] * 6 + [500] * 6
    finally:
        attached.remove()


def test_a_motion_module_works_beside_faces_that_move(video):
    modules = [block for name, block in video.pipe.unet.named_modules() if name.endswith(".motion_modules.0")]
    assert modules
    noise = torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(7))

    def film():
        return video.pipe(
            "two people",
            num_frames=3,
            latents=noise.clone(),
            num_inference_steps=2,
            height=64,
            width=64,
            output_type="latent",
        ).frames

    with video.apply(films()):
        apart = film()
        try:
            for module in modules:
                torch.nn.init.eye_(module.proj_out.weight)
            together = film()
        finally:
            for module in modules:
                torch.nn.init.zeros_(module.proj_out.weight)
    assert torch.isfinite(together).all() and not torch.allclose(together, apart, atol=1e-2)


def test_masks_of_another_shape_than_the_picture_are_said_once(did):
    """A crop of the picture, as an inpainting of a part samples it, would get the whole picture's regions."""
    left = torch.zeros(1, 8, 8)
    left[:, :, :4] = 1
    cast = Cast((Person(face("anna"), Region(mask=left)), Person(face("ben"), Region(mask=1 - left))))
    applied = did.apply(cast)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample(applied.pipe, size=(96, 96), steps=1)
    with pytest.warns(
        UserWarning, match="2 people have places in a picture of 8 x 8, and what is sampled has 128 x 64 px"
    ) as said:
        sample(applied.pipe, size=(64, 128), steps=2)
    assert len(said) == 1


def test_a_tile_of_the_picture_has_its_part_of_the_regions_and_no_warning(did):
    left = torch.zeros(1, 8, 8)
    left[:, :, :4] = 1
    cast = Cast((Person(face("anna"), Region(mask=left)), Person(face("ben"), Region(mask=1 - left))))
    hook = did.apply(cast, part=(0.25, 0.5, 1, 1))._attachment.hook
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bias = hook.step(torch.zeros(2, 4, 12, 8), 500).call.grid(12, 8, torch.empty(0)).bias
    visible = bias[0, 0, :, ::4].exp()  # [N, P]
    assert (visible[:, 0] == 0).all() and (visible[:, 1] == 1).all()
    with pytest.raises(DynamicIDError, match="is no part of a picture"):
        did.apply(cast, part=(0, 0, 1, 1.5))


@pytest.mark.parametrize("size", [(264, 200), (8, 8), (8, 72), (136, 24)])
def test_any_size_in_steps_of_8_px(did, size):
    out = sample(did.apply(two_people()).pipe, size=size, steps=2)
    assert out.shape[-2:] == (size[0] // 8, size[1] // 8) and torch.isfinite(out).all()


def test_halvings_are_the_unets_own_sizes():
    """What the convolutions with stride 2 make of any size; equal numbers of cells mean equal sizes."""
    for height in range(1, 40):
        for width in (1, 2, 3, 7, 33, 64):
            sizes = halvings(height, width, 4)
            x = torch.zeros(1, 1, height, width)
            for size in sizes:
                assert tuple(x.shape[-2:]) == size
                x = torch.nn.functional.conv2d(x, torch.zeros(1, 1, 3, 3), stride=2, padding=1)
            assert len({h * w for h, w in sizes}) == len(set(sizes))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(did, dtype):
    pipe = copy.deepcopy(did.pipe).to(dtype)
    half = host.DynamicID(pipe, did.saa)
    before = {k: v.clone() for k, v in pipe.unet.state_dict().items()}
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(8))
    out = sample(half.apply(two_people()).pipe, steps=2, latents=latents.to(dtype))
    assert out.dtype == dtype and torch.isfinite(out).all()
    full = sample(did.apply(two_people()).pipe, steps=2, latents=latents)
    # 8 bits of bfloat16, through 32 attentions twice; processors with matrix units sum in another order (0.051 seen)
    assert (out - full).abs().mean() < {torch.float16: 0.05, torch.bfloat16: 0.08}[dtype] * full.abs().mean()
    half.remove()
    assert all(torch.equal(before[k], v) for k, v in pipe.unet.state_dict().items())


def test_faces_follow_the_unet_to_another_dtype(did):
    pipe = copy.deepcopy(did.pipe)
    moved = host.DynamicID(pipe, did.saa).apply(two_people())
    assert torch.isfinite(sample(moved.pipe.to(torch.bfloat16))).all()


def test_autocast(did):
    did.apply(two_people())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(sample(did.pipe, steps=2)).all()


def test_model_offload_before_and_after(did):
    """accelerate's hooks on the CPU: what they move and wrap is what they do on a GPU."""
    expected = sample(did.apply(two_people()).pipe)
    did.remove()
    from accelerate import cpu_offload_with_hook

    for order in ("offload first", "apply first"):
        pipe = copy.deepcopy(did.pipe)
        other = host.DynamicID(pipe, did.saa)
        if order == "apply first":
            other.apply(two_people())
        cpu_offload_with_hook(pipe.unet, torch.device("cpu"))
        torch.testing.assert_close(sample(other.apply(two_people()).pipe), expected, atol=1e-5, rtol=0)
        other.remove()


# --- gate maps ----------------------------------------------------------------------------------------------------


def test_recording_shows_who_acts_where_and_changes_nothing(did):
    expected = sample(did.apply(two_people()).pipe, num_images_per_prompt=2)
    recorder = GateRecorder()
    recorded = sample(did.apply(two_people(), recorder=recorder).pipe, num_images_per_prompt=2)
    assert torch.equal(recorded, expected)
    maps = recorder.maps(32, 32)
    assert maps.shape == (2, 3, 32, 32)  # two pictures, conditional rows only
    anna, ben, gate = maps.unbind(1)
    torch.testing.assert_close(anna + ben, gate, atol=1e-4, rtol=0)
    assert anna[:, :, :10].mean() > 20 * anna[:, :, 22:].mean()
    assert ben[:, :, 22:].mean() > 20 * ben[:, :, :10].mean()


def test_recording_follows_the_schedule(did):
    """The boost is over after a quarter: before, gates inside regions are larger by it."""
    recorder = GateRecorder()
    sample(did.apply(two_people(), recorder=recorder).pipe, steps=10)
    early, late = recorder.maps(8, 8, end_at=0.2), recorder.maps(8, 8, start_at=0.3)
    assert early[:, 2].min() > 2 > 1 >= late[:, 2].max()


# --- photos and faces ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole():
    """Everything from stand-ins: photos to picture."""
    pytest.importorskip("insightface")
    return standins.make_dynamicid()


def test_photo_to_picture(whole, tmp_path):
    anna, ben = whole.encode(draw_portrait(0), name="Anna"), whole.encode(draw_portrait(1), name="Ben")
    assert anna.tokens.shape == (1, 4, 768) and anna.identity.norm() == pytest.approx(1, abs=1e-4)
    assert not torch.allclose(anna.tokens, ben.tokens) and torch.equal(anna.uncond_tokens, ben.uncond_tokens)
    assert anna.thumbnail.shape[-1] == 3 and anna.encoder == whole.saa.encoder_hash
    surprised = whole.edit(anna, "a very surprised expression, front view")
    assert not torch.allclose(surprised.tokens, anna.tokens)
    with whole.apply([surprised, ben]):
        picture = whole.pipe("two people", num_inference_steps=2, height=64, width=64).images[0]
    assert picture.size == (64, 64)
    save_face(tmp_path / "anna.safetensors", anna)
    assert torch.equal(whole.load_face(tmp_path / "anna.safetensors").tokens, anna.tokens)


def test_encode_is_the_published_recipe(whole):
    """Against the parts, called one by one: identity and CLIP tokens in, null tokens from pixels of zero."""
    photo = np.asarray(draw_portrait(2))
    encoded = whole.photos.encode(photo)
    (chosen,) = encoded.chosen
    pixels = torch.cat((clip_pixels(photo), torch.zeros(1, 3, 224, 224)))
    with torch.no_grad():
        vision = whole.photos.clip_vision.vision_model
        hidden = vision.pre_layrnorm(vision.embeddings(pixels))
        for layer in vision.encoder.layers[:-1]:
            hidden = layer(hidden, attention_mask=None)
        identity = torch.stack((torch.from_numpy(chosen.identity), torch.zeros(512)))
        tokens = whole.saa.face_encoder(identity, hidden)
    torch.testing.assert_close(encoded.face.tokens, tokens[:1], atol=1e-4, rtol=0)
    torch.testing.assert_close(encoded.face.uncond_tokens, tokens[1:], atol=1e-4, rtol=0)


def test_several_photos_are_averaged_and_photos_without_a_face_reported(whole):
    first, second, empty = draw_portrait(0), draw_portrait(0, size=300), np.full((200, 200, 3), 90, np.uint8)
    both = whole.encode(first, second)
    expected = (whole.encode(first).tokens + whole.encode(second).tokens) / 2
    torch.testing.assert_close(both.tokens, expected, atol=1e-5, rtol=0)
    encoded = whole.photos.encode(first, empty, on_no_face="skip photo")
    assert "photo 2" in encoded.message and torch.equal(encoded.face.tokens, whole.encode(first).tokens)
    with pytest.warns(UserWarning, match="photo 2"):
        whole.encode(first, empty, on_no_face="clip only")
    with pytest.raises(DynamicIDError, match="photo 2 of 2"):
        whole.encode(first, empty)
    with pytest.warns(UserWarning, match="No face was found in the photo: only the appearance"):
        assert whole.encode(empty, on_no_face="clip only").identity is None


def test_several_people_become_a_cast_in_one_call(whole):
    photos = [draw_portrait(number) for number in (0, 1)]
    anna = whole.encode(photos[0])
    cast = whole.cast(photos, anna, photos[1], names="Anna, Ben", places=Places("rows"), weights="1, 0.8, 0.5")
    assert [person.face.name for person in cast.people] == ["Anna", "Ben", ""]
    assert [person.weight for person in cast.people] == [1, 0.8, 0.5]
    assert torch.equal(cast.people[0].face.tokens, whole.encode(*photos).tokens)
    assert torch.equal(cast.people[1].face.tokens, anna.tokens)
    assert cast.people[0].region.box[2] <= cast.people[1].region.box[0]
    group = np.concatenate([np.asarray(photo.convert("RGB")) for photo in photos], 1)
    everybody = whole.encode_group(group, "Anna, Ben", crop_factor=1.5)
    assert [person.face.name for person in everybody.people] == ["Anna", "Ben"]
    alone = whole.encode(group, order="left-right", index=1, crop_factor=1.5)
    assert torch.equal(everybody.people[1].face.tokens, alone.tokens)
    with pytest.warns(UserWarning, match="of which 1 is left out"):
        whole.encode_group(group, "-")
    with pytest.warns(UserWarning, match="Person 1: the photo shows 2 faces"):
        whole.cast(group)


def test_crop_changes_what_is_encoded(whole):
    photo = draw_portrait(1)
    cropped, plain = whole.encode(photo, crop_factor=1.2), whole.encode(photo)
    assert not torch.allclose(cropped.tokens, plain.tokens)
    assert torch.equal(cropped.identity, plain.identity)
    assert np.ptp(cropped.landmarks[:, 0]) > np.ptp(plain.landmarks[:, 0])


def test_edit_strength_and_pose_image(whole):
    anna = whole.encode(draw_portrait(0))
    text = "a very happy expression, front view"
    full, half, none = (whole.edit(anna, text, strength=s) for s in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half.tokens, (anna.tokens + full.tokens) / 2, atol=1e-5, rtol=0)
    assert torch.equal(none.tokens, anna.tokens)
    posed = whole.edit(anna, text, pose_image=draw_portrait(1).rotate(15))
    assert not torch.allclose(posed.tokens, full.tokens, atol=1e-3)
    assert not torch.equal(posed.landmarks, anna.landmarks)
    assert not torch.allclose(whole.edit(anna, text, source="a sad person").tokens, full.tokens, atol=1e-4)


def test_text_features_are_unprojected_pooler_outputs(whole):
    one, two = whole.text_features(["a happy expression", "x"])
    ids = whole.pipe.tokenizer("a happy expression").input_ids
    with torch.no_grad():
        hidden = whole.pipe.text_encoder(torch.tensor([ids])).last_hidden_state
    torch.testing.assert_close(one, hidden[0, -1], atol=1e-4, rtol=0)  # the end-of-text position
    assert not torch.allclose(one, two)


# --- CLIP vision files --------------------------------------------------------------------------------------------


def test_clip_vision_from_a_single_file_and_from_a_folder(tmp_path):
    model = standins.make_clip_vision()
    model.save_pretrained(tmp_path / "folder")
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model(pixels, output_hidden_states=True).hidden_states[-2]
        for source in (tmp_path / "folder", tmp_path / "folder" / "model.safetensors"):
            loaded = host.load_clip_vision(source)
            assert torch.equal(loaded(pixels, output_hidden_states=True).hidden_states[-2], expected)


def test_what_is_no_clip_vision_model_is_named(tmp_path):
    path = write_safetensors(tmp_path / "x.safetensors", {"lora_down.weight": torch.zeros(1)}, {})
    with pytest.raises(DynamicIDError, match="a LoRA; expected a CLIP vision model"):
        host.load_clip_vision(path)
    with pytest.raises(DynamicIDError, match="no folder with a CLIP vision model"):
        host.load_clip_vision(tmp_path)
    tensors = {k: v for k, v in standins.make_clip_vision().state_dict().items() if "pre_layrnorm" not in k}
    path = write_safetensors(tmp_path / "cut.safetensors", tensors, {})
    with pytest.raises(DynamicIDError, match="lacks 2 tensors.*pre_layrnorm"):
        host.load_clip_vision(path)


def test_another_clip_model_is_refused(whole):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    small = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1, patch_size=14
        )
    )
    encoder = host.PhotoEncoder(whole.saa, small, whole.photos.detector)
    with pytest.raises(DynamicIDError, match="width 64.*needs 1280"):
        encoder.encode(draw_portrait(0))


# --- mistakes -----------------------------------------------------------------------------------------------------


def test_mistakes_leave_the_pipeline_alone(did):
    before = {k: v.clone() for k, v in did.pipe.unet.state_dict().items()}
    narrow = Face(torch.zeros(1, 4, 64), torch.zeros(1, 4, 64), "test")
    for cast, match in ((Cast(), "empty"), (Cast((Person(narrow),)), "width 64")):
        with pytest.raises(DynamicIDError, match=match):
            did.apply(cast)
    with pytest.raises(DynamicIDError, match="lora is 'none'"):
        did.apply(two_people(), lora="none")
    assert all(torch.equal(before[k], v) for k, v in did.pipe.unet.state_dict().items())
    did.remove()  # without effect


def test_a_unet_that_the_weights_do_not_fit_is_refused(did):
    small = {"block_out_channels": (32, 32), "norm_num_groups": 8, "layers_per_block": 1}
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2}
    unet = diffusers.UNet2DConditionModel(cross_attention_dim=2048, **small, **blocks)
    for use in (
        lambda: host.FusedLoRA(unet, did.saa.saa, 1.0),
        lambda: host.DynamicID(SimpleNamespace(unet=unet), did.saa),
    ):
        with pytest.raises(DynamicIDError, match=r"This model is UNet2DConditionModel with .*text width 2048"):
            use()


def test_what_is_missing_is_named(did):
    with pytest.raises(DynamicIDError, match="CLIP vision model"):
        did.encode(draw_portrait(0))
    with pytest.raises(DynamicIDError, match="IMR"):
        did.edit(face("anna"), "happy")


def test_processors_with_weights_of_their_own_are_not_replaced(did):
    class Adapter(torch.nn.Module):
        def __call__(self, attn, hidden_states, *args, **kwargs):
            return hidden_states

    unet = did.pipe.unet
    own = unet.attn_processors
    unet.set_attn_processor({name: Adapter() for name in own})
    try:
        with pytest.raises(DynamicIDError, match="Adapter.*unload_ip_adapter"):
            did.apply(two_people())
    finally:
        unet.set_attn_processor(own)


# --- torch.compile ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few_blocks():
    """A pipeline whose UNet has four transformer blocks on two grids: as a whole graph it compiles in seconds."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=768, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    pipe = standins.make_pipeline()
    pipe.unet = unet.eval().requires_grad_(False)
    return host.DynamicID(pipe, load_saa(tensors(saa((32, 32, 32, 64)), 0)))


@pytest.mark.parametrize(
    "how, backend",
    [("wrapped before", "eager"), ("wrapped after", "aot_eager"), ("in place", "eager"), ("blocks", "eager")],
)
def test_torch_compile(few_blocks, small, how, backend):
    """Compiled as a whole graph, before or after the faces are applied; another cast and removal then take effect.

    So too where the blocks are compiled by themselves and share their code; for that there must be many.
    """
    torch._dynamo.reset()
    did = small if how == "blocks" else few_blocks
    did.remove()
    pipe = copy.deepcopy(did.pipe)
    plain, expected = sample(did.pipe, steps=2), sample(did.apply(two_people()).pipe, steps=2)
    alone = Cast((Person(face("dora")),))
    expected_alone = sample(did.apply(alone).pipe, steps=2)
    compiled = host.DynamicID(pipe, did.saa)
    if how == "wrapped after":
        compiled.apply(two_people())
    if how == "in place":
        pipe.unet.compile(backend=backend, fullgraph=True)
    elif how == "blocks":
        pipe.unet.compile_repeated_blocks(backend=backend, fullgraph=True)
    else:
        pipe.unet = torch.compile(pipe.unet, backend=backend, fullgraph=True)
    if how == "wrapped before":
        torch.testing.assert_close(sample(pipe, steps=2), plain, atol=1e-4, rtol=0)
    torch.testing.assert_close(sample(compiled.apply(two_people()).pipe, steps=2), expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(sample(compiled.apply(alone).pipe, steps=2), expected_alone, atol=1e-3, rtol=1e-3)
    compiled.remove()
    did.remove()
    torch.testing.assert_close(sample(pipe, steps=2), plain, atol=1e-4, rtol=0)
    torch._dynamo.reset()
