"""Apply DynamicID in a real ComfyUI: everything that a sampler, a guider, a model or a memory setting may do to it."""

from __future__ import annotations

import gc

import pytest
import torch
from studio import FACE, NULL, SMOOTH, Studio, compiled, difference

# Nothing leaks


def snapshot(model) -> tuple:
    """Everything of a MODEL that a node could spoil: options down to the containers' identities, patches, weights."""
    import comfy.model_management

    comfy.model_management.unload_all_models()  # takes the patches out of the weights

    def options(value):
        if isinstance(value, dict):
            return id(value), {key: options(item) for key, item in value.items()}
        return (id(value), [options(item) for item in value]) if isinstance(value, list) else value

    weights = {name: tensor.sum(dtype=torch.float64).item() for name, tensor in model.model.state_dict().items()}
    return options(model.model_options), list(model.patches), model.wrappers, dict(model.attachments), weights


def test_reruns_give_the_same_bits_and_bypass_those_of_the_plain_model(studio: Studio) -> None:
    before, plain = snapshot(studio.model), studio.sample(studio.model)
    runs = [studio.sample(studio.apply()) for _ in range(3)]
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])
    assert difference(runs[0], plain) > 0.3
    assert torch.equal(studio.sample(studio.model), plain)
    assert snapshot(studio.model) == before


def test_clones_share_the_faces_and_outlive_each_other(studio: Studio) -> None:
    model = studio.apply()
    expected = studio.sample(model)
    clones = [model.clone().clone() for _ in range(3)]
    studio.host.node("FreeU_V2")(model=model, b1=1.3, b2=1.4, s1=0.9, s2=0.2)
    packed = [studio.applied(clone).packed for clone in (model, *clones)]
    assert all(tensors is packed[0] for tensors in packed)
    assert sum(tensor.numel() * tensor.element_size() for tensor in packed[0]) < 4 << 20
    assert torch.equal(studio.sample(clones[0]), expected)
    del model, clones[:2]
    gc.collect()
    assert torch.equal(studio.sample(clones[0]), expected)


def test_a_run_leaves_nothing_behind_on_the_model_it_used(studio: Studio, smooth) -> None:
    before = snapshot(smooth)
    studio.sample(smooth)
    assert snapshot(smooth) == before
    gc.collect()
    assert not [found for found in gc.get_objects() if type(found) is studio.adapter.run.Run]


# Numbers and memory


@pytest.mark.parametrize(
    ("stored", "computed", "tolerance"),
    # What the formats' own rounding comes to after two steps with guidance 4, about twice what was seen.
    [
        (torch.float16, torch.float32, 0.002),
        (torch.bfloat16, torch.float32, 0.02),
        (torch.float8_e4m3fn, torch.float32, 0.3),
        (torch.float16, torch.float16, 0.05),
        (torch.float16, torch.bfloat16, 0.2),
    ],
)
def test_other_precisions(studio: Studio, smooth, stored, computed, tolerance: float) -> None:
    import comfy.sd

    model = comfy.sd.load_diffusion_model_state_dict(studio.unet_state(), model_options={"dtype": stored})
    model.set_model_compute_dtype(computed)
    applied = studio.apply(model, **SMOOTH)
    with studio.watch(applied) as watch:
        result = studio.sample(applied)
    assert model.model.get_dtype() == stored
    assert {entry["bias"].dtype for entry in watch.entries} == {computed}
    assert difference(result, studio.sample(smooth)) < tolerance


def test_partial_loading_gives_what_full_loading_gives(studio: Studio, smooth, monkeypatch) -> None:
    import comfy.model_management
    import comfy.model_patcher

    expected = studio.sample(smooth)
    model = studio.apply(**SMOOTH)
    load, partial = comfy.model_patcher.ModelPatcher.load, []

    def load_a_little(self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False):
        load(self, device_to, 8 << 20, force_patch_weights, False)
        partial.append(self.model.model_lowvram)

    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "load", load_a_little)
    comfy.model_management.unload_all_models()
    result = studio.sample(model)
    monkeypatch.undo()
    comfy.model_management.unload_all_models()
    assert partial == [True]
    # Weights that stay behind get the LoRA added when they are used, in another order of rounding.
    assert difference(result, expected) < 1e-3


