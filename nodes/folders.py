"""Where the host keeps this pack's files."""

from __future__ import annotations

import os
import re

import folder_paths

from ..dynamicid_core.catalogue import is_drawn
from ..dynamicid_core.face_files import FACE_FORMAT
from ..dynamicid_core.files import CHECKPOINT_SUFFIXES
from ..dynamicid_core.types import DynamicIDError

MODELS = "dynamicid"
FACE_SUFFIX = ".safetensors"


def register_folders() -> None:
    """Make ``models/dynamicid`` known; a user's extra_model_paths.yaml may have named other places already."""
    folder_paths.add_model_folder_path(MODELS, os.path.join(folder_paths.models_dir, MODELS))
    paths = folder_paths.folder_names_and_paths[MODELS][0]
    folder_paths.folder_names_and_paths[MODELS] = (paths, set(CHECKPOINT_SUFFIXES))


def checkpoints(part: str) -> list[str]:
    """Files in ``models/dynamicid``; those named after ``part`` ("saa", "imr") before others, safetensors first, and the
    drawn world's after those of photos."""
    try:
        names = folder_paths.get_filename_list(MODELS)
    except OSError:  # the folder went while the host was running, and the host remembers what was in it
        folder_paths.filename_list_cache.pop(MODELS, None)
        names = folder_paths.get_filename_list(MODELS)
    return sorted(names, key=lambda n: (part not in n.lower(), is_drawn(n), not n.endswith(FACE_SUFFIX), n))


def files_in(folder: str) -> list[str]:
    """Files of one of the host's own folders, the drawn world's after those of photos."""
    return sorted(folder_paths.get_filename_list(folder), key=lambda name: (is_drawn(name), name))


def companion(saa_file: str) -> str | None:
    """The IMR file that goes with an SAA file: the one of the same name with "imr" for "saa", else the only one."""
    found = [name for name in checkpoints("imr") if "imr" in name.lower()]
    stem = os.path.splitext(saa_file)[0].lower().replace("saa", "imr")
    same = [name for name in found if os.path.splitext(name)[0].lower() == stem]
    return same[0] if same else found[0] if len(found) == 1 else None


def checkpoint_path(name: str) -> str:
    return folder_paths.get_full_path_or_raise(MODELS, name)


def insightface_roots() -> list[str]:
    """Folders with InsightFace packs: the host's ``models/insightface`` and what extra_model_paths.yaml adds."""
    known = folder_paths.folder_names_and_paths.get("insightface", ([], set()))[0]
    return list(dict.fromkeys([*known, os.path.join(folder_paths.models_dir, "insightface")]))


def pack_name(name: str) -> str:
    """What was typed for a face model pack. Raises DynamicIDError for a path that leads out of the host's folders."""
    name = name.strip()
    if ".." in re.split(r"[\\/]", name) or name.startswith(("/", "\\", "~")) or re.match(r"[A-Za-z]:", name):
        raise DynamicIDError(f"model_pack is {name!r}; give the name of a folder in models/insightface/models.")
    return name


def face_files() -> list[str]:
    """Face files in the host's input folder, and, marked as the host does, in its output folder."""
    found = []
    for folder, mark in ((folder_paths.get_input_directory(), ""), (folder_paths.get_output_directory(), " [output]")):
        for base, _, names in os.walk(folder):
            paths = (os.path.join(base, name) for name in names if name.endswith(FACE_SUFFIX))
            relative = (os.path.relpath(path, folder) for path in paths if _is_face_file(path))
            found += [name.replace(os.sep, "/") + mark for name in relative]
    return sorted(found)


def _is_face_file(path: str) -> bool:
    """Whether a safetensors file's metadata, which come first, call it a face; the output folder holds other files too.

    What is no file is left alone: a pipe would wait for whoever writes into it, and the host with it.
    """
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return FACE_FORMAT.encode() in file.read(4096)
    except OSError:
        return False


def face_path(name: str) -> str:
    """Where a face file of that name lies. Raises ValueError for a name that leads out of the host's folders."""
    path = os.path.abspath(folder_paths.get_annotated_filepath(name))
    folders = (
        folder_paths.get_input_directory(),
        folder_paths.get_output_directory(),
        folder_paths.get_temp_directory(),
    )
    if not any(path.startswith(os.path.join(os.path.abspath(folder), "")) for folder in folders):
        raise ValueError(f"{name!r} does not lie in the host's input or output folder.")  # older hosts do not check
    return path


def _named_folders() -> dict[str, str]:
    """The installation's folders -> what messages call them."""
    named = {
        folder_paths.get_output_directory(): "output",
        folder_paths.get_input_directory(): "input",
        folder_paths.get_temp_directory(): "temp",
        folder_paths.models_dir: "models",
        folder_paths.base_path: "ComfyUI",
        os.path.dirname(os.path.dirname(os.path.abspath(__file__))): "comfyui-dynamicid",
        os.path.expanduser("~"): "~",
    }
    for kind, (places, *_) in folder_paths.folder_names_and_paths.items():  # those of extra_model_paths.yaml too
        for place in map(os.fspath, places):
            if not place.startswith(os.path.join(folder_paths.models_dir, "")):
                named.setdefault(place, kind)
    for folder, name in [*named.items()]:
        named.setdefault(os.path.realpath(folder), name)
    return {folder: name for folder, name in named.items() if len(folder) > len("C:\\x")}


def without_folders(message: str) -> str:
    """A message for the browser, which names files from the host's folders on: where it lies is nobody's business."""
    for folder, name in sorted(_named_folders().items(), key=lambda entry: -len(entry[0])):
        message = re.sub(rf"(?<![\w\\/.~-]){re.escape(folder)}(?![\w-])", name, message)
    return message


def new_face_path(prefix: str, person: str = "") -> tuple[str, str, str]:
    """A free place for a face file under the output folder: path, file name, subfolder.

    The file is called as ``person`` (with a number from 2, where that is taken), else by the prefix and a number.
    """
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    person = re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", person).strip(" .")
    file = f"{person or f'{name}_{counter:05}_'}{FACE_SUFFIX}"
    number = 1
    while person and os.path.exists(os.path.join(folder, file)):
        number += 1
        file = f"{person} {number}{FACE_SUFFIX}"
    return os.path.join(folder, file), file, subfolder
