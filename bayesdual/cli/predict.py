"""``python -m bayesdual predict RUN --input DATA``: what a run says of data that are no benchmark's."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor

from bayesdual.cli.words import WordParser
from bayesdual.files import write_whole
from bayesdual.serving import Predictor, Rows, load, read_inputs

LEAST = 10  # inputs that a test of drift is made of


def main(argv: list[str]) -> None:
    """Predicts, and writes a CSV file.

    Args:
        argv: The command line, without the word ``predict``.

    Raises:
        CommandLineError: It is not understood.
        OSError: A file is not there, or cannot be written.
        ValueError: Run or data cannot be used.
    """
    given = parser().parse_args(argv)
    predictor = load(given.run, prediction=given.prediction)
    rows = read_inputs(given.input, predictor.inputs)
    tasks = rows.tasks if given.task is None else given.task
    probabilities = predictor.predict_proba(rows.x, tasks)
    if len(probabilities) >= LEAST and (found := predictor.drift(rows.x, tasks)) and found["drifts"]:
        print(
            f"note: these inputs are others than those that the run was evaluated on (two-sample test on features, p = "
            f"{found['p']:.3g}); predictive entropy {found['entropy']:.3g}, there {found['entropy_before']:.3g}"
        )
    output = given.output or given.input.with_name(f"{given.input.stem}.predictions.csv")
    write_whole(output, lambda path: write_rows(path, predictor, rows, probabilities))
    print(f"predictions: {output}")


def parser() -> WordParser:
    """That of the command."""
    made = WordParser("predict", description="Predict data of your own by what a run has learned.")
    made.add_argument("run", metavar="RUN", type=Path, help="a run directory, or a checkpoint in one")
    made.add_argument(
        "--input", metavar="DATA", type=Path, required=True, help=".npz, .npy, .csv, or a folder of images"
    )
    made.add_argument("--output", metavar="FILE", type=Path, help="a CSV file; otherwise beside the data")
    made.add_argument(
        "--prediction",
        choices=("mean", "samples", "linearised", "weight_samples"),
        help="by what; otherwise as in the run's evaluations",
    )
    made.add_argument(
        "--task", metavar="T", type=int, help="the task label of all inputs, in a stream with task labels"
    )
    return made


def write_rows(path: Path, predictor: Predictor, rows: Rows, probabilities: Tensor) -> None:
    """Writes a row for each input: id, class, its name, entropy in nats, and the probability of each class."""
    entropy = torch.special.entr(probabilities).sum(1)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "class", "name", "entropy", *(f"p_{k}" for k in range(probabilities.shape[1]))])
        likeliest = probabilities.argmax(1).tolist()
        for i, k, h, p in zip(rows.ids, likeliest, entropy.tolist(), probabilities.tolist(), strict=True):
            writer.writerow([i, k, predictor.name_of(k), f"{h:.6f}", *(f"{value:.6f}" for value in p)])