def test_networks_load_where_the_host_creates_weights_late(host, studio: Studio, monkeypatch) -> None:
    import comfy.memory_management

    monkeypatch.setattr(
        comfy.memory_management, "aimdo_enabled", True
    )  # dynamic VRAM: linear layers begin without weights
    (loaded,) = host.node("DynamicIDLoader")(saa_file="saa.safetensors", imr_file="imr.safetensors")
    monkeypatch.undo()
    inputs = torch.randn(2, 512), torch.randn(2, 257, 1280)
    assert torch.equal(loaded.token_encoder.run(*inputs), studio.weights.token_encoder.run(*inputs))


# Samplers and guidance


@pytest.mark.parametrize(
    ("sampler", "calls"), [("euler", 2), ("heun", 3), ("dpmpp_2s_ancestral", 3), ("dpm_2", 3), ("lcm", 2)]
)
def test_samplers_that_call_the_model_more_than_once_a_step(studio: Studio, smooth, sampler: str, calls: int) -> None:
    with studio.watch(smooth) as watch:
        studio.sample(smooth, sampler=sampler)
    assert watch.roles == [[NULL, FACE]] * calls
    assert all(watch.acting())


def test_sides_of_the_guidance_apart_and_together(studio: Studio, smooth) -> None:
    together = studio.sample(smooth)
    with studio.one_conditioning_at_a_time(), studio.watch(smooth) as watch:
        apart = studio.sample(smooth)
    assert watch.roles == [[NULL], [FACE]] * 2
    assert difference(apart, together) < 1e-4  # matrix products of other sizes sum in another order


@pytest.mark.parametrize(("cfg", "roles"), [(1.0, [FACE]), (0.0, [NULL, FACE]), (12.0, [NULL, FACE])])
def test_guidance_scales(studio: Studio, smooth, cfg: float, roles: list[int]) -> None:
    with studio.watch(smooth) as watch:
        studio.sample(smooth, cfg=cfg)
    assert watch.roles == [roles] * 2


@pytest.mark.parametrize(
    ("node", "inputs", "roles"),
    [
        (
            "DualCFGGuider",
            {
                "cond1": "+",
                "cond2": "middle",
                "negative": "-",
                "cfg_conds": 4.0,
                "cfg_cond2_negative": 2.0,
                "style": "regular",
            },
            [FACE, FACE, NULL],  # the guider lists negative, middle, positive, and the host reverses them
        ),
        (
            "PerpNegGuider",
            {"positive": "+", "negative": "-", "empty_conditioning": "", "cfg": 4.0, "neg_scale": 1.0},
            [NULL, NULL, FACE],
        ),
        ("BasicGuider", {"conditioning": "+"}, [FACE]),
        ("CFGGuider", {"positive": "+", "negative": "-", "cfg": 4.0}, [NULL, FACE]),
    ],
)
def test_guiders_know_sides_by_name(studio: Studio, smooth, node: str, inputs: dict, roles: list[int]) -> None:
    texts = {"+": studio.positive, "-": studio.negative}
    inputs = {
        k: texts.get(v) or studio.encode(v) if isinstance(v, str) and k != "style" else v for k, v in inputs.items()
    }
    (guider,) = studio.host.node(node)(model=smooth, **inputs)
    with studio.watch(smooth) as watch:
        result = studio.sample_with(guider)
    assert watch.roles == [roles] * 2
    assert torch.isfinite(result).all()


def test_self_attention_guidance_runs_the_negative_side_alone(studio: Studio, smooth) -> None:
    (model,) = studio.host.node("SelfAttentionGuidance")(model=smooth, scale=0.5, blur_sigma=2.0)
    with studio.watch(model) as watch:
        studio.sample(model, size=(16, 16))
    assert watch.roles == [[NULL, FACE], [NULL]] * 2


def test_perturbed_attention_runs_the_positive_side_alone(studio: Studio, smooth) -> None:
    (model,) = studio.host.node("PerturbedAttentionGuidance")(model=smooth, scale=3.0)
    with studio.watch(model) as watch:
        studio.sample(model)
    assert watch.roles == [[NULL, FACE], [FACE]] * 2


