"""Peak memory of a sampling run with people in it, over that of the same run without: ``python benchmarks/memory.py``.

On a CPU the peak is the highest sum of all live allocations that torch's profiler saw, which counts what is inside
operators too and is the same in every run. Half precision cannot be run there in reasonable time, so what stays for
the whole run is also counted in fp16, tensor by tensor, from what the host really prepares. On a GPU the allocator's own
peak is read, in the precision asked for, and which networks' weights lie on the device while sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import full_size
import torch
from measure import DTYPES, Table, parser, prepare, report

MEGABYTE = 1024**2
TARGET = 32


def main() -> None:
    found = parser(__doc__.split("\n")[0], rounds=1)
    found.add_argument("--size", type=int, default=768, help="px")
    found.add_argument("--people", type=int, default=8)
    found.add_argument("--frames", type=int, default=64, help="of a film, whose people move")
    options = found.parse_args()
    device = prepare(options)
    host = full_size.start_comfyui(device)

    def core(name: str):
        return host.module(f"dynamicid_core.{name}")

    hosts = core("hosts.comfy")
    model, saa = full_size.comfy_unet(DTYPES[options.dtype]), full_size.saa_module(core)
    loaded = hosts.LoadedDynamicID(core("checkpoints").SAACheckpoint(None, saa), None)
    cast = full_size.cast(core, options.people, places="soft masks", size=options.size)
    patched = hosts.apply_faces(model, loaded, cast, core("types").SAAOptions(lora_strength=0.0))
    kept = Table(
        f"Kept during a run, {options.people} people with soft masks, {options.size} px, MB", ("what", "fp32", "fp16")
    )
    for what, sizes in kept_bytes(core, patched, options.size).items():
        kept.add(what, *(f"{size / MEGABYTE:.2f}" for size in sizes))
    peaks = {
        name: peak(lambda m=m: sample(m, options.size), device) for name, m in (("plain", model), ("people", patched))
    }
    table = Table(
        f"Peak of a run, {options.dtype}, {options.size} px, MB",
        ("plain", f"{options.people} people", "extra", "target"),
    )
    extra = peaks["people"] - peaks["plain"]
    table.add(*(f"{value / MEGABYTE:.1f}" for value in (peaks["plain"], peaks["people"], extra)), TARGET)
    film = film_table(core, saa, patched, options.frames, options.people)
    report("memory", [kept, table, film, weights_table(patched, loaded, device)], options, device)


def sample(model, size: int) -> None:
    """One step of guided sampling."""
    import comfy.sample

    generator = torch.Generator().manual_seed(1)
    texts = torch.randn(2, 1, full_size.TEXT_TOKENS, full_size.TOKEN_WIDTH, generator=generator)
    conds = [[[text, {}]] for text in texts]
    zeros = torch.zeros(1, 4, size // 8, size // 8)
    with torch.inference_mode():
        comfy.sample.sample(model, zeros, 1, 5.0, "euler", "normal", *conds, zeros, seed=1, disable_pbar=True)


def peak(call: Callable[[], None], device: torch.device) -> int:
    """Bytes at the highest point, above what was there before."""
    if device.type == "cuda":
        call()  # weights to the device
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        highest = max(highest, live)
    return highest


def kept_bytes(core, patched, size: int) -> dict[str, list[int]]:
    """What a run remembers, by kind: bytes in fp32 and in fp16."""
    calls, run = core("call"), core("hosts.comfy.run")
    rows = (calls.Row(calls.NULL_ROLE, 0), calls.Row(calls.FACE_ROLE, 0))
    (applied,) = run.applied_casts(patched)
    schedule = run.SigmaSchedule(patched.get_model_object("model_sampling"))
    found: dict[str, list[int]] = {"faces' keys and values": [], "regions": []}
    for dtype in (torch.float32, torch.float16):
        like, latent = torch.empty(0, dtype=dtype), (size // 8, size // 8)
        call = calls.prepare_call(applied, rows, latent, torch.ones(2), schedule, like, calls.Memory())
        faces = calls.faces_of_rows(applied, rows, like, calls.Memory())
        found["faces' keys and values"].append(total(tensor for site in faces for tensor in site))
        found["regions"].append(total(tensor for grid in call.grids.values() for tensor in grid))
    return found


def film_table(core, saa, patched, frames: int, people: int) -> Table:
    """Of faces that move: what a cast holds, what a run keeps on the device, and what one call of all frames gathers."""
    calls, (applied,) = core("call"), core("hosts.comfy.run").applied_casts(patched)
    table = Table(f"Faces of {people} people that move over {frames} frames, MB", ("what", "fp32", "fp16"))
    with torch.no_grad():
        film = calls.AppliedCast.of(
            full_size.cast(core, people, places="boxes", frames=frames), core("types").SAAOptions(), applied.layout, saa
        )
    table.add("tokens", f"{total(person.face.tokens for person in film.cast.people) / MEGABYTE:.1f}", "")
    kept = total(film.packed)
    table.add("keys and values", *(f"{size / MEGABYTE:.1f}" for size in (kept, kept / 2)))
    rows = [calls.Row(role, frame) for role in (calls.NULL_ROLE, calls.FACE_ROLE) for frame in range(frames)]
    seen = calls.faces_of_rows(film, rows, torch.empty(0), calls.Memory())
    gathered = total(tensor for site in seen for tensor in site)
    table.add("gathered in a call of all frames", *(f"{size / MEGABYTE:.1f}" for size in (gathered, gathered / 2)))
    return table


def total(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def weights_table(patched, loaded, device: torch.device) -> Table:
    """Whose weights are on the device while sampling."""
    import comfy.model_management

    table = Table("Weights on the device after sampling, MB", ("network", "MB"))
    for found in comfy.model_management.current_loaded_models:
        if found.model is not None:
            on_device = total(p for p in found.model.model.parameters() if p.device.type == device.type)
            table.add(type(found.model.model).__name__, f"{on_device / MEGABYTE:.1f}")
    on_gpu = total(p for p in loaded.saa.saa.parameters() if p.device.type != "cpu")
    table.add("SAA weights (attention, LoRA), outside the CPU", f"{on_gpu / MEGABYTE:.1f}")
    return table


if __name__ == "__main__":
    main()
