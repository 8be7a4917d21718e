"""One call of the UNet with people in it, against the same call without: ``python benchmarks/unet_step.py``.

Two rows (guidance), the SD1.5 UNet in its published size, in ComfyUI through its sampling code (sampler function ->
guider -> ``calc_cond_batch`` -> wrappers) and in diffusers through the UNet's hook. With ``--ipadapter`` a checkout of
IPAdapter_plus is measured in the same rounds: as many images, each with its mask, four tokens each.
"""

from __future__ import annotations

import copy
import importlib.util
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import full_size
import torch
from measure import DTYPES, Inside, Table, interleaved, milliseconds, parser, prepare, ratio, report

PEER = "ipadapter_plus"  # the name of its package here
COUNTS = (1, 2, 5, 8)
TARGETS = {1: 1.01, 2: 1.015, 5: 1.02, 8: 1.03}


def main() -> None:
    options = arguments()
    device = prepare(options)
    table = Table(
        "One UNet call, two rows; ratio to the plain call (95% interval of the median)",
        ("host", "px", "variant", "ratio", "added inside", "in the first call", "target", "ms"),
    )
    for host in options.hosts:
        measure = measure_comfyui if host == "comfyui" else measure_diffusers
        measure(options, device, table)
    report("unet_step", [table], options, device)


def arguments():
    found = parser(__doc__.split("\n")[0], rounds=9)
    found.add_argument("--hosts", nargs="+", choices=("comfyui", "diffusers"), default=("comfyui", "diffusers"))
    found.add_argument("--sizes", nargs="+", type=int, default=(256, 512, 768), help="px, multiples of 8")
    found.add_argument("--people", nargs="*", type=int, default=COUNTS)
    found.add_argument("--masks", nargs="*", type=int, default=(2, 8), help="numbers of people with soft masks")
    found.add_argument(
        "--looking", nargs="*", type=int, default=(2, 4), help="numbers of people whose places are looked for"
    )
    found.add_argument("--ipadapter", type=Path, help="a checkout of IPAdapter_plus to compare with, in ComfyUI")
    found.add_argument("--peers", nargs="*", type=int, default=COUNTS, help="numbers of masked images there")
    return found.parse_args()


def variants(options) -> list[tuple[int, str]]:
    """Numbers of people, and how they have places: ``full_size.PLACES``."""
    numbers = zip(full_size.PLACES, (options.people, options.masks, options.looking), strict=True)
    return [(people, places) for places, several in numbers for people in several]


def name_of(people: int, places: str) -> str:
    return f"{people} {'person' if people == 1 else 'people'}{'' if places == 'boxes' else f', {places}'}"


def settings_of(options_class, places: str):
    """SAAOptions of a variant; places are looked for in the first part of a run, where all of these calls are."""
    placement = "automatic" if places == "looked for" else "regions"
    return options_class(lora_strength=0.0, layout_end=0.5, placement=placement)


def add_rows(
    table: Table, host: str, size: int, calls: dict[str, Callable], inside: Inside, first: dict, options, device
) -> None:
    """Measure the calls (``plain`` among them) and add a row for each. ``first``: seconds inside each one's first call."""
    added: dict[str, list[float]] = {name: [] for name in calls}

    def noting(name: str) -> Callable[[], None]:
        def call() -> None:
            inside.take()
            calls[name]()
            added[name].append(inside.take())

        return call

    times = interleaved({name: noting(name) for name in calls}, "plain", options.rounds, device, warm=True)
    plain = statistics.median(times["plain"])
    table.add(host, size, "plain", "1", "", "", "", milliseconds(times["plain"]))
    for name in calls:
        if name == "plain":
            continue
        shares = [f"{seconds / plain:.4f}" for seconds in (statistics.median(added[name]), first[name])]
        shares = shares if device.type == "cpu" else ["", ""]
        target = TARGETS.get(int(name.split()[0]), "") if name[0].isdigit() else ""
        table.add(host, size, name, ratio(times[name], times["plain"]), *shares, target, milliseconds(times[name]))


# --- ComfyUI ------------------------------------------------------------------------------------------------------


def measure_comfyui(options, device: torch.device, table: Table) -> None:
    host = full_size.start_comfyui(device)
    adapter = load_ipadapter(options.ipadapter) if options.ipadapter else None

    def core(name: str):
        return host.module(f"dynamicid_core.{name}")

    model, saa = full_size.comfy_unet(DTYPES[options.dtype]), full_size.saa_module(core)
    run, call = core("hosts.comfy.run"), core("call")
    functions = [(call.Call, "add_faces"), (run, "prepare_call"), (run, "with_patches")]
    if adapter:
        functions.append((sys.modules[f"{PEER}.IPAdapterPlus"], "ipadapter_attention"))
    with Inside(*functions) as inside:
        for size in options.sizes:
            models = comfy_models(core, model, saa, size, adapter, options)
            first: dict[str, float] = {}

            def measured(calls: dict[str, Callable], size=size, first=first) -> None:
                add_rows(table, "ComfyUI", size, calls, inside, first, options, device)

            in_sampling(models, size, inside, first, measured)


def comfy_models(core, model, saa, size: int, adapter, options) -> dict:
    """The plain model and what becomes of it."""
    hosts, options_class = core("hosts.comfy"), core("types").SAAOptions
    loaded = hosts.LoadedDynamicID(core("checkpoints").SAACheckpoint(None, saa), None)
    models = {"plain": model}
    for people, places in variants(options):
        cast = full_size.cast(core, people, places, size)
        settings = settings_of(options_class, places)
        models[name_of(people, places)] = hosts.apply_faces(model, loaded, cast, settings)
    for people in options.peers if adapter else ():
        models[f"IPAdapter_plus, {people} masked"] = with_ipadapter(adapter, model, people, size)
    return models


