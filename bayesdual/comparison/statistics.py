"""From the results of a comparison to tables (terminal, Markdown, CSV, JSON) and a figure.

gap closure   G = (A - best peer) / (joint - best peer)     A: mean average accuracy; best peer: the highest mean
paired test   t = mean(d) / (sd(d) / sqrt(n)),  d: A - best peer, seed by seed; p from Student's t with n - 1
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import ttest_rel

OURS, OWN, PEER, UPPER, LOWER = "ours", "own", "peer", "upper", "lower"
MEASURES = {
    "average_accuracy": "accuracy",
    "forgetting": "forgetting",
    "nll": "NLL",
    "ece": "ECE",
    "seconds": "seconds",
    "exemplars": "kept",
}
NO_SPREAD = 1e-12  # standard deviation of differences that are equal but for rounding


@dataclass(frozen=True)
class Entry:
    """A method on a benchmark.

    Attributes:
        benchmark: Name of the benchmark.
        method: Name of the method.
        role: ``ours``, ``own`` (another of ours), ``peer``, or the ``upper`` or ``lower`` bound.
        settings: What was chosen of what was to be tuned.
        at_edge: Whether a number chosen is the smallest or largest of its grid.
        tried: Number of settings that were tried; 0 if nothing was tuned.
        results: The results of each seed, or None where the run diverged.
    """

    benchmark: str
    method: str
    role: str
    settings: dict[str, Any]
    at_edge: bool
    tried: int
    results: dict[int, dict[str, Any] | None]

    def values(self, measure: str) -> list[float]:
        """A measure of the runs that ended; none where it means nothing."""
        return [value for run in self.results.values() if run and (value := measure_of(run, measure)) is not None]


def measure_of(results: dict[str, Any], measure: str) -> float | None:
    """A measure of one run; joint training, which has one experience, forgets nothing that could be counted."""
    if measure == "forgetting" and len(results["accuracy_matrix"]) == 1 < len(results["accuracy_matrix"][0]):
        return None
    if measure == "seconds":
        return results["seconds_total"] - results["seconds_evaluation"]
    return results[measure]


def rows_of(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """A row of plain values for each entry: mean and standard deviation of each measure, and how it compares."""
    rows = []
    for entry in entries:
        row: dict[str, Any] = {
            "benchmark": entry.benchmark,
            "method": entry.method,
            "role": entry.role,
            "settings": " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in entry.settings.items()),
            "settings_tried": entry.tried,
            "at_edge_of_grid": entry.at_edge,
            "runs": sum(run is not None for run in entry.results.values()),
            "runs_diverged": sum(run is None for run in entry.results.values()),
        }
        for measure in MEASURES:
            values = entry.values(measure)
            row[measure] = statistics.mean(values) if values else None
            row[f"{measure}_sd"] = statistics.stdev(values) if len(values) > 1 else None
        if entry.role in (OURS, OWN):
            row |= against_peers(entry, [e for e in entries if e.benchmark == entry.benchmark])
        rows.append(row)
    return rows


def against_peers(entry: Entry, others: Sequence[Entry]) -> dict[str, Any]:
    """Gap closure and the paired test against the best peer; None where it cannot be had.

    Args:
        entry: A method of ours.
        others: All methods on the same benchmark.
    """
    means = {e.method: statistics.mean(e.values("average_accuracy")) for e in others if e.values("average_accuracy")}
    peers = [e for e in others if e.role == PEER and e.method in means]
    if not peers or entry.method not in means:
        return {}
    best = max(peers, key=lambda e: means[e.method])
    upper = next((means[e.method] for e in others if e.role == UPPER and e.method in means), None)
    ours, theirs = means[entry.method], means[best.method]
    pairs = [
        (ours_of["average_accuracy"], theirs_of["average_accuracy"])
        for seed, ours_of in entry.results.items()
        if ours_of and (theirs_of := best.results.get(seed))
    ]
    differences = [a - b for a, b in pairs]
    result = {
        "best_peer": best.method,
        "gap_closure": (ours - theirs) / (upper - theirs) if upper is not None and upper > theirs else None,
        "difference": statistics.mean(differences) if differences else None,
        "difference_pairs": len(pairs),
        "difference_t": None,
        "difference_p": None,
    }
    if len(pairs) > 1 and statistics.stdev(differences) > NO_SPREAD:
        test = ttest_rel(*zip(*pairs, strict=True))
        result |= {"difference_t": float(test.statistic), "difference_p": float(test.pvalue)}
    return result