def test_long_prompts(studio: Studio, smooth) -> None:
    long = studio.encode("two people in a park with very many trees and flowers and birds " * 12)
    assert long[0][0].shape[1] > 77
    with studio.watch(smooth) as watch:
        studio.sample(smooth, positive=long)
    assert watch.roles == [[NULL, FACE]] * 2  # the host pads the shorter prompt


# Schedules


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.3, 1.0), (0.0, 0.5), (0.2, 0.7), (1.0, 1.0)])
def test_faces_act_in_their_part_of_the_schedule(studio: Studio, start: float, end: float) -> None:
    steps = 6
    model = studio.apply(start_at=start, end_at=end)
    high, low = (studio.model.get_model_object("model_sampling").percent_to_sigma(f) for f in (start, end))
    with studio.watch(model) as watch:
        studio.sample(model, steps=steps)
    assert watch.acting() == [low <= sigma <= high for sigma in studio.sigmas(steps)]
    assert any(watch.acting()) == (start < 1)


def test_the_layout_boost_ends_with_its_part_of_the_schedule(studio: Studio) -> None:
    model = studio.apply(layout_end=0.4)
    end = studio.model.get_model_object("model_sampling").percent_to_sigma(0.4)
    with studio.watch(model) as watch:
        studio.sample(model, steps=6)
    assert watch.boosted() == [sigma > end for sigma in studio.sigmas(6)]
    assert set(watch.boosted()) == {True, False}
    assert all(watch.acting())


# Batches and frames


def masks(frames: int) -> torch.Tensor:
    """[frames, 64, 64]: a bar that moves from the left to the right."""
    mask = torch.zeros(frames, 64, 64)
    for i in range(frames):
        mask[i, :, i * 64 // frames : (i + 1) * 64 // frames] = 1
    return mask


def moving_cast(studio: Studio, mask: torch.Tensor):
    (cast,) = studio.host.node("DynamicIDPlaceFace")(face=studio.face(1), mask=mask)
    return studio.host.node("DynamicIDPlaceFace")(face=studio.face(2), cast=cast, mask=1 - mask)[0]


def fixed_noise(batch: int) -> torch.Tensor:
    return torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(3))


def denoise(studio: Studio, model, noise: torch.Tensor) -> torch.Tensor:
    import comfy.sample
    import comfy.samplers

    sigmas = torch.tensor([*studio.sigmas(2), 0.0])
    sampler, zeros = comfy.samplers.sampler_object("euler"), torch.zeros_like(noise)
    with torch.inference_mode():
        return comfy.sample.sample_custom(
            model, noise, 4.0, sampler, sigmas, studio.positive, studio.negative, zeros, disable_pbar=True
        )


def test_every_picture_of_a_batch_has_its_own_mask(studio: Studio) -> None:
    mask, noise = masks(4), fixed_noise(4)
    batch = denoise(studio, studio.apply(cast=moving_cast(studio, mask), **SMOOTH), noise)
    for i in range(4):
        alone = studio.apply(cast=moving_cast(studio, mask[i : i + 1]), **SMOOTH)
        assert difference(batch[i : i + 1], denoise(studio, alone, noise[i : i + 1])) < 1e-4
    other = studio.apply(cast=moving_cast(studio, mask[:1]), **SMOOTH)
    assert difference(batch[3:], denoise(studio, other, noise[3:])) > 0.05


def test_fewer_masks_than_pictures_repeat(studio: Studio) -> None:
    model = studio.apply(cast=moving_cast(studio, masks(2)))
    with studio.watch(model) as watch:
        studio.sample(model, batch=4, steps=1)
    bias = watch.entries[0]["bias"]  # [8, 1, N, M]
    assert torch.equal(bias[0], bias[2]) and not torch.equal(bias[0], bias[1])


def test_one_region_serves_every_picture_of_a_batch(studio: Studio, smooth) -> None:
    with studio.watch(smooth) as watch:
        assert studio.sample(smooth, batch=3, steps=1).shape[0] == 3
    assert watch.roles == [[NULL] * 3 + [FACE] * 3]
    assert {len(entry["bias"]) for entry in watch.entries} == {1}  # kept once, whatever the batch


