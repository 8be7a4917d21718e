"""The model files that a workflow needs: those that ComfyUI lists, and downloads of those that are missing.

Runs in ComfyUI's own Python, which has torch and, with this pack's requirements, insightface.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from comfyui.speaking import Client
from environment import SetupError, agrees, need_core

need_core()
from dynamicid_core.catalogue import ModelFile, model_file  # noqa: E402
from dynamicid_core.errors import DynamicIDError  # noqa: E402
from dynamicid_core.fetching import fetch, fetch_archive, fetch_weights, show  # noqa: E402

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


def single_file(wanted: ModelFile, folder: Path) -> None:
    """Fetch a file to the folder and name that the workflows use."""
    (published,) = wanted.files
    _saying(fetch, published, folder / wanted.path, show)


def dynamicid_weights(folder: Path) -> None:
    """The published pickles, and the same as safetensors under the names that the workflows use."""
    from dynamicid_core.checkpoints import convert

    _saying(lambda: convert(fetch_weights(folder / "dynamicid", show)))


def face_pack(folder: Path) -> None:
    """InsightFace's models."""
    (published,) = PACK.files
    _saying(fetch_archive, published, folder / PACK.path, lambda: _has_pack(folder), show)


def _has_pack(folder: Path) -> bool:
    from dynamicid_core.detection import find_pack
    from dynamicid_core.types import DynamicIDError

    try:
        find_pack(str(folder / PACK.path))
    except DynamicIDError:
        return False
    return True


def _saying(function: Callable[..., object], *arguments: object) -> None:
    try:
        function(*arguments)
    except DynamicIDError as error:
        raise SetupError(str(error)) from None


def wanted(expressions: bool) -> list[Wanted]:
    """The files of ``two_people``, or of ``edited_expression``."""

    def hub(node: str, name: str, key: str) -> Wanted:
        entry = model_file(key)
        return Wanted(node, name, entry, f"{entry.what} ({entry.size})", lambda folder: single_file(entry, folder))

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
