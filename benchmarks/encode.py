"""From photos to a face: ``python benchmarks/encode.py``.

In ComfyUI, through its nodes: CLIP ViT-H/14 in its real size (stand-in weights) and the face encoder in its published
size (seeded weights). The face detector is InsightFace's code with whatever pack ``--pack`` names; the stand-in pack's
models are far smaller than buffalo_l's, so its share says nothing about theirs.
"""

from __future__ import annotations

import statistics
import time

import full_size
import numpy as np
import torch
from measure import Inside, Table, parser, prepare, report, seconds

TARGET = 8  # single photos that a batch of 32 may cost


def main() -> None:
    found = parser(__doc__.split("\n")[0], rounds=3)
    found.add_argument("--batch", type=int, default=32, help="photos of one person in the batch")
    found.add_argument(
        "--pack", default="buffalo_l", help="InsightFace pack in models/insightface/models, or a stand-in"
    )
    options = found.parse_args()
    device = prepare(options)
    host = full_size.start_comfyui(device)
    parts = Table("One photo, by part, ms (cold: with loading; warm: the next photo)", ("part", "cold", "warm"))
    cold, networks = load(host, device, options)
    warm = add_parts(parts, host, networks, cold, options, device)
    batch = Table("A batch of photos of one person", ("photos", "ms", "in single photos", "target"))
    images = torch.cat([photo(i) for i in range(options.batch)])
    took = seconds(lambda: encode(host, networks, images), device)
    batch.add(1, f"{1000 * warm:.0f}", 1, "")
    batch.add(options.batch, f"{1000 * took:.0f}", f"{took / warm:.2f}", TARGET)
    report("encode", [parts, batch, again_table(host, device)], options, device)


def photo(number: int) -> torch.Tensor:
    """[1, 512, 512, 3] in 0..1: a drawn portrait, each a little different."""
    from standins.portraits import draw_portrait

    pixels = torch.from_numpy(np.asarray(draw_portrait(number)).copy()).float() / 255
    return (pixels * (1 - 0.005 * (number % 16)))[None]


def load(host, device: torch.device, options) -> tuple[dict[str, float], dict]:
    """Seconds of loading, and what the nodes load. The face encoder gets the published sizes."""
    import comfy.ops

    networks, took = {}, {}

    def timed(name: str, call) -> None:
        start = time.process_time() if device.type == "cpu" else time.perf_counter()
        networks[name] = call()
        took[name] = (time.process_time() if device.type == "cpu" else time.perf_counter()) - start

    clip = "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"
    timed("CLIP", lambda: host.node("CLIPVisionLoader")(clip_name=clip)[0])
    detector = host.node("DynamicIDFaceAnalysis")
    timed("detection", lambda: detector(model_pack=options.pack, provider="auto")[0])
    hosts, checkpoints = host.module("dynamicid_core.hosts.comfy"), host.module("dynamicid_core.checkpoints")
    encoder = full_size.fill(
        host.module("dynamicid_core.networks.face_encoder").FaceEncoder(operations=comfy.ops.manual_cast)
    )
    networks["dynamicid"] = hosts.LoadedDynamicID(checkpoints.SAACheckpoint(encoder, None), None)
    timed("hash", lambda: networks["dynamicid"].saa.encoder_hash)
    return took, networks


def encode(host, networks: dict, images: torch.Tensor) -> None:
    host.node("DynamicIDEncodeFace")(
        dynamicid=networks["dynamicid"], clip_vision=networks["CLIP"], image=images, face_analysis=networks["detection"],
        face_order="large-small", face_index=0, crop_factor=0.0, combine="average", on_no_face="error",
    )  # fmt: skip


def add_parts(table: Table, host, networks: dict, loading: dict, options, device: torch.device) -> float:
    """Rows for each part; returns the seconds of one warm photo."""
    hosts, detector = host.module("dynamicid_core.hosts.comfy"), networks["detection"]
    models = detector._models
    insides = {
        "detection": Inside((models["detection"], "detect")),
        "landmarks and pose": Inside(
            *((models[t], "get") for t in ("landmark_2d_106", "landmark_3d_68") if t in models)
        ),
        "recognition": Inside((models["recognition"], "get")),
        "CLIP": Inside((hosts, "clip_tokens")),
        "projection": Inside((host.module("dynamicid_core.encode"), "encode_tokens")),
    }
    runs: dict[str, list[float]] = {name: [] for name in (*insides, "all")}
    for inside in insides.values():
        inside.__enter__()
    for number in range(1 + options.rounds):
        runs["all"].append(seconds(lambda n=number: encode(host, networks, photo(n)), device))
        for name, inside in insides.items():
            runs[name].append(inside.take())
    for inside in insides.values():
        inside.__exit__()
    for name, times in runs.items():
        cold = times[0] + (sum(loading.values()) if name == "all" else loading.get(name, 0.0))
        table.add(name, f"{1000 * cold:.0f}", f"{1000 * statistics.median(times[1:]):.0f}")
    return statistics.median(runs["all"][1:])


def again_table(host, device: torch.device) -> Table:
    """The same graph twice: what runs, and what is loaded, the second time."""
    from standins.portraits import draw_portrait

    draw_portrait(0).save(host.base / "input" / "portrait.png")
    graph = {
        "1": ("CLIPVisionLoader", {"clip_name": "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"}),
        "2": ("DynamicIDLoader", {"saa_file": "saa.safetensors", "imr_file": "imr.safetensors"}),
        "3": ("DynamicIDFaceAnalysis", {"model_pack": "buffalo_l", "provider": "auto"}),
        "4": ("LoadImage", {"image": "portrait.png"}),
        "5": ("DynamicIDEncodeFace", {
            "dynamicid": ["2", 0], "clip_vision": ["1", 0], "image": ["4", 0], "face_analysis": ["3", 0],
            "face_order": "large-small", "face_index": 0, "crop_factor": 0.0, "combine": "average", "on_no_face": "error",
        }),
        "6": ("PreviewImage", {"images": ["5", 1]}),
    }  # fmt: skip
    prompt = {n: {"class_type": c, "inputs": i, "_meta": {"title": c}} for n, (c, i) in graph.items()}
    hosts, encode, detection = (
        host.module(f"dynamicid_core.{name}") for name in ("hosts.comfy", "encode", "detection")
    )
    counted = [(hosts, "clip_tokens"), (encode, "encode_tokens"), (hosts, "load"), (detection, "load_detector")]
    counts = count_calls(counted)
    table = Table("The same graph again", ("run", "CPU ms", *(name for _, name in counted)))
    for name in ("first", "second, unchanged", "third, another order of faces"):
        prompt["5"]["inputs"]["face_order"] = "left-right" if name.startswith("third") else "large-small"
        took = seconds(lambda: host.run_graph(prompt), device)
        table.add(name, f"{1000 * took:.1f}", *(counts.pop(function, 0) for _, function in counted))
    return table


def count_calls(functions: list[tuple[object, str]]) -> dict[str, int]:
    """From now on, how often each function is called."""
    counts: dict[str, int] = {}

    def counting(name: str, function):
        def call(*args, **kwargs):
            counts[name] = counts.get(name, 0) + 1
            return function(*args, **kwargs)

        return call

    for owner, name in functions:
        setattr(owner, name, counting(name, getattr(owner, name)))
    return counts


if __name__ == "__main__":
    main()
