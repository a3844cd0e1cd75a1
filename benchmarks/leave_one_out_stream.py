"""Is sensitivity true of a stream? What the posterior predicts of leaving a past example out, against learning without.

    python benchmarks/leave_one_out_stream.py --results loo_stream.jsonl [--left-out 200] [--seeds 0 1]
    python benchmarks/leave_one_out_stream.py --results loo_stream.jsonl --table

Split Digits in five experiences, as ``configs/split_digits.yaml`` learns it but for 20 epochs. The whole stream is
learned once, and again without each of the examples left out, which are drawn at random from all experiences; weights,
order of examples and noise begin alike. The real change is that of the example's own loss at the end of the stream,
in the mean over seeds. What is predicted of it, from the stream that was learned with all examples:

    diagonal     CE(y, f + v e) - CE(y, f), v by the diagonal of the posterior of all data
    last layer   the same, v by the whole covariance of the last layer
    MPE, NLL     the memory perturbation score by the diagonal; the loss itself

Learning twice without the same example, with other draws, does not give the same change either: the rank correlation
of the real changes of two seeds says how far any prediction of one seed's can go. "Its size" is the mean over seeds of
how much the loss changed, up or down. A stopped call goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor

from bayesdual import sources
from bayesdual.algorithm import BayesDual
from bayesdual.ivon import IVONByRule
from bayesdual.models import MLP
from bayesdual.posterior import leave_one_out_nll, sensitivities, watching_last_linear
from bayesdual.scenarios import SplitDigits
from bayesdual.schedule import lower_learning_rate
from bayesdual.stream import Inputs, TensorData, experience_data

EXPERIENCES, EPOCHS, BATCH, MEMORY, REPLAYED = 5, 20, 32, 100, 128
PREDICTIONS = ("diagonal", "last layer", "MPE", "NLL")


def stream() -> list[TensorData]:
    return [experience_data(e) for e in SplitDigits(n_experiences=EXPERIENCES).train_stream]


def some(data: TensorData, rows: Tensor) -> TensorData:
    return replace(data, x=data.x[rows], y=data.y[rows], tasks=data.tasks[rows], index=data.index[rows])


def whole(experiences: list[TensorData]) -> TensorData:
    parts = {name: torch.cat([getattr(e, name) for e in experiences]) for name in ("x", "y", "tasks", "index")}
    return replace(experiences[0], **parts)


def learn(experiences: list[TensorData], seed: int, without: tuple[int, int] | None = None) -> tuple[Tensor, dict]:
    """Learns the stream; of one example, (experience, row), the loss counts nothing, and no memory is made.

    Returns:
        The losses of all training examples at the end, experience by experience; and, with all of them, what is
        predicted of leaving each out.
    """
    torch.manual_seed(seed)
    network, algorithm = MLP(64, n_classes=10, hidden=[256, 256]), BayesDual(MEMORY, REPLAYED)
    like = Inputs.of(experiences[0])
    predict = lambda x, t: network(like.normalised(x))  # noqa: E731
    size = statistics.mean(len(data) for data in experiences)
    steps = EPOCHS * statistics.mean(-(-len(data) // BATCH) for data in experiences)
    optimizer = IVONByRule().make(network.parameters(), size, steps)
    for number, data in enumerate(experiences):
        left_out = without[1] if without is not None and without[0] == number else None
        algorithm.begin_experience(data)
        network.train()
        for epoch in range(EPOCHS):
            batches = torch.randperm(len(data)).split(BATCH)
            for place, rows in enumerate(batches):
                lower_learning_rate(optimizer, 0.0, (epoch + place / len(batches)) / EPOCHS)
                counts = (rows != left_out).float() if left_out is not None else torch.ones(len(rows))
                with optimizer.sampled_params(train=True):
                    optimizer.zero_grad()
                    batch = data.inputs(rows), data.y[rows], data.tasks[rows]
                    algorithm.loss(network, predict, *batch, counts / len(rows))[0].backward()
                algorithm.precondition(network)
                optimizer.step()
        kept = torch.tensor([row for row in range(len(data)) if row != left_out])
        algorithm.end_experience(network.eval(), predict, some(data, kept), number)
    every = whole(experiences)
    with torch.no_grad(), watching_last_linear(network) as last:
        logits = predict(every.x, every.tasks)
    losses = F.cross_entropy(logits, every.y, reduction="none")
    posterior = algorithm.posterior
    if without is not None or posterior is None or posterior.last_layer is None or last.features is None:
        return losses, {}
    known = sensitivities(network, every, posterior, predict=predict)
    by_last = leave_one_out_nll(logits, every.y, posterior.last_layer.variance(last.features)) - losses
    changes = known.loo_nll - known.nll, by_last, known.memory_perturbation, known.nll
    return losses, dict(zip(PREDICTIONS, changes, strict=True))


def measure(args: argparse.Namespace, done: list[dict]) -> None:
    experiences = stream()
    sizes = [len(data) for data in experiences]
    draws = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(0))[: args.left_out].tolist()
    known, code = {(row["seed"], row["example"]) for row in done}, sources.digest_of_all()[: sources.SHORT]
    for seed in args.seeds:
        losses, predicted = learn(experiences, seed)
        for count, example in enumerate(draws, start=1):
            if (seed, example) in known:
                continue
            began = time.perf_counter()
            experience = next(k for k in range(EXPERIENCES) if example < sum(sizes[: k + 1]))
            without, _ = learn(experiences, seed, (experience, example - sum(sizes[:experience])))
            row = {"seed": seed, "example": example, "experience": experience + 1, "code": code}
            row |= {"real": float(without[example] - losses[example])}
            row |= {name: float(values[example]) for name, values in predicted.items()}
            with open(args.results, "a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"seed {seed}, {count} of {len(draws)}: {row['real']:+.4f}, {time.perf_counter() - began:.1f} s")


def table(rows: list[dict]) -> None:
    seeds = sorted({row["seed"] for row in rows})
    by = {seed: {row["example"]: row for row in rows if row["seed"] == seed} for seed in seeds}
    examples = sorted(set.intersection(*(set(of) for of in by.values())))
    real = {seed: [by[seed][e]["real"] for e in examples] for seed in seeds}
    mean = [statistics.mean(values) for values in zip(*real.values(), strict=True)]
    print(f"{len(examples)} examples left out, seeds {', '.join(map(str, seeds))}; Spearman's rank correlation with")
    print(f"{'':12s} {'the mean change':>16s} {'its size':>9s}" + "".join(f"{f'seed {seed}':>9s}" for seed in seeds))
    size = [statistics.mean(map(abs, values)) for values in zip(*real.values(), strict=True)]
    for name in PREDICTIONS:
        of = {seed: [by[seed][e][name] for e in examples] for seed in seeds}
        average = [statistics.mean(values) for values in zip(*of.values(), strict=True)]
        alone = "".join(f"{spearmanr(of[seed], real[seed]).statistic:9.2f}" for seed in seeds)
        sides = spearmanr(average, mean).statistic, spearmanr(average, size).statistic
        print(f"{name:12s} {sides[0]:16.2f} {sides[1]:9.2f}{alone}")
    pairs = [spearmanr(real[a], real[b]).statistic for a in seeds for b in seeds if a < b]
    if pairs:
        print(f"of the real changes of two seeds: {statistics.mean(pairs):.2f} (mean over {len(pairs)} pairs)")
    print(f"made by {', '.join(sorted({row['code'] for row in rows}))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--left-out", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--table", action="store_true", help="of what is there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    read = lambda: [*map(json.loads, args.results.read_text().splitlines())] if args.results.exists() else []  # noqa: E731
    if not args.table:
        measure(args, read())
    table(read())


if __name__ == "__main__":
    main()