def test_context_windows_keep_frames_and_masks_together(studio: Studio) -> None:
    model = studio.apply(cast=moving_cast(studio, masks(6)), **SMOOTH)
    with studio.watch(model) as watch:
        studio.sample(model, batch=6, steps=1)
    whole = watch.entries[0]["bias"][:6]
    windowed = in_windows(studio, model, 4, 2)
    with studio.watch(windowed) as watch:
        studio.sample(windowed, batch=6, steps=1)
    first, second = (entry["bias"][:4] for entry in watch.first_layers())
    assert torch.equal(first, whole[:4]) and torch.equal(second, whole[2:])


def in_windows(studio: Studio, model, length: int, overlap: int):
    """A model that the host samples some frames at a time, of a batch of pictures."""
    known = studio.host.object_info()["ContextWindowsManual"]["input"]
    fix = {"causal_window_fix": False} if "causal_window_fix" in known["required"] | known.get("optional", {}) else {}
    return studio.host.node("ContextWindowsManual")(
        model=model, context_length=length, context_overlap=overlap, context_schedule="standard_static", context_stride=1,
        closed_loop=False, fuse_method="flat", dim=0, freenoise=False, **fix,
    )[0]  # fmt: skip


def test_faces_that_move_show_each_picture_its_frame(studio: Studio) -> None:
    cast, noise = studio.film(3), fixed_noise(1).expand(4, -1, -1, -1)
    model = studio.apply(cast=cast, **SMOOTH)
    with studio.watch(model) as watch:
        film = denoise(studio, model, noise)
    assert watch.looks == [[0, 0, 0, 0, 1, 2, 3, 3]] * 2
    for frame in range(3):
        alone = denoise(studio, studio.apply(cast=cast.at(frame), **SMOOTH), noise[:1])
        assert difference(film[frame : frame + 1], alone) < 1e-4
    assert difference(film[:1], film[1:2]) > 0.01 and difference(film[2:3], film[3:]) < 1e-4


def test_context_windows_keep_frames_and_faces_together(studio: Studio) -> None:
    model = in_windows(studio, studio.apply(cast=studio.film(6), **SMOOTH), 4, 2)
    with studio.watch(model) as watch:
        studio.sample(model, batch=6, steps=1)
    assert watch.looks == [[0] * 4 + [1, 2, 3, 4], [0] * 4 + [3, 4, 5, 6]]


def test_one_noise_for_all_pictures_is_the_hosts(studio: Studio) -> None:
    """Pictures differ by their faces alone."""
    (latent,) = studio.host.node("LatentBatchSeedBehavior")(
        samples={"samples": torch.zeros(3, 4, 8, 8)}, seed_behavior="fixed"
    )
    film = studio.sample(studio.apply(cast=studio.film(2), **SMOOTH), latent=latent)
    assert difference(film[1:2], film[2:]) < 1e-4 < difference(film[:1], film[1:2])


def test_a_compiled_model_with_faces_that_move(studio: Studio) -> None:
    model = studio.apply(cast=studio.film(2), **SMOOTH)
    assert difference(studio.sample(compiled(model), batch=2), studio.sample(model, batch=2)) < 1e-4


# Sizes


@pytest.mark.parametrize("size", [(33, 25), (9, 64), (1, 1), (1, 8), (5, 1), (2, 3), (7, 7)])
def test_any_size_in_steps_of_8_pixels(studio: Studio, smooth, size: tuple[int, int], caplog) -> None:
    with studio.watch(smooth) as watch:
        studio.sample(smooth, size=size, steps=1)
    assert [entry["cells"] for entry in watch.first_layers()] == [size[0] * size[1]]
    assert len(watch.entries) == 16
    assert "faces are left out" not in caplog.text


def test_a_second_pass_at_another_size(studio: Studio, smooth) -> None:
    first = studio.sample(smooth)
    (larger,) = studio.host.node("LatentUpscale")(
        samples={"samples": first}, upscale_method="bilinear", width=96, height=80, crop="disabled"
    )
    plain = studio.sample(studio.model, latent=larger, denoise=0.5)
    with studio.watch(smooth) as watch:
        second = studio.sample(smooth, latent=larger, denoise=0.5)
    assert {entry["cells"] for entry in watch.first_layers()} == {10 * 12}
    assert difference(second, plain) > 1e-3  # little is left to change at low noise
    assert difference(studio.sample(smooth), first) == 0


# Parts of a picture


