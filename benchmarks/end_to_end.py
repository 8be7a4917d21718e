"""A whole picture with two people against the same without, and what the pack adds to the host's start:
``python benchmarks/end_to_end.py``.

512 px, 20 steps, with the stand-in checkpoint, whose UNet has 320 channels throughout (the real one grows to 1280), so
that the attention layers weigh more in it than in the real one: an upper bound for the ratio. The graphs run
through the host's executor with its cache; each run has another seed, so that sampling and decoding run and what
does not depend on the seed does not. Both graphs show the cast, because the host forgets what the last graph lacks.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import full_size
import torch
from measure import Table, interleaved, milliseconds, parser, prepare, ratio, report, seconds

STARTS = 5
TARGET_START = 0.3  # seconds


def main() -> None:
    found = parser(__doc__.split("\n")[0], rounds=1)
    found.add_argument("--size", type=int, default=512, help="px")
    found.add_argument("--steps", type=int, default=20)
    found.add_argument("--part", choices=("picture", "start"), nargs="+", default=("picture", "start"))
    found.add_argument("--one-start", action="store_true", help="print what one start takes, and nothing else")
    options = found.parse_args()
    if options.one_start:
        print(one_start())
        return
    device = prepare(options)
    tables = [start_table()] if "start" in options.part else []
    if "picture" in options.part:
        tables.append(picture_table(options, device))
    report("end_to_end", tables, options, device)


# --- start --------------------------------------------------------------------------------------------------------


def one_start() -> str:
    """CPU and wall seconds of loading the pack into a host that is up, and how many modules that imports."""
    host = full_size.start_comfyui(torch.device("cpu"), pack=False)
    before, cpu, wall = set(sys.modules), time.process_time(), time.perf_counter()
    host.load_pack()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    new = {name.split(".")[0] for name in set(sys.modules) - before if "comfyui-dynamicid" not in name}
    return f"{cpu:.3f} {wall:.3f} {','.join(sorted(new)) or 'none'}"


def start_table() -> Table:
    """What loading the pack adds, in fresh processes."""
    table = Table("What the pack adds to the host's start, s", ("CPU", "wall", "target", "packages it imports"))
    command = [sys.executable, str(Path(__file__).resolve()), "--one-start"]
    runs = []
    for _ in range(STARTS):
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        runs.append(output.strip().splitlines()[-1].split(" ", 2))
    cpu, wall = (statistics.median(float(run[i]) for run in runs) for i in (0, 1))
    table.add(f"{cpu:.3f}", f"{wall:.3f}", TARGET_START, runs[0][2])
    return table


# --- picture ------------------------------------------------------------------------------------------------------


def picture_table(options, device) -> Table:
    from standins.portraits import draw_portrait

    host = full_size.start_comfyui(device)
    for number in range(2):
        draw_portrait(number).save(host.base / "input" / f"person{number}.png")
    seeds = iter(range(1, 1000))

    def run(people: bool, steps: int = options.steps):
        return lambda: host.run_graph(graph(options.size, steps, next(seeds), people))

    first = seconds(run(True, steps=1), device)
    calls = {"plain": run(False), "people": run(True)}
    times = interleaved(calls, "plain", options.rounds, device, warm=True)
    table = Table(f"A picture, {options.size} px, {options.steps} steps", ("run", "ms", "ratio"))
    table.add("without", milliseconds(times["plain"]), 1)
    table.add("two people", milliseconds(times["people"]), ratio(times["people"], times["plain"]))
    table.add("two people, the first time, one step (loading, encoding two photos)", milliseconds([first]), "")
    return table


def graph(size: int, steps: int, seed: int, people: bool) -> dict[str, dict]:
    """Text to picture in API format, with two people from photos in the model or without."""
    import comfy_host

    nodes = {
        "1": ("CheckpointLoaderSimple", {"ckpt_name": comfy_host.CHECKPOINT}),
        "2": ("CLIPTextEncode", {"clip": ["1", 1], "text": "two people in a garden"}),
        "3": ("CLIPTextEncode", {"clip": ["1", 1], "text": "blurry"}),
        "4": ("EmptyLatentImage", {"width": size, "height": size, "batch_size": 1}),
        "5": ("KSampler", {
            "model": ["12", 0] if people else ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0],
            "seed": seed, "steps": steps, "cfg": 5.0, "sampler_name": "ddim", "scheduler": "normal", "denoise": 1.0,
        }),
        "6": ("VAEDecode", {"samples": ["5", 0], "vae": ["1", 2]}),
        "7": ("PreviewImage", {"images": ["6", 0]}),
    }  # fmt: skip
    return in_api_format(nodes | with_people())


def with_people() -> dict[str, tuple[str, dict]]:
    nodes = {
        "8": ("CLIPVisionLoader", {"clip_name": "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"}),
        "9": ("DynamicIDLoader", {"saa_file": "saa.safetensors", "imr_file": "none"}),
        "10": ("DynamicIDFaceAnalysis", {"model_pack": "buffalo_l", "provider": "auto"}),
        "12": ("DynamicIDApply", {
            "model": ["1", 0], "dynamicid": ["9", 0], "cast": ["23", 0], "weight": 1.0, "start_at": 0.0, "end_at": 1.0,
            "layout_strength": 2.0, "layout_end": 0.24, "gate_threshold": 0.3, "outside": "everyone", "lora_strength": 1.0,
        }),
    }  # fmt: skip
    cast = None
    for i in range(2):
        photo, face, place = f"2{i}", f"3{i}", "23" if i else "22"
        nodes[photo] = ("LoadImage", {"image": f"person{i}.png"})
        nodes[face] = ("DynamicIDEncodeFace", {
            "dynamicid": ["9", 0], "clip_vision": ["8", 0], "image": [photo, 0], "face_analysis": ["10", 0],
            "face_order": "large-small", "face_index": 0, "crop_factor": 0.0, "combine": "average", "on_no_face": "error",
        })  # fmt: skip
        nodes[place] = ("DynamicIDPlaceFace", {"face": [face, 0], "weight": 1.0} | ({"cast": cast} if cast else {}))
        cast = [place, 0]
    nodes["40"] = ("DynamicIDPreviewCast", {"cast": cast, "width": 256, "height": 256})
    nodes["41"] = ("PreviewImage", {"images": ["40", 0]})
    return nodes


def in_api_format(nodes: dict[str, tuple[str, dict]]) -> dict[str, dict]:
    return {
        name: {"class_type": cls, "inputs": inputs, "_meta": {"title": cls}} for name, (cls, inputs) in nodes.items()
    }


if __name__ == "__main__":
    main()
