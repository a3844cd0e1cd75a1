"""The rows of a comparison as people read them: tables (terminal, Markdown, CSV) and a figure."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from bayesdual.comparison.statistics import BASELINE, LOWER, MEASURES, OURS, OWN, UPPER, Entry, smallest_p

if TYPE_CHECKING:
    from matplotlib.figure import Figure


NOTES = {
    "†": "† the best value tried is at the edge of its grid: a better one may lie beyond",
    "[": "[n] runs that ended, where others diverged",
}
COLUMNS = 4  # benchmarks, in the table of accuracies
ACROSS = 3  # in the figure
NARROWEST = 8  # of the names of methods
COLOURS = {OURS: "#d55e00", OWN: "#a6611a", UPPER: "#5b6770", LOWER: "#5b6770", BASELINE: "#0072b2"}
FEW_SEEDS = 6  # with fewer the sign-flip test cannot give p < 0.05


@dataclass(frozen=True)
class Block:
    """A table of text, with what is to be said below it."""

    title: str
    header: list[str]
    lines: list[list[str]]
    notes: list[str]


def blocks_of(rows: Sequence[dict[str, Any]]) -> list[Block]:
    """The tables to print: with several benchmarks all accuracies first, then every measure of each benchmark."""
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in rows))
    blocks = []
    for first in range(0, len(benchmarks) if len(benchmarks) > 1 else 0, COLUMNS):
        blocks.append(_accuracies(rows, benchmarks[first : first + COLUMNS]))
    for benchmark in benchmarks:
        mine = [row for row in rows if row["benchmark"] == benchmark]
        lines = [[row["method"], *(_cell(row, measure) for measure in MEASURES)] for row in mine]
        notes = [sentence for row in mine if (sentence := _comparison(row))]
        if chosen := [f"{row['method']} {_chosen(row)}" for row in mine if row["settings"]]:
            notes.append("tuned: " + ", ".join(chosen))
        notes.append(_code(mine))
        blocks.append(Block(benchmark, ["method", *MEASURES.values()], lines, notes))
    blocks[-1].notes.extend(_remarks(rows))
    return blocks


def _accuracies(rows: Sequence[dict[str, Any]], benchmarks: Sequence[str]) -> Block:
    by_place = {(row["method"], row["benchmark"]): row for row in rows}
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = [
        [m, *(_cell(by_place[m, b], "average_accuracy") if (m, b) in by_place else "-" for b in benchmarks)]
        for m in methods
    ]
    ours = next((row["method"] for row in rows if row["role"] == OURS), None)
    for label, key, form in (("gap closure", "gap_closure", "{:.2f}"), ("p", "difference_p", "{:.3g}")):
        values = [by_place.get((ours, b), {}).get(key) for b in benchmarks]
        if any(value is not None for value in values):
            lines.append([label, *("-" if value is None else form.format(value) for value in values)])
    few = [row for row in rows if row["role"] == OURS and len(row.get("pairs_by_seed", ())) in range(1, FEW_SEEDS)]
    notes = [
        f"p: exact paired sign-flip test against the best baseline of each; {_number(len(row['pairs_by_seed']))} give "
        f"{row['difference_p_smallest']:.3g} at the least"
        for row in few[:1]
    ]
    return Block("average accuracy", ["method", *benchmarks], lines, notes)


def _cell(row: dict[str, Any], measure: str) -> str:
    mean, sd = row[measure], row[f"{measure}_sd"]
    if mean is None:
        return "diverged" if not row["runs"] else "-"
    if measure == "exemplars":
        return f"{mean:.0f}"
    if measure == "memory_bytes":
        return f"{mean / 1000:,.1f}" if mean < 10_000 else f"{mean / 1000:,.0f}"
    if measure == "seconds":
        return f"{mean:.1f}"
    text = short(mean) if sd is None else f"{short(mean)} ± {short(sd)}"
    return text + (f" [{row['runs']}]" if measure == "average_accuracy" and row["runs_diverged"] else "")


def short(number: float) -> str:
    """Three decimals, without the 0 in front."""
    return f"{number:.3f}".replace("0.", ".", 1) if abs(number) < 0.9995 else f"{number:.3f}"


def signed(number: float) -> str:
    """As :func:`short`, with the sign."""
    return ("+" if number >= 0 else "") + short(number)


def said_p(p: float, n: int) -> str:
    """A p of the sign-flip test over n pairs, with the smallest that these can give if it is not below 0.05."""
    few = f" ({n} seed{'s' * (n != 1)}: the smallest possible is {smallest_p(n):.3g})" if n < FEW_SEEDS else ""
    return f"p = {p:.3g}{few}"


def _chosen(row: dict[str, Any]) -> str:
    return row["settings"] + ("†" if row["at_edge_of_grid"] else "")


def _comparison(row: dict[str, Any]) -> str | None:
    if row.get("difference") is None:
        return None
    pairs = row["pairs_by_seed"]
    spread = "" if row["difference_sd"] is None else f" ± {short(row['difference_sd'])}"
    values = ", ".join(f"{short(ours)} - {short(theirs)}" for ours, theirs in pairs.values())
    text = f"{row['method']} - {row['best_baseline']}, the best baseline: {signed(row['difference'])}{spread} "
    text += f"({_seeds(pairs)}: {values}); exact paired sign-flip test: {said_p(row['difference_p'], len(pairs))}"
    return text + (f"; gap closure {row['gap_closure']:.2f}" if row["gap_closure"] is not None else "")


def _seeds(seeds: Iterable[Any]) -> str:
    listed = [str(seed) for seed in seeds]
    return f"seed{'s' * (len(listed) != 1)} {', '.join(listed)}"


def _number(seeds: int) -> str:
    return f"{seeds} seed{'s' * (seeds != 1)}"


def _code(rows: Sequence[dict[str, Any]]) -> str:
    """Which code made rows: said once if it is the same, else with the methods."""
    methods: dict[str, list[str]] = {}
    for row in rows:
        methods.setdefault(row["code"], []).append(row["method"])
    return "made by " + "; ".join(
        code if len(methods) == 1 else f"{code}: {', '.join(names)}" for code, names in methods.items()
    )


def _remarks(rows: Sequence[dict[str, Any]]) -> list[str]:
    counts = sorted({row["runs"] + row["runs_diverged"] for row in rows})
    number = "-".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
    remarks = [
        f"mean ± standard deviation over {number} seeds; seconds: of training, without evaluation; kept: exemplars "
        "in memory; memory: kB carried from one experience to the next, beyond the network and its optimizer"
    ]
    if any(row["at_edge_of_grid"] for row in rows):
        remarks.append(NOTES["†"])
    if any(row["runs_diverged"] and row["runs"] for row in rows):
        remarks.append(NOTES["["])
    tried = {row["method"]: row["settings_tried"] for row in rows}
    if len(set(tried.values())) > 1:
        remarks.append(
            "not tuned by the same budget; settings tried: " + ", ".join(f"{m} {n}" for m, n in tried.items())
        )
    return remarks


def terminal_tables(blocks: Sequence[Block]) -> list[Table | str]:
    """What rich prints."""
    result: list[Table | str] = []
    for block in blocks:
        table = Table(title=block.title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column(block.header[0], min_width=NARROWEST, overflow="fold")
        for name in block.header[1:]:
            table.add_column(name, justify="right", no_wrap=True)
        for line in block.lines:
            table.add_row(*line)
        result += [table, *block.notes]
    return result


def markdown(blocks: Sequence[Block]) -> str:
    """The same as Markdown."""
    parts = []
    for block in blocks:
        lines = [block.header, ["---", *["---:"] * (len(block.header) - 1)], *block.lines]
        table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        parts += [f"### {block.title}", table, *block.notes]
    return "\n\n".join(parts) + "\n"


def comma_separated(rows: Sequence[dict[str, Any]]) -> str:
    """All values as CSV; those by seed as ``SEED:VALUE``."""
    file = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _as_text(value) for key, value in row.items()} for row in rows)
    return file.getvalue()


def _as_text(value: Any) -> Any:
    return " ".join(f"{k}:{v}" for k, v in value.items()) if isinstance(value, dict) else value


def comparison_figure(entries: Sequence[Entry]) -> Figure:
    """Average accuracies: every run a dot, their mean a stroke with its number, the upper bound a dashed line."""
    from matplotlib.figure import Figure  # importing it takes a while

    benchmarks = list(dict.fromkeys(entry.benchmark for entry in entries))
    of = {b: [e for e in entries if e.benchmark == b and e.values("average_accuracy")] for b in benchmarks}
    across = min(len(benchmarks), ACROSS)
    down = -(-len(benchmarks) // across)
    most = max(1, *map(len, of.values()))
    figure = Figure((1.6 + 2.9 * across, down * (0.9 + 0.27 * most)), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).flatten()
    for axes, benchmark in zip(grid, benchmarks, strict=False):
        shown = of[benchmark]
        for place, entry in enumerate(shown):
            values = entry.values("average_accuracy")
            mean, colour = statistics.mean(values), COLOURS[entry.role]
            axes.plot(values, [place] * len(values), "o", color=colour, markersize=5, alpha=0.5, markeredgewidth=0)
            axes.plot([mean, mean], [place - 0.32, place + 0.32], color=colour, linewidth=2)
            axes.annotate(
                short(mean),
                (1.02, place),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=8,
                color=colour,
                annotation_clip=False,
            )
            if entry.role == UPPER:
                axes.axvline(mean, color=colour, linewidth=0.8, linestyle="--")
        axes.set_yticks(range(len(shown)), [entry.method for entry in shown], fontsize=8)
        axes.set_ylim(len(shown) - 0.4, -0.6)  # the first at the top
        axes.set_title(benchmark, fontsize=10)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    for axes in grid[len(benchmarks) :]:
        axes.set_visible(False)
    figure.supxlabel("average accuracy: runs, and their mean", fontsize=9)
    return figure
