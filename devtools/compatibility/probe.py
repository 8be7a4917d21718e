"""For ComfyUIs that the compatibility scripts start, as a custom node: keeps values as they are, and tells the process's state.

``GET /compatibility/state`` collects garbage, gives free memory back to the system and tells: bytes of its own memory; threads and open
files; living objects of the pack that belong to a sampling run; functions of the host that somebody replaced.
"""

import ctypes
import ctypes.util
import gc
import sys
import threading
from pathlib import Path

import folder_paths
import numpy as np
import psutil
from aiohttp import web
from server import PromptServer

HOST = ("comfy.", "comfy_execution.", "execution", "folder_paths", "nodes", "server")  # modules that packs patch
OF_A_RUN = (
    "FacePatch",
    "CallWithFaces",
    "Run",
    "Memory",
    "Call",
    "SiteFaces",
)  # classes: nothing of them outlives a run


class AnyType(str):
    """A type that every socket takes."""

    def __ne__(self, other: object) -> bool:
        return False


class Keep:
    """Writes a latent's or picture's numbers, all bits, to ``kept/<name>.npy`` in the output folder."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"value": (AnyType("*"),), "name": ("STRING", {})}})
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "keep"
    CATEGORY = "compatibility"

    def keep(self, value, name: str) -> dict:
        tensor = value["samples"] if isinstance(value, dict) else value
        folder = Path(folder_paths.get_output_directory()) / "kept"
        folder.mkdir(exist_ok=True)
        np.save(folder / f"{name}.npy", tensor.float().cpu().numpy())
        return {}


def replaced_functions() -> list[str]:
    """Functions and methods of the host whose code lies in a custom node."""
    found = []
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith(HOST) and getattr(module, "__file__", None):
            for name, value in list(vars(module).items()):
                members = vars(value).items() if isinstance(value, type) else [(None, value)]
                for member, function in members:
                    code = getattr(getattr(function, "__func__", function), "__code__", None)
                    if code is not None and "custom_nodes" in code.co_filename:
                        found.append(".".join(filter(None, (module_name, name, member))))
    return sorted(set(found))


def living() -> dict[str, int]:
    """How many objects of a run there are, by class."""
    counts = {}
    for thing in gc.get_objects():
        kind = type(thing)
        if kind.__name__ in OF_A_RUN and "dynamicid_core" in kind.__module__:
            counts[kind.__name__] = counts.get(kind.__name__, 0) + 1
    return counts


def give_back() -> None:
    """What the C library holds although nobody uses it; only glibc can."""
    gc.collect()
    library = ctypes.util.find_library("c")
    trim = getattr(ctypes.CDLL(library), "malloc_trim", None) if library else None
    if trim:
        trim(0)


def own_memory(process: psutil.Process) -> int:
    """Bytes that are this process's alone, also those that the system has swapped out; on Linux without mapped files, of which
    the system keeps in memory what it likes."""
    rollup = Path("/proc/self/smaps_rollup")
    if not rollup.exists():
        return process.memory_full_info().uss
    sizes = dict(line.split(":") for line in rollup.read_text().splitlines()[1:])
    return sum(1024 * int(sizes[name].split()[0]) for name in ("Anonymous", "Swap"))


@PromptServer.instance.routes.get("/compatibility/state")
async def state(request: web.Request) -> web.Response:
    give_back()
    process = psutil.Process()
    return web.json_response(
        {
            "memory": own_memory(process),
            "threads": sorted(thread.name for thread in threading.enumerate()),
            "native_threads": process.num_threads(),
            "files": sorted(found.path for found in process.open_files()),
            "descriptors": process.num_fds() if hasattr(process, "num_fds") else process.num_handles(),
            "living": living(),
            "replaced": replaced_functions(),
        }
    )


NODE_CLASS_MAPPINGS = {"CompatibilityKeep": Keep}
