"""The figures of the README and of the gallery, of real runs of Split Digits by the code of today.

    python benchmarks/figures.py [--runs DIR] [--output docs/figures]

learns with three seeds by ``configs/split_digits.yaml``, and with ``methods/naive.yaml`` (nothing remembered); runs
that are in DIR are taken as they are. ``digits_accuracy.png`` shows every seed as a point, the others are of seed 0.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from seeds import fit_into

from bayesdual.inspection import figures_of, read_run
from bayesdual.inspection.figures import MEAN, Figures, name_ends, new_figure, seen_means, shade

CONFIG = ["--config", "configs/split_digits.yaml"]
METHODS = {"naive": [*CONFIG, "--config", "configs/methods/naive.yaml"], "bayesdual": [*CONFIG]}
TITLES = {"naive": "nothing remembered", "bayesdual": "bayesdual, 100 exemplars"}
SEEDS = (0, 1, 2)
LATE = ["--board.old_every_n_steps", "20"]  # the stability gap is in the gallery, too
FIRST = {"accuracy_over_time": "digits_accuracy", "memory": "digits_memory"}


def learned(folder: Path) -> dict[str, list[list[list[float]]]]:
    """The accuracy matrices of each method, one a seed; what is not in the folder is learned."""
    found: dict[str, list[list[list[float]]]] = {}
    for method, arguments in METHODS.items():
        for seed in SEEDS:
            run = folder / f"{method}-seed_{seed}"
            if not (run / "results.json").is_file():
                fit_into(run, [*arguments, *(LATE if method == "bayesdual" else [])], seed)
            results = json.loads((run / "results.json").read_text())
            found.setdefault(method, []).append(results["accuracy_matrix"])
            print(f"{run.name}: {results['average_accuracy']:.4f}", flush=True)
    return found


def accuracy_of_seeds(matrices: dict[str, list[list[list[float]]]]) -> Figures:
    """Accuracy of each experience over time: a line of the mean, and every seed a point; a panel for each method."""
    figure = new_figure(8.6, 3.5)
    panels = figure.subplots(1, len(matrices), sharey=True)
    for axes, (method, of_seeds) in zip(panels, matrices.items(), strict=True):
        n, ends = len(of_seeds[0]), []
        for j in range(n):
            mean = [statistics.mean(matrix[i][j] for matrix in of_seeds) for i in range(j, n)]
            axes.plot(range(j + 1, n + 1), mean, color=shade(j, n), linewidth=1.5)
            for place, matrix in enumerate(of_seeds):
                steps = [i + 1 + 0.06 * (place - 1) for i in range(j, n)]
                values = [matrix[i][j] for i in range(j, n)]
                axes.plot(steps, values, "o", color=shade(j, n), markersize=3.5, clip_on=False)
            ends.append((mean[-1], f"experience {j + 1}", shade(j, n)))
        means = [statistics.mean(of) for of in zip(*map(seen_means, of_seeds), strict=True)]
        axes.plot(range(1, n + 1), means, color="black", linewidth=2.5)
        axes.set(xlabel="after experience", ylim=(0, 1.02), xticks=range(1, n + 1))
        axes.set_title(f"{TITLES[method]}: {means[-1]:.2f}", fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        name_ends(axes, n, [*ends, (means[-1], MEAN, "black")])
    panels[0].set_ylabel("accuracy on the test examples")
    return {"accuracy_over_time": figure}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="where runs are, or are to stay")
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = args.runs or Path(folder)
        matrices = learned(runs)
        run = runs / "bayesdual-seed_0"
        drawn = {**figures_of(read_run(run)), **accuracy_of_seeds(matrices)}
    (args.output / "gallery").mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        path = args.output / (f"{FIRST[name]}.png" if name in FIRST else f"gallery/{name}.png")
        figure.savefig(path)
        print(path)


if __name__ == "__main__":
    main()
