"""``docs/evidence.md``: the claims, the numbers, the sheets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asked import SEEDS, Series
from judging import JUDGE, Results

from dynamicid_core.evaluation.statistics import Estimate


@dataclass(frozen=True)
class Claim:
    says: str
    measure: str
    series: str
    key: str
    recogniser: str | None
    wanted: str


CLAIMS = (
    Claim("identity", "nearest of 100 held-out people, one person", "one", "identified", JUDGE, "80%"),
    Claim("two people", "the right person in each place", "two", "place", JUDGE, "75%"),
    Claim("two people", "right number of people", "two", "count", JUDGE, "90%"),
    Claim("three people", "the right person in each place", "three", "place", JUDGE, "75%"),
    Claim("three people", "right number of people", "three", "count", JUDGE, "90%"),
    Claim("four people", "the right person in each place", "four", "place", JUDGE, "75%"),
    Claim("four people", "right number of people", "four", "count", JUDGE, "90%"),
    Claim("boxes swapped", "the right person in each place", "swapped", "place", JUDGE, "75%"),
    Claim("expression", "read as asked for (chance 14%)", "expressions", "expression", None, "80%"),
    Claim("pose", "read as asked for (chance 20%)", "poses", "pose", None, "80%"),
    Claim(
        "expression, asked for in the prompt too", "read as asked for", "expressions_in_both", "expression", None, "80%"
    ),
    Claim("pose, asked for in the prompt too", "read as asked for", "poses_in_both", "pose", None, "80%"),
)
SHEETS = {
    "people": "Eight people: the photo, then a picture with each noise.",
    "expressions": "Six people: the photo, then happy, surprise, sad, anger, disgust, fear, neutral by the IMR, one noise.",
    "two": "Two people: their photos, then a picture with each noise.",
    "three": "Three people.",
    "four": "Four people.",
    "swapped": "Photos; each in their box; the boxes swapped, the same noise.",
    "blends": "Two photos; blends from the first to the second in quarters, the same noise.",
    "gate": "Photos; the model without faces; with faces; with faces and no gate, all with the same noise.",
}


def percent(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    return f"{estimate.mean:.0%} [{estimate.low:.0%}, {estimate.high:.0%}]"


def number(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def claims_table(results: Results) -> str:
    rows = ["| claim | measure | wanted | measured [95%] |", "|---|---|---|---|"]
    rows += [
        f"| {c.says} | {c.measure} | {c.wanted} | {percent(results.estimate(c.series, c.key, c.recogniser))} |"
        for c in CLAIMS
    ]
    blending, kept = results.estimate("two", "blending"), results.kept()
    if blending:
        rows.append(
            f"| leakage | similarity to the other person, less that of strangers ({results.strangers:.3f}) | at most 0.05 | "
            f"{blending.mean - results.strangers:+.3f} |"
        )
    if kept:
        rows.append(f"| editing keeps identity | similarity after over before | 0.9 | {kept:.2f} |")
    with_gate, without = results.estimate("two", "outside", None), results.estimate("no_gate", "outside", None)
    if with_gate and without:
        rows.append(
            f"| the gate disturbs less | change where nobody is, over that without gate | at most 0.5 | "
            f"{with_gate.mean / without.mean:.2f} |"
        )
    return "\n".join(rows)


def series_table(results: Results, every: Sequence[Series]) -> str:
    rows = [
        "| series | pictures | nearest of 100 | similarity | right number | right place | blending | expression | pose | change outside |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for series in every:
        if series.name not in results.runs or not series.faces:
            continue
        shares = [percent(results.estimate(series.name, key)) for key in ("identified", "count", "place")]
        plain = [number(results.estimate(series.name, key)) for key in ("matched", "blending")]
        read = [percent(results.estimate(series.name, key, None)) for key in ("expression", "pose")]
        rows.append(
            f"| {series.says} | {len(results.runs[series.name].pictures)} | {shares[0]} | {plain[0]} | {shares[1]} | "
            f"{shares[2]} | {plain[1]} | {read[0]} | {read[1]} | {number(results.estimate(series.name, 'outside', None))} |"
        )
    return "\n".join(rows)


def _asked(scale: float) -> str:
    return "All questions." if scale == 1 else f"Of all questions the first {scale:.0%} (`--scale {scale:g}`)."


def write_page(path: Path, results: Results, every: Sequence[Series], sheets: Sequence[Path], scale: float) -> None:
    """Between the marks of the page, so that what people wrote around the numbers stays. ``scale``: that of the series."""
    pictures = "\n\n".join(
        f"{SHEETS[sheet.stem]}\n\n![{sheet.stem}]({sheet.relative_to(path.parent).as_posix()})" for sheet in sheets
    )
    parts = {
        "claims": claims_table(results),
        "series": f"{series_table(results, every)}\n\n{_asked(scale)} Every question with the noise of seeds {', '.join(map(str, SEEDS))}.",
        "sheets": pictures,
    }
    text = path.read_text(encoding="utf-8")
    for name, content in parts.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not mark or not end:
            raise SystemExit(f"{path} has no marks for {name}.")
        text = f"{before}{mark}\n{content}\n\n{end}{after}"
    path.write_text(text, encoding="utf-8")