def test_an_area_sees_its_part_of_the_regions(studio: Studio, smooth) -> None:
    regions = studio.host.module("dynamicid_core.regions")
    height, width, y, x = 48, 64, 16, 32
    (area,) = studio.host.node("ConditioningSetArea")(
        conditioning=studio.positive, width=width, height=height, x=x, y=y, strength=1.0
    )
    (both,) = studio.host.node("ConditioningCombine")(conditioning_1=studio.positive, conditioning_2=area)
    with studio.watch(smooth) as watch:
        studio.sample(smooth, size=(12, 16), steps=1, positive=both)
    whole, part = sorted(watch.first_layers(), key=lambda entry: -entry["cells"])
    full = regions.region_weights(studio.cast(), 12, 16).visible.unflatten(-1, (12, 16))
    expected = full[..., y // 8 : (y + height) // 8, x // 8 : (x + width) // 8].flatten(-2)  # [1, P, N]
    assert torch.equal(part["bias"][0, 0, :, [0, 4]].T.exp(), expected[0])
    assert torch.equal(whole["bias"][0, 0, :, [0, 4]].T.exp(), full.flatten(-2)[0])
    assert sorted(part["roles"]) == [NULL, FACE]  # the host gives the negative side the same area


def test_masked_conditioning(studio: Studio, smooth) -> None:
    left = masks(2)[:1]
    sides = [
        studio.host.node("ConditioningSetMask")(
            conditioning=studio.encode(text), mask=mask, strength=1.0, set_cond_area=area
        )[0]
        for text, mask, area in (("a man", left, "default"), ("a woman", 1 - left, "mask bounds"))
    ]
    (both,) = studio.host.node("ConditioningCombine")(conditioning_1=sides[0], conditioning_2=sides[1])
    with studio.watch(smooth) as watch:
        studio.sample(smooth, positive=both, steps=1)
    roles = sorted(role for call in watch.roles for role in call)
    assert roles == [NULL] * 2 + [FACE] * 2
    assert {entry["cells"] for entry in watch.first_layers()} == {64, 32}


# Other features of the host


def controlnet(studio: Studio):
    """A ControlNet of the stand-in's width whose outputs are not zero."""
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.ops

    config = studio.model.model.model_config.unet_config
    config = {**config, "transformer_depth": config["transformer_depth"][:], "dtype": torch.float32}
    net = comfy.cldm.cldm.ControlNet(hint_channels=3, operations=comfy.ops.manual_cast, **config)
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.02
    return comfy.controlnet.ControlNet(net, load_device=torch.device("cpu"))


def test_controlnet(studio: Studio, smooth) -> None:
    picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    positive, negative = studio.host.node("ControlNetApplyAdvanced")(
        positive=studio.positive, negative=studio.negative, control_net=controlnet(studio), image=picture,
        strength=1.0, start_percent=0.0, end_percent=1.0,
    )  # fmt: skip
    plain = studio.sample(studio.model, positive=positive, negative=negative)
    with studio.watch(smooth) as watch:
        result = studio.sample(smooth, positive=positive, negative=negative)
    assert watch.roles == [[NULL, FACE]] * 2
    assert difference(plain, studio.sample(studio.model)) > 0.01
    assert difference(result, plain) > 0.1 and difference(result, studio.sample(smooth)) > 0.01


def lora_state(model) -> dict[str, torch.Tensor]:
    """A LoRA in the common naming for two attention layers, one of which DynamicID changes too."""
    generator = torch.Generator().manual_seed(5)
    state = {}
    for layer in ("input_blocks_1_1_transformer_blocks_0_attn2_to_q", "middle_block_1_transformer_blocks_0_ff_net_2"):
        inner = 320 if "attn2" in layer else 1280
        state[f"lora_unet_{layer}.lora_down.weight"] = torch.randn(4, inner, generator=generator) / inner**0.5
        state[f"lora_unet_{layer}.lora_up.weight"] = torch.randn(320, 4, generator=generator)
    return state


def test_a_lora_before_or_after(studio: Studio, smooth) -> None:
    import comfy.sd

    def with_lora(model):
        return comfy.sd.load_lora_for_models(model, None, lora_state(model), 1.0, 0.0)[0]

    before = studio.sample(studio.apply(with_lora(studio.model), **SMOOTH))
    after = studio.sample(with_lora(smooth))
    assert difference(before, after) < 1e-3  # two additions to a weight, in either order
    assert difference(after, studio.sample(smooth)) > 0.02


def test_a_lora_hook_on_one_side(studio: Studio, smooth) -> None:
    import comfy.hooks

    hooks = comfy.hooks.create_hook_lora(lora_state(smooth), 1.0, 0.0)
    positive = [[cond, {**extra, "hooks": hooks}] for cond, extra in studio.positive]
    with studio.watch(smooth) as watch:
        result = studio.sample(smooth, positive=positive)
    assert sorted(map(tuple, watch.roles)) == [(NULL,), (NULL,), (FACE,), (FACE,)]  # other weights: never together
    assert difference(result, studio.sample(smooth)) > 0.01


def test_inpainting_model_with_9_channels(studio: Studio) -> None:
    import comfy.sd

    state = studio.unet_state()
    first = "model.diffusion_model.input_blocks.0.0.weight"
    state[first] = torch.cat((state[first], 0.1 * state[first], state[first][:, :1]), dim=1)  # [320, 9, 3, 3]
    model = comfy.sd.load_diffusion_model_state_dict(state)
    assert model.model.concat_keys
    positive, negative, latent = studio.host.node("InpaintModelConditioning")(
        positive=studio.positive, negative=studio.negative, vae=studio.vae, pixels=torch.rand(1, 64, 64, 3),
        mask=masks(2)[:1], noise_mask=True,
    )  # fmt: skip
    applied = studio.apply(model, **SMOOTH)
    with studio.watch(applied) as watch:
        result = studio.sample(applied, positive=positive, negative=negative, latent=latent)
    assert watch.roles == [[NULL, FACE]] * 2
    plain = studio.sample(model, positive=positive, negative=negative, latent=latent)
    kept = torch.isclose(result, plain, atol=1e-4).all(1)[0]  # outside the mask both give back the picture
    assert kept[:, 4:].all() and not kept[:, :4].any()


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("HyperTile", {"tile_size": 64, "swap_size": 2, "max_depth": 0, "scale_depth": False}),
        ("TomePatchModel", {"ratio": 0.5}),
        ("FreeU_V2", {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}),
        ("RescaleCFG", {"multiplier": 0.7}),
        ("ModelSamplingDiscrete", {"sampling": "v_prediction", "zsnr": False}),
        (
            "PatchModelAddDownscale",
            {"block_number": 3, "downscale_factor": 1.7, "start_percent": 0.0, "end_percent": 0.6}
            | {"downscale_after_skip": True, "downscale_method": "bicubic", "upscale_method": "bicubic"},
        ),
    ],
)
def test_model_patches_of_the_host_in_either_order(studio: Studio, smooth, node: str, inputs: dict, caplog) -> None:
    patch = studio.host.node(node)
    size = (16, 16) if node == "HyperTile" else (13, 10)
    torch.manual_seed(0)  # HyperTile draws its tiles
    with studio.watch(smooth) as watch:
        after = studio.sample(patch(model=smooth, **inputs)[0], size=size)
    before = studio.apply(patch(model=studio.model, **inputs)[0], **SMOOTH)
    if node != "HyperTile":
        assert torch.equal(studio.sample(before, size=size), after)
    assert len(watch.entries) == 2 * 16
    assert "faces are left out" not in caplog.text
    assert difference(after, studio.sample(patch(model=studio.model, **inputs)[0], size=size)) > 0.05


