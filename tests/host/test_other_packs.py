"""Apply DynamicID beside other packs that patch the same attention layers, in either order."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest
import torch
from comfy_host import Host, captured_log
from comfyui.finding import older
from studio import FACE, NULL, SMOOTH, Studio, compiled, difference

BLOCKS = [("input", n) for n in (1, 2, 4, 5, 7, 8)] + [("middle", 0)] + [("output", n) for n in range(3, 12)]
WIDTH = 320  # of the stand-in's layers


def text_attention(q, k, v, extra):
    from comfy.ldm.modules.attention import optimized_attention

    return optimized_attention(
        q, k, v, extra["n_heads"], attn_precision=extra["attn_precision"], transformer_options=extra
    )


class Adapter:
    """A replace patch as adapters put there: an object with a growing list of what it adds, and the host's hooks."""

    def __init__(self, seed: int) -> None:
        self.added, self.moved, self.cleaned = [self.image(seed)], [], 0
        self.patchers: list = []

    @staticmethod
    def image(seed: int) -> torch.Tensor:
        return torch.randn(1, 4, WIDTH, generator=torch.Generator().manual_seed(seed))

    def add(self, image: torch.Tensor) -> None:
        self.added.append(image)

    def __call__(self, q, k, v, extra):
        out = text_attention(q, k, v, extra)
        for image in self.added:
            image = image.expand(len(q), -1, -1).to(q)
            out = out + text_attention(q, image, image, extra)
        return out

    def to(self, what):
        self.moved.append(what)
        return self

    def models(self) -> list:
        return self.patchers

    def cleanup(self) -> None:
        self.cleaned += 1


def put(model, patch, keys=BLOCKS):
    """A clone of a model with a replace patch on these blocks, as the host's own method puts it there."""
    model = model.clone()
    for key in keys:
        model.set_model_attn2_replace(patch, *key)
    return model


def plus_one(q, k, v, extra):
    return text_attention(q, k, v, extra) + 1


@pytest.mark.parametrize("make", [lambda: Adapter(1), lambda: plus_one], ids=["object", "function"])
@pytest.mark.parametrize("exact", [False, True], ids=["(name, number)", "(name, number, index)"])
def test_a_replace_patch_before_or_after(studio: Studio, smooth, make, exact: bool) -> None:
    patch, keys = make(), [(*block, 0) for block in BLOCKS] if exact else BLOCKS
    before, after = studio.apply(put(studio.model, patch, keys), **SMOOTH), put(smooth, patch, keys)
    with studio.watch(after) as watch:
        result = studio.sample(after)
    assert watch.roles == [[NULL, FACE]] * 2
    assert torch.equal(studio.sample(before), result)
    assert difference(result, studio.sample(smooth)) > 0.01
    assert difference(result, studio.sample(put(studio.model, patch, keys))) > 0.1


def test_an_adapter_that_adds_itself_to_what_it_finds(studio: Studio, smooth) -> None:
    """Two adapters share one object by its `add`; the object that they find is theirs, wherever Apply stands."""

    def adapt(model, seed: int):
        found = model.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
        if ("input", 1) not in found:
            return put(model, Adapter(seed))
        found["input", 1].add(Adapter.image(seed))
        return model.clone()

    orders = [
        adapt(adapt(studio.apply(**SMOOTH), 1), 2),
        adapt(studio.apply(adapt(studio.model, 1), **SMOOTH), 2),
        studio.apply(adapt(adapt(studio.model, 1), 2), **SMOOTH),
    ]
    results = [studio.sample(model) for model in orders]
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    assert difference(results[0], studio.sample(adapt(smooth, 1))) > 0.01


def test_the_hooks_of_another_packs_patch_are_called(studio: Studio) -> None:
    import comfy.model_patcher
    import comfyui_version

    patch, device = Adapter(1), torch.device("cpu")
    patch.patchers = [comfy.model_patcher.ModelPatcher(torch.nn.Linear(2, 2), device, device)]
    loaded = []
    patch.patchers[0].add_callback_with_key("on_load_after", "test", lambda *args: loaded.append(True))
    model = studio.apply(put(studio.model, patch))
    studio.sample(model)
    assert loaded and patch.moved
    assert patch.cleaned or older(comfyui_version.__version__, "0.17")  # before, no host knew that hook
    patches = [model.model_options["transformer_options"]["patches_replace"]["attn2"][key] for key in BLOCKS]
    assert all(found is patch for found in patches)  # still the one that its pack put there


