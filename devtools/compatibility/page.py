"""``docs/compatibility.md``, from what was found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .endurance import BLOCK, RUNS, Endured
from .packs import ALL
from .results import MatrixResults
from .trying import ACTS, Tried

VERSIONS = "versions.md"  # the table of devtools/versions.py, in the folder with results
HEAD = f"""# DynamicID beside other nodes and packs

Written by `devtools/compatibility`, which tries all that it knows of in a real ComfyUI, through its HTTP API; what has not been
tried yet is named below each table:

    python devtools/compatibility matrix OUTPUT --comfyui COMFYUI --pack PACK [PACK ...]
    python devtools/compatibility endure OUTPUT --comfyui COMFYUI
    python devtools/versions.py --comfyui COMFYUI [COMFYUI ...] -o OUTPUT/{VERSIONS}
    python devtools/compatibility page OUTPUT

## How it was tried

The faces of two drawn people ([the drawn world](evidence.md)) in pictures of 128 x 64 px and two steps on a CPU, in float32 and one thread,
with the other node and without it, with faces and without, with **Apply DynamicID** before the other node and after it. The base is
the drawn world's or, with `--small`, one of two levels with random weights. What cannot be had are stand-ins with random weights
of the right form: the LoRA, the ControlNet, the IP-Adapter (plus) and, for AnimateDiff, which knows no other widths, the
motion module and all of a base of SD1.5's size. They show that numbers meet and what becomes of them, not what
pictures look like.

| column | yes means |
|---|---|
| runs | no node failed |
| same bits | three times the same latent or picture, in all its bits: sampled, sampled again with the same objects, and after models and results had been thrown out |
| untouched | the models and prompts that were handed in, sampled again afterwards, give the bits that they gave before: the model as it was loaded, the one with faces alone, the one with the other node alone |
| faces | how much the picture changes by faces, with the other node over without it: 1 is as much; below {ACTS} counts as silently off. About a half is as much where half of the picture is sampled (inpainting) or where the prompts weigh 2 in all instead of 4 (dual CFG). Second passes begin with a picture that faces have changed already: of them, how much the faces in the pass change what it gives, over how much the pass without faces changes the picture; none where the pass has no faces |
| other | how much the other node changes the picture with faces, over the spread of its values; 0 would be silently off, except for the host's windows over frames, which know nothing of one another here |
"""
NOT_ENDURED = (
    "## For a long time\n\nNot measured yet: the script for it is there, but has not been run from beginning to end.\n"
)
DRAWN_BASE = "the drawn world's base"
VERSIONS_HEAD = """## Pythons, NumPys and ComfyUIs

What `devtools/versions.py` ran: tests of the core (`CORE` in it) with each Python and NumPy, tests in the host (`HOST`) with each
ComfyUI.
"""
MARKS = {True: "yes", False: "**no**"}


def write_page(path: Path, folder: Path) -> None:
    """Write the page from the results in a folder."""
    parts = [HEAD, *("\n".join(matrix_part(results)) for results in MatrixResults.read_all(folder))]
    endured = Endured.read_all(folder)
    parts.append("\n".join(endurance_part(endured)) if endured else NOT_ENDURED)
    if (folder / VERSIONS).is_file():
        parts.append(f"{VERSIONS_HEAD}\n{(folder / VERSIONS).read_text('utf-8')}")
    path.write_text("\n".join(parts), "utf-8")


# --- the matrix -----------------------------------------------------------------------------------------------------


def matrix_part(results: MatrixResults) -> Iterator[str]:
    """A host's table, and what does not work in it."""
    yield f"## ComfyUI {results.version}\n"
    if results.refusal:
        yield f"The pack does not load; the log says: `{results.refusal}`\n"
        return
    if results.packs:
        named = (f"{name} ({commit})" if commit else name for name, commit in sorted(results.packs.items()))
        yield f"Packs, each loaded at least where its rows were tried: {', '.join(named)}.\n"
    yield from bases(results)
    yield "| with | order | runs | same bits | untouched | faces | other |"
    yield "|---|---|---|---|---|---|---|"
    tried = sorted(results.tried, key=_position)
    yield from map(row, tried)
    yield ""
    yield from notes(tried)
    missing = [c.name for c in ALL if not results.has(c.name)]
    if missing:
        yield f"Not tried yet in this host: {'; '.join(missing)}.\n"