def in_sampling(models: dict, size: int, inside: Inside, first: dict, measured: Callable[[dict], None]) -> None:
    """Start sampling with each model, one inside the other's sampler, and hand over their ready model calls.

    So each goes through all of the host's sampling code with what it prepares for a run, and still they can alternate.
    ``first`` gets the seconds inside each model's first call.
    """
    import comfy.sample
    import comfy.samplers

    generator = torch.Generator().manual_seed(1)
    texts = torch.randn(2, 1, full_size.TEXT_TOKENS, full_size.TOKEN_WIDTH, generator=generator)
    positive, negative = [[[text, {}]] for text in texts]
    zeros = torch.zeros(1, 4, size // 8, size // 8)
    noise = torch.randn(zeros.shape, generator=generator)
    calls: dict[str, Callable] = {}

    def start(names: list[str]) -> None:
        if not names:
            measured(calls)
            return
        model = models[names[0]]
        sigma = model.get_model_object("model_sampling").percent_to_sigma(0.1)

        def sampler_function(denoise, x, sigmas, extra_args=None, **kwargs):
            def call() -> None:
                denoise(x, sigmas[:1], **extra_args)

            calls[names[0]] = call
            inside.take()
            call()
            first[names[0]] = inside.take()
            start(names[1:])
            return x

        sampler = comfy.samplers.KSAMPLER(sampler_function)
        sigmas = torch.tensor([float(sigma), 0.0])
        comfy.sample.sample_custom(model, noise, 5.0, sampler, sigmas, positive, negative, zeros, disable_pbar=True)

    with torch.inference_mode():
        start(list(models))


# --- IPAdapter_plus -----------------------------------------------------------------------------------------------


def load_ipadapter(folder: Path):
    """The peer's nodes, from its own folder, as the host would import them."""
    place = {"submodule_search_locations": [str(folder)]}
    spec = importlib.util.spec_from_file_location(PEER, folder / "__init__.py", **place)
    module = sys.modules[PEER] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.NODE_CLASS_MAPPINGS


def ipadapter_weights() -> dict:
    """A file of the standard IP-Adapter for SD1.5: 1024 values of CLIP to four tokens."""
    from dynamicid_core.bases import SD15_WIDTHS

    generator = torch.Generator().manual_seed(2)
    width, tokens = full_size.TOKEN_WIDTH, full_size.TOKENS
    projection = {"proj.weight": (tokens * width, 1024), "proj.bias": (tokens * width,)}
    projection |= {"norm.weight": (width,), "norm.bias": (width,)}
    sites = {
        f"{2 * block + 1}.to_{part}_ip.weight": (channels, width)
        for block, channels in enumerate(SD15_WIDTHS)
        for part in ("k", "v")
    }
    parts = {"image_proj": projection, "ip_adapter": sites}
    return {
        p: {n: full_size.seeded(torch.Size(s), generator) for n, s in shapes.items()} for p, shapes in parts.items()
    }


def with_ipadapter(nodes: dict, model, people: int, size: int):
    """A chain of the peer's nodes, one for each masked image."""
    weights, apply = ipadapter_weights(), nodes["IPAdapterEmbeds"]()
    for i in range(people):
        embeds = torch.randn(1, 1024, generator=torch.Generator().manual_seed(i))
        mask = full_size.soft_strip(i, people, size)
        settings = (1.0, "linear", 0.0, 1.0)
        model = apply.apply_ipadapter(model, weights, embeds, *settings, torch.zeros_like(embeds), mask)[0]
    return model


# --- diffusers ----------------------------------------------------------------------------------------------------


def measure_diffusers(options, device: torch.device, table: Table) -> None:
    from dynamicid_core.hosts import diffusers as hosts
    from dynamicid_core.types import SAAOptions

    def core(name: str):
        return importlib.import_module(f"dynamicid_core.{name}")

    unet, saa = full_size.diffusers_unet(device, DTYPES[options.dtype]), full_size.saa_module(core)
    from dynamicid_core.call import Call
    from dynamicid_core.hosts.diffusers.unet import CallHook

    with Inside((Call, "add_faces"), (CallHook, "step")) as inside, torch.inference_mode():
        for size in options.sizes:
            unets = {"plain": unet}
            for people, places in variants(options):
                if places == "looked for":
                    continue  # a call of the UNet alone does not tell where in a run it is
                cast = full_size.cast(core, people, places, size)
                other = unets[name_of(people, places)] = twin(unet)
                settings = settings_of(SAAOptions, places)
                hosts.attach(other, saa, cast, settings, guided=lambda: True, lora="fused")
            calls = {name: unet_call(unet, size, device, DTYPES[options.dtype]) for name, unet in unets.items()}
            first = {}
            for name, call in calls.items():
                inside.take()
                call()
                first[name] = inside.take()
            add_rows(table, "diffusers", size, calls, inside, first, options, device)


def twin(unet):
    """Another UNet object around the same weights, since an attached one cannot alternate with itself."""
    return copy.deepcopy(unet, {id(tensor): tensor for tensor in (*unet.parameters(), *unet.buffers())})


def unet_call(unet, size: int, device: torch.device, dtype: torch.dtype) -> Callable[[], None]:
    """A call of the UNet with two rows, as the pipeline makes it."""
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(2, 4, size // 8, size // 8, generator=generator).to(device, dtype)
    text = torch.randn(2, full_size.TEXT_TOKENS, full_size.TOKEN_WIDTH, generator=generator).to(device, dtype)
    timestep = torch.tensor(900, device=device)
    return lambda: unet(latent, timestep, encoder_hidden_states=text, return_dict=False)


if __name__ == "__main__":
    main()
