"""The model files that a workflow needs: those that ComfyUI lists, and downloads of those that are missing.

Runs in ComfyUI's own Python, which has torch and, with this pack's requirements, huggingface_hub and insightface.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from comfyui.speaking import Client
from environment import SetupError, agrees, need_core

need_core()
from dynamicid_core.catalogue import ModelFile, model_file  # noqa: E402

PACK = model_file("face_pack")


@dataclass(frozen=True)
class Wanted:
    """One entry of a loader node: which files serve, and how to get one if none is there."""

    node: str
    input: str
    model: ModelFile
    what: str  # to be fetched; entries may share it
    fetch: Callable[[Path], None]  # into the models folder

    def present(self, client: Client) -> str | None:
        """The best file that ComfyUI lists and that serves."""
        return self.model.choose(client.choices(self.node, self.input))


def from_hub(wanted: ModelFile, folder: Path) -> None:
    """Fetch a file of the Hugging Face hub to the folder and name that the workflows use. Resumes what was cut short."""
    from huggingface_hub import hf_hub_download

    (url,), (path,) = wanted.urls, wanted.published
    target = folder / wanted.path
    partial = target.parent / ".download"
    try:
        fetched = hf_hub_download(wanted.repository, path, local_dir=partial)
        os.replace(fetched, target)
    except Exception as error:  # the hub's own errors, those of the HTTP library beneath it, and of the disk
        raise SetupError(
            f"{wanted.name} could not be fetched ({type(error).__name__}); download {url} in a browser and "
            f"save it as {target}."
        ) from None
    shutil.rmtree(partial, ignore_errors=True)


def dynamicid_weights(folder: Path) -> None:
    """The published pickles, and the same as safetensors under the names that the workflows use."""
    from dynamicid_core.checkpoints import convert
    from dynamicid_core.files import download
    from dynamicid_core.types import DynamicIDError

    try:
        convert(download(folder / "dynamicid"))
    except DynamicIDError as error:
        raise SetupError(str(error)) from None


def face_pack(folder: Path) -> None:
    """InsightFace's models, by InsightFace's own downloader."""
    from insightface.utils import ensure_available

    root = folder / "insightface"
    try:
        ensure_available("models", PACK.name, root=str(root))
    except Exception as error:
        (url,) = PACK.urls
        raise SetupError(
            f"The face models could not be fetched ({type(error).__name__}); unpack {url} into {folder / PACK.path}."
        ) from None


def wanted(expressions: bool) -> list[Wanted]:
    """The files of ``two_people``, or of ``edited_expression``."""

    def hub(node: str, name: str, key: str) -> Wanted:
        entry = model_file(key)
        return Wanted(node, name, entry, f"{entry.what} ({entry.size})", lambda folder: from_hub(entry, folder))

    saa, imr = model_file("saa"), model_file("imr")
    weights = f"{saa.what} ({saa.gigabytes + imr.gigabytes:.1f} GB)"  # fetched together
    files = [
        hub("CheckpointLoaderSimple", "ckpt_name", "checkpoint"),
        hub("VAELoader", "vae_name", "vae"),
        hub("CLIPVisionLoader", "clip_name", "clip_vision"),
        Wanted("DynamicIDLoader", "saa_file", saa, weights, dynamicid_weights),
    ]
    if expressions:
        files.append(Wanted("DynamicIDLoader", "imr_file", imr, weights, dynamicid_weights))
    return files


def choose(client: Client, folder: Path | None, expressions: bool, yes: bool) -> dict[tuple[str, str], str]:
    """(node, input) -> file, for every loader; asks, and fetches into ``folder``, what ComfyUI does not list.

    Without a folder (a ComfyUI elsewhere) nothing is fetched. Raises SetupError if something is missing and the user
    does not agree, or if it cannot be fetched.
    """
    files = wanted(expressions)
    missing = {file.what: file for file in files if file.present(client) is None}
    if folder is None:
        if missing:
            raise SetupError(
                f"The ComfyUI at {client.url} lacks {', '.join(missing)}; put them into its models folder."
            )
        return {(file.node, file.input): file.present(client) for file in files}
    if missing:
        question = f"Missing: {', '.join(missing)}. Download into {folder}? [y/N] "
        if not (yes or agrees(question)):
            raise SetupError(f"Missing in {folder}: {', '.join(missing)}; let this script fetch them with --yes.")
        for file in missing.values():
            print(f"Fetching {file.what} ...", flush=True)
            file.fetch(folder)
    need_face_pack(folder, yes)
    found = {(file.node, file.input): file.present(client) for file in files}
    if absent := [file.what for file in files if found[file.node, file.input] is None]:
        raise SetupError(f"ComfyUI at {client.url} does not list {', '.join(absent)}; does it use {folder}?")
    return found


def need_face_pack(folder: Path, yes: bool) -> None:
    """Make sure that InsightFace's models are there; their licence is the user's to accept.

    Raises SetupError if the user does not.
    """
    from dynamicid_core.detection import PACK_LICENCE, find_pack
    from dynamicid_core.types import DynamicIDError

    try:
        find_pack(PACK.name, [folder / "insightface"])
    except DynamicIDError:
        print(PACK_LICENCE, file=sys.stderr)
        if not (yes or agrees(f"Is your use non-commercial research, and shall they be fetched ({PACK.size})? [y/N] ")):
            raise SetupError(
                f"The face models {PACK.name} are missing in {folder / 'insightface'}; accept their licence with --yes, or "
                "put them there yourself."
            ) from None
        face_pack(folder)