def bases(results: MatrixResults) -> Iterator[str]:
    """Which base models were used for what."""
    used: dict[str, dict[str, None]] = {}
    for tried in results.tried:
        used.setdefault(tried.base or DRAWN_BASE, {})[tried.name] = None
    for base, names in used.items():
        yield f"On {base}: {'all' if len(used) == 1 else ', '.join(names)}.\n"


def row(tried: Tried) -> str:
    if tried.error:
        cells = ["**no**", "", "", "", ""]
    else:
        faces = "none" if tried.faces is None else f"{tried.faces:.2f}"
        cells = ["yes", MARKS[tried.same_bits], MARKS[tried.untouched], faces, _shown(tried.other)]
    return f"| {' | '.join([tried.name, tried.order or 'only one', *cells])} |"


def _shown(other: float) -> str:
    return f"{other:.3f}" if other == 0 or other >= 0.001 else f"{other:.0e}"


def _position(tried: Tried) -> tuple[int, int]:
    """Rows come in the order in which combinations are tried."""
    place, combination = next((place, c) for place, c in enumerate(ALL) if c.name == tried.name)
    return place, list(combination.orders).index(tried.order)


def notes(rows: list[Tried]) -> Iterator[str]:
    """What does not work and why, and what the pack says in the log where it does."""
    known = {c.name: c.notes for c in ALL}
    limits = [(tried, known[tried.name].get(tried.order) or _seen(tried)) for tried in rows]
    limits = [(tried, why) for tried, why in limits if why]
    yield "What does not work:\n" if limits else "Nothing was found that does not work.\n"
    for tried, why in limits:
        yield f"- **{tried.name}{', ' + tried.order if tried.order else ''}**: {why}"
    if limits:
        yield ""
    said = [(tried.name, line) for tried in rows for line in tried.log]
    if said:
        yield "What the pack says in the log (of second passes it says more where the first is sampled in the same run; here it was not):\n"
        for name, line in dict.fromkeys(said):
            yield f"- {name}: `{line}`"
        yield ""


def _seen(tried: Tried) -> str:
    """What the numbers say against it; "" where nothing does."""
    if tried.works:
        return ""
    if tried.error:
        where = "fails without DynamicID too" if tried.alone else "fails with DynamicID"
        return f"{where}: `{' '.join(tried.error.split())}`"
    if not tried.same_bits:
        return "other bits when it is made again."
    if not tried.untouched:
        return "what was handed in gives other bits afterwards."
    return "the other node does not show." if tried.shows else "faces do not show."


# --- endurance ------------------------------------------------------------------------------------------------------


def endurance_part(endured: list[Endured]) -> Iterator[str]:
    most = max(found.runs for found in endured)
    yield "## For a long time\n"
    yield (
        f"{most} queued runs in one server (of {RUNS} that the script queues), with changing people, sizes and seeds; a tenth "
        f"is interrupted somewhere, and after every {BLOCK} runs models, results (`/free`) and the host's list of finished runs "
        "(`/history`), which keeps every graph, are thrown out. Measured is the memory of the server's process then (its own, also "
        "what was swapped out), when garbage was collected and the C library has given back what it can. The same runs without "
        "this pack's nodes show what the host's own allocator does.\n"
    )
    yield f"On {' and '.join(dict.fromkeys(found.base or DRAWN_BASE for found in endured))}.\n"
    yield "| ComfyUI | people | runs | interrupted | MB after the first ten | half way | at the end | lowest to highest | growth since the first ten | since half way | same seed, same bits | left over |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    yield from map(endured_row, endured)
    yield ""


def endured_row(found: Endured) -> str:
    memory = [state["memory"] / 2**20 for state in found.states]
    left = [
        f"{what}: {', '.join(map(str, names))}"
        for what in ("threads", "files", "replaced")
        if (names := found.left(what))
    ]
    left += [f"{count} {name}" for name, count in found.states[-1]["living"].items()]
    people = "with" if found.people else "without"
    numbers = [
        *(f"{memory[place]:.0f}" for place in (0, found.half, -1)),
        f"{min(memory):.0f} to {max(memory):.0f}",
        *(f"{100 * found.growth(since):+.1f}%" for since in (0, found.half)),
        MARKS[found.same_bits],
        "; ".join(left) or "nothing",
    ]
    return f"| {' | '.join([found.version, people, str(found.runs), str(found.interrupted), *numbers])} |"
