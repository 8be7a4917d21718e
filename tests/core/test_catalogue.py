"""Each model's name, address, size, folder and licence: as the catalogue has them, wherever people and programs read them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynamicid_core.catalogue import HUB, ModelFile, model_file, model_files
from dynamicid_core.drawn import world

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GRAPHS = sorted([*(ROOT / "workflows").glob("*.json"), *(ROOT / "subgraphs").glob("*.json")])
# Loader node -> its widgets, in order -> the model that the templates name there.
LOADERS = {
    "CheckpointLoaderSimple": ("checkpoint",),
    "VAELoader": ("vae",),
    "CLIPVisionLoader": ("clip_vision",),
    "DynamicIDLoader": ("saa", "imr"),
    "DynamicIDFaceAnalysis": ("face_pack",),
    "DynamicIDLoadModels": ("checkpoint", "vae", "clip_vision", "saa", "imr", "face_pack"),
}
# Templates run on the drawn world as they are opened; what they offer is for photos.
DRAWN_FILES = {
    "checkpoint": world.CHECKPOINT,
    "vae": world.VAE,
    "clip_vision": world.CLIP_VISION,
    "saa": world.SAA,
    "imr": world.IMR,
    "face_pack": world.FACES,
}
DOWNLOADED_BY_THE_HOST = ("checkpoint", "vae", "clip_vision")
ALL_IN_ONE = "DynamicIDLoadModels"
EXAMPLES = {
    "anna.safetensors",
    "anna_moving.safetensors",
    "ben.safetensors",
    "film.safetensors",
    "realistic_vision.safetensors",
    "sdxl.safetensors",
    "surprised.safetensors",
}  # a user's own files
# What one module alone has to know: whose recognisers other packs have, parts of a training's state, the drawn world's.
KNOWN_TO = {
    "detection.py": {"buffalo_m", "buffalo_s", "buffalo_sc"},
    "state.py": {"trained.safetensors"},
    "world.py": {"_vae.safetensors", "_vision.safetensors"},
    "recipe.py": {"begin_saa.safetensors", "begin_taught.safetensors", "begin_imr.safetensors"},
    "face_pictures.py": {"pictures.bin", "again.bin"},
}
# Names of model files and packs, addresses of models.
NAMES = re.compile(r"(?<![\w.*/-])[\w.-]+\.(?:safetensors|bin|zip)\b|CLIP-ViT[\w-]+|\bbuffalo_\w+(?!\.)", re.ASCII)
ADDRESSES = re.compile(r"https://(?:huggingface\.co|github\.com/deepinsight)/[\w./-]*\w", re.ASCII)


# --- the catalogue itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", model_files(), ids=lambda file: file.key)
def test_entry_is_whole_and_serves_itself(file: ModelFile) -> None:
    assert model_file(file.key) is file
    assert all((file.what, file.name, file.folder, file.licence, file.urls)) and file.gigabytes > 0
    assert file.commercial is ("non-commercial" not in file.licence)
    assert file.choose(["other.safetensors", file.name.upper()]) == file.name.upper()
    assert file.choose([f"drawn_world_{file.name}", f"sub/drawn_world_{file.name}"]) is None
    assert file.choose([f"sd15/{file.name}"]) == f"sd15/{file.name}" and file.choose([f"a\\{file.name}"])
    assert file.choose(["other.safetensors", "README.md"]) is None
    for url, published in zip(file.urls, file.published, strict=True):
        if file.repository:
            assert url == f"{HUB}{file.repository}/resolve/main/{published}"
        else:
            assert url.startswith(f"{file.page}/") and url.endswith(f"/{published}")


def test_the_best_of_several_files_is_chosen() -> None:
    saa, checkpoint = model_file("saa"), model_file("checkpoint")
    assert saa.choose(["SAA.bin", "saa.safetensors"]) == "saa.safetensors"
    assert saa.choose(["IMR.bin", "SAA.bin"]) == "SAA.bin"
    assert checkpoint.choose(["Realistic_Vision_V6.0_B1.safetensors", checkpoint.name]) == checkpoint.name
    with pytest.raises(KeyError):
        model_file("unknown")


# --- the README's table -------------------------------------------------------------------------------------------


def readme_rows(text: str) -> list[list[str]]:
    """The cells of the table of model files, without the last row, which is about face files."""
    (table,) = re.findall(
        r"^\| File \| Folder \| Size \| Source \| Licence \|\n\|[-|]+\n((?:\|.+\n)+)", text, re.MULTILINE
    )
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()][:-1]


def readme_mistakes(text: str) -> Iterator[str]:
    rows = readme_rows(text)
    if len(rows) != len(model_files()):
        yield f"{len(rows)} rows"
    for file, (what, folder, size, source, licence) in zip(model_files(), rows, strict=False):
        ((label, page),) = re.findall(r"\[([^\]]+)\]\(([^)]+)\)", source)
        expected = (file.repository, file.page) if file.repository else (file.published[0], file.urls[0])
        if (label, page) != expected:
            yield f"{file.key}: source {source}"
        named = set(re.findall(r"`([^`]+)`", what + source)) - {".onnx"} | {label}
        if named != {file.name, *file.published} | {label}:
            yield f"{file.key}: names {named}"
        if (folder, size, licence) != (f"`{file.folder}`", file.size, file.licence):
            yield f"{file.key}: {folder}, {size}, {licence}"


def test_readme_lists_the_models_as_they_are() -> None:
    assert list(readme_mistakes(README)) == []


@pytest.mark.parametrize("file", model_files(), ids=lambda file: file.key)
def test_a_wrong_name_address_size_or_licence_in_the_readme_is_seen(file: ModelFile) -> None:
    (line,) = [line for line in README.splitlines() if line.startswith(f"| `{file.name}`")]
    source = file.page if file.repository else file.urls[0]
    for right in (file.name, f"`{file.folder}`", f"| {file.size} |", f"({source})", f"| {file.licence} |"):
        assert right in line
        assert list(readme_mistakes(README.replace(line, line.replace(right, f"{right[:-2]}x{right[-2:]}")))), right


def test_readme_states_the_licences_once_more_in_words() -> None:
    saa, pack = model_file("saa"), model_file("face_pack")
    assert f"(`{saa.repository}` on the Hugging Face hub): {saa.licence}." in README
    assert re.search(rf"InsightFace's model packs[^*]+\*\*for {pack.licence}\*\*", README.replace("\n", " "))


# --- templates and blueprints -------------------------------------------------------------------------------------


def nodes_of(graph: dict) -> list[dict]:
    inner = graph.get("definitions", {}).get("subgraphs", [])
    return [node for part in (graph, *inner) for node in part["nodes"] if node["type"] in LOADERS]


def graph_mistakes(graph: dict) -> Iterator[str]:
    for node in nodes_of(graph):
        files = [model_file(key) for key in LOADERS[node["type"]]]
        for file, value in zip(files, node["widgets_values"], strict=False):
            if value not in {Path(DRAWN_FILES[file.key]).name, "auto" if file.key == "imr" else ""}:
                yield f"{node['type']}: {value}"
        offered = [
            {"name": f.name, "url": f.urls[0], "directory": f.folder} for f in files if f.key in DOWNLOADED_BY_THE_HOST
        ]
        if node["properties"].get("models", []) != offered:
            yield f"{node['type']}: {node['properties'].get('models')}"


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_templates_and_blueprints_name_and_offer_the_models_as_they_are(path: Path) -> None:
    graph = json.loads(path.read_text(encoding="utf-8"))
    assert {node["type"] for node in nodes_of(graph)} in ({ALL_IN_ONE}, set(LOADERS) - {ALL_IN_ONE})
    assert list(graph_mistakes(graph)) == []
    for node in nodes_of(graph):
        for offered in node["properties"].get("models", []):
            for key, value in offered.items():
                assert list(graph_mistakes(json.loads(json.dumps(graph).replace(value, f"{value}x")))), (key, value)


# --- everything else that people read -----------------------------------------------------------------------------


def strangers(text: str) -> set[str]:
    """Names and addresses of models in a text that the catalogue does not have."""
    files = model_files()
    names = {name for file in files for path in (file.name, *file.published) for name in (path, Path(path).name)}
    names |= {Path(name).stem for name in names} | EXAMPLES
    addresses = {address for file in files for address in (file.page, *file.urls)} | {HUB.rstrip("/")}
    return set(NAMES.findall(text)) - names | set(ADDRESSES.findall(text)) - addresses


def texts() -> list[Path]:
    places = ("README.md", "docs/*.md", "web/docs/**/*.md", "web/js/*.js", "locales/*/*.json", "nodes/*.py")
    return [path for place in (*places, "dynamicid_core/**/*.py", "scripts/**/*.py") for path in ROOT.glob(place)]


def test_help_pages_texts_and_messages_name_no_other_models() -> None:
    found = {path: strangers(path.read_text(encoding="utf-8")) - KNOWN_TO.get(path.name, set()) for path in texts()}
    assert {str(path): names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("node, keys", [("DynamicIDLoader", ("saa", "imr")), ("DynamicIDFaceAnalysis", ("face_pack",))])
def test_help_pages_say_where_models_come_from(node: str, keys: tuple[str, ...]) -> None:
    for page in (ROOT / f"web/docs/{node}.md", *(ROOT / "web/docs" / node).glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for file in map(model_file, keys):
            assert f"`models/{file.folder if file.repository else file.path}`" in text, (page, file.key)
            source = f"({file.page})" if file.repository else f"[{file.published[0]}]({file.urls[0]})"
            assert source in text and all(f"`{name}`" in text for name in file.published if file.repository)
    assert f"**for {model_file('face_pack').licence}**" in (ROOT / "web/docs/DynamicIDFaceAnalysis.md").read_text(
        "utf-8"
    )


def test_strange_models_are_seen() -> None:
    assert (
        strangers("Load CLIP-ViT-H-14-laion2B-s32B-b79K, `saa.safetensors` or SAA.bin, then anna.safetensors.") == set()
    )
    assert strangers(f"see {HUB}h94/IP-Adapter, and [buffalo_l.zip]({model_file('face_pack').urls[0]})") == set()
    assert strangers("Load CLIP-ViT-H-14-laion2B") == {"CLIP-ViT-H-14-laion2B"}
    assert strangers("Put SAAA.bin and buffalo_s there") == {"SAAA.bin", "buffalo_s"}
    assert strangers(f"see {HUB}somebody/DynamicID") == {f"{HUB}somebody/DynamicID"}
