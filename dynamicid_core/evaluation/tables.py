"""A table of results as Markdown, CSV and LaTeX. In a table a row is a metric by one recogniser."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from ..writing import write
from .definitions import Metric
from .results import TABLES
from .statistics import Estimate, Line, Table, as_json

ARROWS = {"higher": "\u2191", "lower": "\u2193", "": ""}  # what is better
COLUMNS = ("run", "group", "metric", "label", "recogniser", "mean", "low", "high", "pictures")


def shown(estimate: Estimate | None, metric: Metric, signed: bool = False) -> str:
    """ "0.62 [0.58, 0.66]", or "93% [87, 98]" for a share; a difference has its sign, in percent points."""
    if estimate is None:
        return ""
    scale, digits = (100, 0) if metric.share else (1, 3 if metric.key in ("outside", "clip_t") else 2)
    form = f"{{:{'+' if signed else ''}.{digits}f}}"

    def number(value: float) -> str:
        text = form.format(value * scale)
        return text.lstrip("+-") if float(text) == 0 else text

    mean = number(estimate.mean) + ("" if not metric.share else " points" if signed else "%")
    if math.isnan(estimate.low):
        return mean
    return f"{mean} [{number(estimate.low)}, {number(estimate.high)}]"


def named(metric: Metric, gallery: int) -> str:
    """What a metric is called: "Nearest of 64", "Blending"."""
    return f"Nearest of {gallery}" if metric.key == "identified" else metric.label


def header(table: Table) -> list[str]:
    """Column titles after metric and recogniser."""
    if len(table.runs) == 1:
        return table.groups
    return [*table.runs, *(f"{run} - {table.runs[0]}" for run in table.runs[1:])]


def sections(table: Table) -> list[tuple[str, list[tuple[Line, list[str]]]]]:
    """(title, rows); a row is its first line and its cells. One run: groups are columns; several: they are sections."""
    if len(table.runs) > 1:
        return [
            (group, [(line, _compared(line)) for line in table.lines if line.group == group]) for group in table.groups
        ]
    rows: dict[tuple[str, str | None], dict[str, Line]] = {}
    for line in table.lines:
        rows.setdefault((line.metric.key, line.recogniser), {})[line.group] = line
    found = []
    for by_group in rows.values():
        first = next(iter(by_group.values()))
        cells = [by_group[group].estimates[0] if group in by_group else None for group in table.groups]
        found.append((first, [shown(cell, first.metric) for cell in cells]))
    return [("", found)]


def _compared(line: Line) -> list[str]:
    cells = [shown(estimate, line.metric) for estimate in line.estimates]
    return cells + [shown(difference, line.metric, signed=True) for difference in line.differences]


def markdown(table: Table, arrows: bool = True) -> str:
    """For a README or an issue; without ``arrows``, which say what is better, for terminals of any age."""
    parts = []
    for title, rows in sections(table):
        titles = ["metric", "recogniser", *header(table)]
        body = [
            [
                f"{named(line.metric, table.gallery)} {ARROWS[line.metric.better] if arrows else ''}".strip(),
                line.recogniser or "",
                *cells,
            ]
            for line, cells in rows
        ]
        parts += [f"### {title}\n"] if title else []
        parts += [_aligned([titles, *body]), ""]
    return "\n".join(parts).rstrip() + "\n"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def comma_separated(table: Table) -> str:
    """For a spreadsheet or a program: a row for each run, group, metric and recogniser, with unrounded numbers."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(as_json(table))
    return text.getvalue()


ESCAPES = str.maketrans(
    {
        **{c: "\\" + c for c in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
    }
)
LATEX_ARROWS = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "": ""}


def latex(table: Table) -> str:
    """For a paper: a tabular with the rules of the package booktabs, intervals in small type."""
    titles = header(table)
    lines = [
        "% \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{ll{'r' * len(titles)}}}",
        "\\toprule",
        " & ".join(["metric", "recogniser", *(title.translate(ESCAPES) for title in titles)]) + r" \\",
    ]
    for title, rows in sections(table):
        lines.append("\\midrule")
        if title:
            lines.append(f"\\multicolumn{{{len(titles) + 2}}}{{l}}{{\\emph{{{title.translate(ESCAPES)}}}}} \\\\")
        for line, cells in rows:
            name = named(line.metric, table.gallery).translate(ESCAPES) + LATEX_ARROWS[line.metric.better]
            lines.append(
                " & ".join([name, (line.recogniser or "").translate(ESCAPES), *map(_latex_cell, cells)]) + r" \\"
            )
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _latex_cell(cell: str) -> str:
    mean, bracket, interval = cell.partition(" [")
    return mean.translate(ESCAPES) + (f" {{\\scriptsize[{interval.translate(ESCAPES)}}}" if bracket else "")


def write_tables(table: Table, folder: Path) -> dict[str, Path]:
    """``table.md``, ``table.csv`` and ``table.tex`` in a folder."""
    forms = {"markdown": markdown, "csv": comma_separated, "latex": latex}
    return {name: write(folder / TABLES[name], form(table)) for name, form in forms.items()}