def test_patches_survive_the_garbage_of_clones(studio: Studio) -> None:
    patch = Adapter(1)
    model = studio.apply(put(studio.model, patch), **SMOOTH)
    expected = studio.sample(model)
    for _ in range(3):
        studio.sample(studio.apply(model.clone()), steps=1)
    gc.collect()
    assert torch.equal(studio.sample(model), expected)


def test_patches_of_the_input_and_the_output(studio: Studio, smooth) -> None:
    def halve_text(n, context, value, extra):
        return n, context / 2, value / 2

    def double(n, extra):
        return n * 2

    def patched(model):
        model = model.clone()
        model.set_model_attn2_patch(halve_text)
        model.set_model_attn2_output_patch(double)
        return model

    before, after = studio.apply(patched(studio.model), **SMOOTH), patched(smooth)
    with studio.watch(after) as watch:
        result = studio.sample(after)
    assert len(watch.entries) == 2 * 16
    assert torch.equal(studio.sample(before), result)
    assert difference(result, studio.sample(smooth)) > 0.1


def coupled(model, change=lambda n: n):
    """Like attention couple with twice the same prompt: the positive side's rows are repeated, then merged by masks."""
    copies = {0: 2, 1: 1}  # of the positive and the negative side

    def repeat(n, context, value, extra):
        sides = extra["cond_or_uncond"]
        parts = [x.chunk(len(sides)) for x in (change(n), context, value)]
        return tuple(torch.cat([c.repeat(copies[i], 1, 1) for c, i in zip(part, sides, strict=True)]) for part in parts)

    def merge(n, extra):
        sides = [copies[i] for i in extra["cond_or_uncond"]]
        parts = n.split([count * len(n) // sum(sides) for count in sides])
        left = torch.linspace(0, 1, n.shape[1])[:, None]
        halves = [part.chunk(count) for part, count in zip(parts, sides, strict=True)]
        return torch.cat([h[0] * left + h[1] * (1 - left) if len(h) == 2 else h[0] for h in halves])

    model = model.clone()
    model.set_model_attn2_patch(repeat)
    model.set_model_attn2_output_patch(merge)
    return model


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("cfg", [4.0, 1.0])
def test_a_pack_that_repeats_the_rows_of_one_side(studio: Studio, smooth, batch: int, cfg: float) -> None:
    studio.adapter.neighbours._warned.clear()
    with captured_log() as log:
        result = studio.sample(coupled(smooth), batch=batch, cfg=cfg)
    assert not any("rearranges" in line for line in log)
    assert difference(result, studio.sample(smooth, batch=batch, cfg=cfg)) < 1e-4


def test_repeated_rows_in_a_compiled_model(studio: Studio, smooth) -> None:
    assert difference(studio.sample(compiled(coupled(smooth))), studio.sample(smooth)) < 1e-4


def test_repeated_rows_are_recorded_once(studio: Studio, smooth) -> None:
    maps = []
    for change in (lambda model: model, coupled):
        recorder = studio.host.module("dynamicid_core.gate_maps").GateRecorder()
        options = studio.applied(smooth).options
        model = studio.adapter.apply_faces(studio.model, studio.weights, studio.cast(), options, recorder)
        studio.sample(change(model), batch=2)
        maps.append(recorder.maps(8, 8))
    assert maps[0].shape == (2, 3, 8, 8)
    torch.testing.assert_close(maps[1], maps[0], atol=1e-4, rtol=0)


def test_rows_that_cannot_be_told_apart_get_no_faces_and_a_warning(studio: Studio) -> None:
    def mixed(model):
        return coupled(model, lambda n: 0.5 * n)

    studio.adapter.neighbours._warned.clear()
    with captured_log() as log:
        result = studio.sample(mixed(studio.apply()))
    assert (
        sum("another node rearranges the attention input" in line for line in log) == 4
    )  # once for each size of layer
    assert difference(result, studio.sample(mixed(studio.apply(weight=0.0)))) < 1e-4


def test_a_replaced_attention_function_is_used_for_the_text(studio: Studio, smooth) -> None:
    calls = []

    def attention(replaced, *args, **kwargs):
        from comfy.ldm.modules.attention import attention_pytorch

        calls.append(args[1].shape[1])
        return attention_pytorch(*args, **kwargs)

    model = smooth.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = attention
    result = studio.sample(model, steps=1)
    assert calls.count(77) == 16
    assert difference(result, studio.sample(smooth, steps=1)) < 1e-4


def test_wrappers_of_another_pack_around_the_model(studio: Studio, smooth) -> None:
    """Some name their arguments, some drop what they do not know; both must work outside and inside ours."""
    from comfy.patcher_extension import WrappersMP

    seen = []

    def named(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs):
        seen.append("named")
        return executor(
            x,
            t,
            c_concat=c_concat,
            c_crossattn=c_crossattn,
            control=control,
            transformer_options=transformer_options,
            **kwargs,
        )

    def forgetful(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs):
        seen.append("forgetful")
        return executor(x, t, c_concat, c_crossattn, control, transformer_options)

    expected = studio.sample(smooth)
    for wrapper in (named, forgetful):
        for outside in (True, False):
            model = studio.model.clone() if outside else smooth.clone()
            model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "other", wrapper)
            model = studio.apply(model, **SMOOTH) if outside else model
            assert torch.equal(studio.sample(model), expected), (wrapper.__name__, outside)
    assert seen.count("named") == seen.count("forgetful") == 4


# The real IPAdapter_plus

IPADAPTER = os.environ.get("IPADAPTER_PLUS_PATH")


def ip_adapter_file(path: Path) -> None:
    """An IP-Adapter for SD1.5 of the stand-in's widths, with random weights."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)

    def weight(*shape):
        return torch.randn(shape, generator=generator) / shape[-1] ** 0.5

    tensors = {"image_proj.proj.weight": weight(4 * 768, 1024), "image_proj.proj.bias": torch.zeros(4 * 768)}
    tensors |= {"image_proj.norm.weight": torch.ones(768), "image_proj.norm.bias": torch.zeros(768)}
    for site in range(1, 32, 2):
        tensors |= {f"ip_adapter.{site}.{name}.weight": weight(WIDTH, 768) for name in ("to_k_ip", "to_v_ip")}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


@pytest.mark.skipif(not IPADAPTER, reason="IPADAPTER_PLUS_PATH names no checkout of ComfyUI_IPAdapter_plus")
def test_the_real_ipadapter_plus_in_every_order(host: Host, studio: Studio, smooth) -> None:
    link = host.base / "custom_nodes" / "IPAdapter_plus"
    link.symlink_to(Path(IPADAPTER).resolve(), target_is_directory=True)
    assert host.loop.run_until_complete(host.nodes.load_custom_node(str(link)))
    file = host.base / "models" / "ipadapter" / "ip-adapter_sd15.safetensors"
    ip_adapter_file(file)
    (adapter,) = host.node("IPAdapterModelLoader")(ipadapter_file=file.name)
    (vision,) = host.node("CLIPVisionLoader")(clip_name="CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors")
    picture = torch.rand(1, 224, 224, 3, generator=torch.Generator().manual_seed(0))

    def adapted(model, weight: float):
        return host.node("IPAdapterAdvanced")(
            model=model, ipadapter=adapter, image=picture, clip_vision=vision, weight=weight, weight_type="linear",
            combine_embeds="concat", start_at=0.0, end_at=1.0, embeds_scaling="V only",
        )[0]  # fmt: skip

    after, before = adapted(smooth, 0.8), studio.apply(adapted(studio.model, 0.8), **SMOOTH)
    with studio.watch(after) as watch:
        result = studio.sample(after)
    assert watch.roles == [[NULL, FACE]] * 2
    assert torch.equal(studio.sample(before), result)
    assert difference(result, studio.sample(smooth)) > 0.01
    assert difference(result, studio.sample(adapted(studio.model, 0.8))) > 0.1
    between = adapted(studio.apply(adapted(studio.model, 0.8), **SMOOTH), 0.5)  # the second adds itself to the first
    twice = studio.sample(between)
    assert difference(twice, result) > 0.01
    assert torch.equal(studio.sample(studio.apply(adapted(adapted(studio.model, 0.8), 0.5), **SMOOTH)), twice)
    with studio.one_conditioning_at_a_time():
        assert difference(studio.sample(between), twice) < 1e-4


# The real AnimateDiff-Evolved

EVOLVED = os.environ.get("ANIMATEDIFF_EVOLVED_PATH")
needs_evolved = pytest.mark.skipif(
    not EVOLVED, reason="ANIMATEDIFF_EVOLVED_PATH names no checkout of ComfyUI-AnimateDiff-Evolved"
)
MOTION_FILE = "stand-in.safetensors"


@pytest.fixture(scope="module")
def evolved(host: Host):
    """A function that gives a MODEL the pack's sampling; ``motion``: with a motion module too."""
    link = host.base / "custom_nodes" / "evolved"
    link.symlink_to(Path(EVOLVED).resolve(), target_is_directory=True)
    host.load_custom_node(link)

    def evolve(model, windows: bool, motion: bool = False):
        more = {}
        if windows:
            (more["context_options"],) = host.node("ADE_StandardStaticContextOptions")(
                context_length=4, context_overlap=2
            )
        if motion:
            (found,) = host.node("ADE_LoadAnimateDiffModel")(model_name=MOTION_FILE)
            (more["m_models"],) = host.node("ADE_ApplyAnimateDiffModelSimple")(motion_model=found)
        return host.node("ADE_UseEvolvedSampling")(model=model, beta_schedule="use existing", **more)[0]

    return evolve


@pytest.fixture
def motion(host: Host, evolved, monkeypatch) -> None:
    """A motion module of the stand-in's width with random weights, in a file as the pack loads it.

    The pack knows the widths of real models alone, so while it builds modules they are made as narrow as the stand-in.
    """
    from safetensors.torch import save_file

    pack = next(name for name in sys.modules if name.endswith("evolved.animatediff.motion_module_ad"))
    module = sys.modules[pack]
    build = module.MotionModule
    monkeypatch.setattr(module, "MotionModule", lambda width, **how: build(WIDTH, **how))
    part = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks."
    known = {f"{part}{i}.pos_encoder.pe": torch.zeros(1, 32, WIDTH) for i in (0, 1)} | {"up_blocks.0.x": torch.zeros(1)}
    info = module.AnimateDiffInfo(module.ModelTypeSD.SD1_5, module.AnimateDiffFormat.ANIMATEDIFF, "v3", "stand-in")
    empty = module.AnimateDiffModel(mm_state_dict=known, mm_info=info).state_dict()
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(value.shape, generator=generator) * 0.05 for name, value in empty.items()}
    file = host.base / "models" / "animatediff_models" / MOTION_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)