def test_a_function_around_the_model_may_call_it_row_by_row(studio: Studio, smooth) -> None:
    def row_by_row(apply_model, args):
        def part(i):
            conds = {k: v[i : i + 1] if isinstance(v, torch.Tensor) else v for k, v in args["c"].items()}
            options = {**conds["transformer_options"], "cond_or_uncond": args["cond_or_uncond"][i : i + 1]}
            return apply_model(
                args["input"][i : i + 1], args["timestep"][i : i + 1], **{**conds, "transformer_options": options}
            )

        return torch.cat([part(i) for i in range(len(args["input"]))])

    model = smooth.clone()
    model.set_model_unet_function_wrapper(row_by_row)
    with studio.watch(model) as watch:
        result = studio.sample(model)
    assert watch.roles == [[NULL], [FACE]] * 2
    assert difference(result, studio.sample(smooth)) < 1e-4


def test_a_function_around_the_model_may_repeat_all_rows(studio: Studio, smooth) -> None:
    def twice(apply_model, args):
        conds = dict(args["c"])
        conds["c_crossattn"] = conds["c_crossattn"].repeat(2, 1, 1)
        return apply_model(args["input"].repeat(2, 1, 1, 1), args["timestep"].repeat(2), **conds)[: len(args["input"])]

    model = smooth.clone()
    model.set_model_unet_function_wrapper(twice)
    with studio.watch(model) as watch:
        result = studio.sample(model)
    assert watch.roles == [[NULL, FACE, NULL, FACE]] * 2
    assert difference(result, studio.sample(smooth)) < 1e-4


