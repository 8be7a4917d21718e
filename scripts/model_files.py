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

from build_workflows import CHECKPOINT, CLIP_VISION, HUB, VAE
from comfy_client import Client
from environment import SetupError
from setup import agrees

PACK = "buffalo_l"


@dataclass(frozen=True)
class Wanted:
    """One entry of a loader node: which files serve, and how to get one if none is there."""

    node: str
    input: str
    serves: Callable[[str], bool]  # of a file's lower-case name
    what: str
    fetch: Callable[[Path], None]  # into the models folder

    def present(self, client: Client) -> str | None:
        """The first file that ComfyUI lists and that serves."""
        return next((name for name in client.choices(self.node, self.input) if self.serves(name.lower())), None)


def from_hub(model: dict[str, str], folder: Path) -> None:
    """Fetch a file of the Hugging Face hub to the folder and name that the workflows use. Resumes what was cut short."""
    from huggingface_hub import hf_hub_download

    repository, path = model["url"].removeprefix(f"{HUB}/").split("/resolve/main/")
    target = folder / model["directory"] / model["name"]
    partial = target.parent / ".download"
    try:
        fetched = hf_hub_download(repository, path, local_dir=partial)
        os.replace(fetched, target)
    except Exception as error:  # the hub's own errors, those of the HTTP library beneath it, and of the disk
        raise SetupError(
            f"{model['name']} could not be fetched ({type(error).__name__}); download {model['url']} in a browser and "
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
        ensure_available("models", PACK, root=str(root))
    except Exception as error:
        from dynamicid_core.detection import PACK_URL

        raise SetupError(
            f"The face models could not be fetched ({type(error).__name__}); unpack {PACK_URL} into "
            f"{root / 'models' / PACK}."
        ) from None


def wanted(expressions: bool) -> list[Wanted]:
    """The files of ``two_people``, or of ``edited_expression``."""
    files = [
        Wanted(
            "CheckpointLoaderSimple", "ckpt_name", lambda name: name.endswith(CHECKPOINT["name"].lower()),
            "Realistic Vision V6.0 B1 (checkpoint, 2.1 GB)", lambda folder: from_hub(CHECKPOINT, folder),
        ),
        Wanted("VAELoader", "vae_name", lambda name: "ft-mse-840000" in name,
               "its VAE (0.3 GB)", lambda folder: from_hub(VAE, folder)),
        Wanted("CLIPVisionLoader", "clip_name", lambda name: "vit-h-14" in name,
               "CLIP ViT-H/14 (2.5 GB)", lambda folder: from_hub(CLIP_VISION, folder)),
        Wanted("DynamicIDLoader", "saa_file", lambda name: "saa" in name,
               "the DynamicID weights (0.6 GB)", dynamicid_weights),
    ]  # fmt: skip
    if expressions:
        files.append(
            Wanted("DynamicIDLoader", "imr_file", lambda name: "imr" in name, files[-1].what, dynamicid_weights)
        )
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
        find_pack(PACK, [folder / "insightface"])
    except DynamicIDError:
        print(PACK_LICENCE, file=sys.stderr)
        if not (yes or agrees("Is your use non-commercial research, and shall they be fetched (0.3 GB)? [y/N] ")):
            raise SetupError(
                f"The face models {PACK} are missing in {folder / 'insightface'}; accept their licence with --yes, or "
                "put them there yourself."
            ) from None
        face_pack(folder)