@needs_evolved
@pytest.mark.parametrize("first", ["apply", "evolved"])
def test_the_real_animatediff_evolved_gives_each_window_its_frames_faces(studio: Studio, evolved, first: str) -> None:
    cast = studio.film(6)
    if first == "apply":
        model = evolved(studio.apply(cast=cast, **SMOOTH), windows=True)
    else:
        model = studio.apply(evolved(studio.model, windows=True), cast=cast, **SMOOTH)
    with studio.watch(model) as watch:
        studio.sample(model, batch=6, steps=1)
    assert watch.looks == [[0] * 4 + [1, 2, 3, 4], [0] * 4 + [3, 4, 5, 6]]
    with studio.watch(model) as watch:  # whose windows do nothing to a short film
        film = studio.sample(model, batch=3, steps=1)
    assert watch.looks == [[0] * 3 + [1, 2, 3]]
    assert difference(film, studio.sample(studio.apply(cast=cast, **SMOOTH), batch=3, steps=1)) < 1e-4


@needs_evolved
@pytest.mark.parametrize("windows", [False, True], ids=["whole", "windows"])
def test_the_real_motion_module_beside_faces_that_move(studio: Studio, evolved, motion, windows: bool) -> None:
    cast = studio.film(6)
    model = evolved(studio.apply(cast=cast, **SMOOTH), windows=windows, motion=True)
    with studio.watch(model) as watch:
        film = studio.sample(model, batch=6, steps=1)
    whole = [[0] * 6 + [1, 2, 3, 4, 5, 6]]
    assert watch.looks == ([[0] * 4 + [1, 2, 3, 4], [0] * 4 + [3, 4, 5, 6]] if windows else whole)
    plain = studio.sample(evolved(studio.apply(cast=cast, **SMOOTH), windows=windows), batch=6, steps=1)
    assert difference(film, plain) > 0.01  # the module acts
    still = studio.sample(
        evolved(studio.apply(cast=cast.at(0), **SMOOTH), windows=windows, motion=True), batch=6, steps=1
    )
    assert difference(film, still) > 0.01  # and so do the faces