def test_a_function_in_the_place_of_the_batching(studio: Studio, smooth) -> None:
    import comfy.samplers

    def one_after_the_other(args):
        return [
            comfy.samplers.calc_cond_batch(args["model"], [cond], args["input"], args["sigma"], args["model_options"])[
                0
            ]
            for cond in args["conds"]
        ]

    model = smooth.clone()
    model.set_model_sampler_calc_cond_batch_function(one_after_the_other)
    with studio.watch(model) as watch:
        result = studio.sample(model)
    assert watch.roles == [[FACE], [NULL]] * 2  # though either side has index 0 now
    assert difference(result, studio.sample(smooth)) < 1e-4


# Compiled models


def test_many_casts_on_one_compiled_model(studio: Studio, smooth) -> None:
    """The compiled part is shared, and checks nothing in the transformer options: what varies must not be baked in."""
    base = compiled(studio.model)
    half = {**SMOOTH, "start_at": 0.3, "end_at": 0.8, "layout_end": 0.5}
    cases = [(None, {}), (2, SMOOTH), (None, {}), (5, {"gate_threshold": 0.9}), (2, half)]
    for people, options in cases:
        expected, model = studio.model, base
        if people:
            expected, model = (studio.apply(m, studio.cast(people), **options) for m in (studio.model, base))
        result = studio.sample(model, steps=3)
        assert difference(result, studio.sample(expected, steps=3)) < 1e-4, (people, options)


def test_one_compiled_call_for_either_side_of_the_guidance(studio: Studio, smooth) -> None:
    model = compiled(smooth, "aot_eager")
    with studio.one_conditioning_at_a_time():
        expected = studio.sample(smooth)
        result = studio.sample(model)
    assert difference(result, expected) < 1e-3  # decomposed operations round elsewhere


def test_what_a_compiled_model_records(studio: Studio) -> None:
    recorder = studio.host.module("dynamicid_core.gate_maps").GateRecorder
    maps = []
    for prepare in (lambda model: model, compiled):
        options = studio.types.SAAOptions()
        model = prepare(studio.adapter.apply_faces(studio.model, studio.weights, studio.cast(), options, recorder()))
        studio.sample(model)
        maps.append(studio.adapter.gate_maps(model, 64, 64)[0][1])
    assert maps[0].shape == (1, 3, 64, 64) and maps[0].max() > 0
    assert torch.equal(*maps)


# Casts and options


def test_two_casts_in_a_chain(studio: Studio) -> None:
    casts = [studio.host.node("DynamicIDPlaceFace")(face=studio.face(i), mask=masks(2)[i : i + 1])[0] for i in (0, 1)]
    first = studio.apply(cast=casts[0], **SMOOTH)
    chain = studio.apply(first, cast=casts[1], **SMOOTH)
    assert [len(studio.adapter.run.applied_casts(model)) for model in (first, chain)] == [1, 2]
    assert {len(patches) for patches in chain.patches.values()} == {1}  # the LoRA is merged once
    with studio.watch(chain) as watch:
        studio.sample(chain, steps=1)
    assert len(watch.entries) == 2 * 16
    alone, both = studio.sample(first), studio.sample(chain)
    assert difference(both, alone) > 0.05
    second = studio.apply(studio.apply(cast=casts[1], **SMOOTH), cast=casts[0], **SMOOTH)
    assert difference(studio.sample(second), both) < 1e-4  # whichever comes first


