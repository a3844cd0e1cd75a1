"""The numbers of a comparison: a row of plain values for each method on each benchmark.

With A the mean average accuracy over seeds, and the best baseline the one of the highest mean:

gap closure   G = (A - best baseline) / (joint - best baseline)
paired test   p = #{s in {-1, +1}^n : |sum_i s_i d_i| >= |sum_i d_i|} / 2^n,   d_i = A_i - best baseline_i of seed i

The test is Fisher's exact sign-flip (permutation) test, two-sided: if neither method were better, the sign of each
difference would be a toss of a coin. It assumes no distribution, and n seeds can give no p below 2 / 2^n.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

OURS, OWN, BASELINE, UPPER, LOWER = "ours", "own", "baseline", "upper", "lower"
MEASURES = {
    "average_accuracy": "accuracy",
    "forgetting": "forgetting",
    "nll": "NLL",
    "ece": "ECE",
    "seconds": "seconds",
    "exemplars": "kept",
    "memory_bytes": "memory",
}
ROUNDING = 1e-9  # sums of differences this close, in shares of the sum of their sizes, are equal


@dataclass(frozen=True)
class Entry:
    """A method on a benchmark.

    Attributes:
        benchmark: Name of the benchmark.
        method: Name of the method.
        role: ``ours``, ``own`` (another of ours), ``baseline``, or the ``upper`` or ``lower`` bound.
        settings: What was chosen of what was to be tuned.
        at_edge: Whether a number chosen is the smallest or largest of its grid.
        tried: Number of settings that were tried; 0 if nothing was tuned.
        results: The results of each seed, or None where the run diverged.
        code: Which code made these: versions of bayesdual, and digests.
    """

    benchmark: str
    method: str
    role: str
    settings: dict[str, Any]
    at_edge: bool
    tried: int
    results: dict[int, dict[str, Any] | None]
    code: str = ""

    def values(self, measure: str) -> list[float]:
        """A measure of the runs that ended; none where it means nothing."""
        return [value for run in self.results.values() if run and (value := measure_of(run, measure)) is not None]


def measure_of(results: dict[str, Any], measure: str) -> float | None:
    """A measure of one run; joint training, which has one experience, forgets nothing that could be counted."""
    if measure == "forgetting" and len(results["accuracy_matrix"]) == 1 < len(results["accuracy_matrix"][0]):
        return None
    if measure == "seconds":
        return results["seconds_total"] - results["seconds_evaluation"]
    if measure == "memory_bytes":
        return sum(results["memory_bytes"].values())
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
            "code": entry.code,
            "average_accuracy_by_seed": {s: run and run["average_accuracy"] for s, run in entry.results.items()},
        }
        for measure in MEASURES:
            values = entry.values(measure)
            row[measure] = statistics.mean(values) if values else None
            row[f"{measure}_sd"] = statistics.stdev(values) if len(values) > 1 else None
        row["memory_bytes_by_part"] = _mean_parts([run["memory_bytes"] for run in entry.results.values() if run])
        if entry.role in (OURS, OWN):
            row |= against_baselines(entry, [e for e in entries if e.benchmark == entry.benchmark])
        rows.append(row)
    return rows


def _mean_parts(runs: Sequence[dict[str, int]]) -> dict[str, float]:
    """The mean over runs of each part; one that a run does not have is 0 there."""
    names = dict.fromkeys(name for parts in runs for name in parts)
    return {name: statistics.mean(parts.get(name, 0) for parts in runs) for name in names}


def against_baselines(entry: Entry, others: Sequence[Entry]) -> dict[str, Any]:
    """Gap closure and the paired test against the best baseline; None where it cannot be had.

    Args:
        entry: A method of ours.
        others: All methods on the same benchmark.
    """
    means = {e.method: statistics.mean(e.values("average_accuracy")) for e in others if e.values("average_accuracy")}
    baselines = [e for e in others if e.role == BASELINE and e.method in means]
    if not baselines or entry.method not in means:
        return {}
    best = max(baselines, key=lambda e: means[e.method])
    upper = next((means[e.method] for e in others if e.role == UPPER and e.method in means), None)
    ours, theirs = means[entry.method], means[best.method]
    pairs = {
        seed: (run["average_accuracy"], other["average_accuracy"])
        for seed, run in entry.results.items()
        if run and (other := best.results.get(seed))
    }
    d = [a - b for a, b in pairs.values()]
    return {
        "best_baseline": best.method,
        "gap_closure": (ours - theirs) / (upper - theirs) if upper is not None and upper > theirs else None,
        "difference": statistics.mean(d) if d else None,
        "difference_sd": statistics.stdev(d) if len(d) > 1 else None,
        "pairs_by_seed": pairs,
        "difference_p": sign_flip_p(d) if d else None,
        "difference_p_smallest": smallest_p(len(d)) if d else None,
    }


def sign_flip_p(differences: Sequence[float]) -> float:
    """The two-sided p of the exact paired sign-flip test (see the module), over all 2^n signs.

    The sums of one half of the differences are looked up among the sorted sums of the other, so that 40 pairs take a
    moment, as 20 do.

    Args:
        differences: One for each pair, at least one.

    Returns:
        Between 2 / 2^n and 1.
    """
    least = abs(math.fsum(differences)) - ROUNDING * math.fsum(map(abs, differences))
    half = len(differences) // 2
    others = sorted(_signed_sums(differences[half:]))
    as_large = sum(len(others) - bisect_left(others, least - part) for part in _signed_sums(differences[:half]))
    return min(1.0, 2 * as_large / 2 ** len(differences))  # as many sums are as small


def smallest_p(n: int) -> float:
    """The smallest p that the sign-flip test can give with n pairs."""
    return min(1.0, 2 / 2**n)


def _signed_sums(values: Sequence[float]) -> list[float]:
    sums = [0.0]
    for value in values:
        sums = [total + sign * value for total in sums for sign in (1, -1)]
    return sums