def test_one_file_loaded_by_two_nodes_is_merged_once(studio: Studio) -> None:
    (again,) = studio.host.node("DynamicIDLoader")(saa_file="saa.safetensors", imr_file="none")
    assert again.saa.saa is not studio.weights.saa.saa
    chain = studio.apply(studio.apply(**SMOOTH), weights=again, weight=0.0)
    assert torch.equal(studio.sample(chain), studio.sample(studio.apply(**SMOOTH)))


def test_another_lora_strength_in_a_chain_replaces_the_first(studio: Studio) -> None:
    chain = studio.apply(studio.apply(weight=0.0), weight=0.0, lora_strength=0.4)
    alone = studio.apply(weight=0.0, lora_strength=0.4)
    assert difference(studio.sample(chain), studio.sample(alone)) < 1e-3


def test_weight_0_leaves_the_lora_alone(studio: Studio) -> None:
    saa, lora = studio.weights.saa.saa, studio.model.clone()
    layout = studio.host.module("dynamicid_core.bases").fitting_layout(studio.model.model.diffusion_model, saa, "SD15")
    studio.adapter.model.add_lora(lora, saa, layout, 1.0)
    expected = studio.sample(lora)
    assert torch.equal(studio.sample(studio.apply(weight=0.0)), expected)
    assert torch.equal(studio.sample(studio.apply(start_at=1.0)), expected)
    assert torch.equal(studio.sample(studio.apply(weight=0.0, lora_strength=0.0)), studio.sample(studio.model))


def test_options_matter_as_they_say(studio: Studio) -> None:
    results = {
        name: studio.sample(studio.apply(**options))
        for name, options in {
            "default": {},
            "no threshold": {"gate_threshold": 0.0},
            "peak only": {"gate_threshold": 1.0},
            "nobody outside": {"outside": "nobody"},
            "no boost": {"layout_strength": 0.0},
            "double": {"weight": 2.0},
            "no lora": {"lora_strength": 0.0},
        }.items()
    }
    names = list(results)
    for i, a in enumerate(names):
        for b in names[:i]:
            assert difference(results[a], results[b]) > 1e-3, (a, b)


def test_nobody_outside_keeps_faces_out_there(studio: Studio) -> None:
    (cast,) = studio.host.node("DynamicIDPlaceFace")(face=studio.face(1), mask=masks(2)[:1])
    model = studio.apply(cast=cast, outside="nobody", **SMOOTH)
    with studio.watch(model) as watch:
        studio.sample(model, steps=1)
    scale, shift = watch.entries[0]["terms"][0].unflatten(-1, (8, 8))
    assert (scale[:, 4:] == 0).all() and (shift[:, 4:] == 0).all()
    assert (scale[:, :4] == 1).all() and (shift[:, :4] == 2).all()


# Models that do not fit


def foreign_model(name: str):
    """A MODEL of another family, without memory for its weights."""
    import comfy.model_patcher
    import comfy.supported_models

    config = getattr(comfy.supported_models, name)
    unet = {**config.unet_config, "image_size": 32, "in_channels": 4, "out_channels": 4, "num_res_blocks": [1, 1, 1]}
    unet |= {"model_channels": 64, "channel_mult": [1, 2, 4], "num_heads": -1, "num_head_channels": 64, "legacy": False}
    unet |= {
        "transformer_depth": [0, 1, 2],
        "transformer_depth_output": [0, 0, 1, 1, 2, 2],
        "transformer_depth_middle": 1,
    }
    with torch.device("meta"):
        model = config({**unet, "use_spatial_transformer": True}).get_model({})
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


@pytest.mark.parametrize(("name", "width"), [("SDXL", 2048), ("SD20", 1024)])
def test_a_model_of_another_family_is_named(studio: Studio, name: str, width: int) -> None:
    with pytest.raises(ValueError, match=f"This model is {name} with .*text width {width}.* made for .*text width 768"):
        studio.apply(foreign_model(name))


def test_a_model_without_attention_that_is_known_is_named(studio: Studio) -> None:
    import types

    class Flux:
        pass

    inner = types.SimpleNamespace(model_config=Flux(), diffusion_model=torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="This model is Flux with no cross attention that DynamicID knows"):
        studio.apply(types.SimpleNamespace(model=inner))
