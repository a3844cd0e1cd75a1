"""What the evidence says of the prior's precision, and whether predictions are better for it.

    python benchmarks/evidence.py --results benchmarks/results/evidence.jsonl [--problems ...] [--table]

Two streams are learned, with a tenth of the training data held out. Split Fashion-MNIST as in its configuration: a
perceptron, whose last layer of 2,570 weights has a precision that is known as a whole; other data are MNIST's digits.
Split CLINC150 by features of a frozen sentence encoder, as in its configuration: a linear head of 57,750 weights, whose
precision is known class by class; other data are the 1,000 queries out of scope. Then the test data are answered by

- the mean, and the mean with a temperature fitted to the examples held out;
- the linearised posterior of the last layer, with the prior precision that ships (8), with that of the largest evidence
  (``bayesdual/posterior/evidence.py``), which knows the memory and the data just learned alone, and with the one of
  1, 4, 16, ..., 4096 that has the lowest NLL on the examples held out;
- the last-layer Laplace approximation as it is common (Kronecker factors of all training data, the prior by the
  evidence), which sees these again, as a stream's learner could not. (laplace-torch has it, but takes gigabytes for a
  batch of the large head.)

The encoder is read from the folder ``models/all-MiniLM-L6-v2`` (extra ``lora``). Runs are kept in the results file.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from calibration import BATCH, Result, benchmark_of, by_way, examples, judged, learned, logits_of, scaled, spread
from lightning import Trainer
from torch import Tensor
from unfamiliar import digits

from bayesdual.algorithm import BayesDual
from bayesdual.comparison import Cell, Store, made_by
from bayesdual.learner import Learner, StreamDataModule
from bayesdual.measures import answers_of, measured
from bayesdual.models import MLP
from bayesdual.posterior import ClassBlocks, LastLayerPosterior, evidence_precision, watching_last_linear
from bayesdual.prediction import Predicted, fit_temperature, probit

ENCODER, LENGTH, EXPERIENCES = "models/all-MiniLM-L6-v2", 24, 15
TRIED = tuple(4.0**k for k in range(7))
SHOWN = ("accuracy", "nll", "ece", "brier", "aurc")


class Problem(NamedTuple):
    """A network that has learned a stream, and what it is asked."""

    learner: Learner
    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    others: Tensor


def clothes(seed: int) -> Problem:
    benchmark = benchmark_of(seed)
    streams = [examples(getattr(benchmark, f"{name}_stream")) for name in ("train", "valid", "test")]
    return Problem(learned(seed, partial(MLP, 784, (256, 256), 10)), *streams, digits()[::2])


def intents(seed: int) -> Problem:
    """Split CLINC150 in an order of the seed's, as ``configs/split_clinc150_features.yaml`` learns it."""
    from bayesdual.lora import SentenceFeatures, read_tokenizer, tokens
    from bayesdual.scenarios import SplitCLINC150, clinc150, features_of

    order: Any = {"shuffle_classes": True, "seed": seed}
    source = partial(SplitCLINC150, ENCODER, EXPERIENCES, LENGTH, **order)
    benchmark = features_of(source, SentenceFeatures(ENCODER), standardise=False, validation=0.1, seed=seed)
    torch.manual_seed(seed)
    adam = partial(torch.optim.Adam, lr=1e-3)
    learner = Learner(MLP(384, (), 150), BayesDual(memory_bytes=88_000, temperature=1.0), adam)
    quiet: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", enable_checkpointing=False, **quiet)
    trainer.fit(learner, StreamDataModule(benchmark, 20, 64))
    streams = [examples(getattr(benchmark, f"{name}_stream")) for name in ("train", "valid", "test")]
    outside = benchmark.encoding(tokens(read_tokenizer(ENCODER), clinc150().out_of_scope, LENGTH)[0])
    return Problem(learner.eval(), *streams, outside)


PROBLEMS: dict[str, Callable[[int], Problem]] = {"Split Fashion-MNIST": clothes, "Split CLINC150": intents}


# ---- The posterior of the last layer by its eigenvalues ----------------------------------------------------


def spectrum(last: LastLayerPosterior) -> ClassBlocks:
    """Eigenvalues and vectors of the data's curvature: of the whole, seen class by class, or of a block a class."""
    classes, size = last.probabilities.shape[1], last.features.shape[1]
    if classes * size > 8192:
        return ClassBlocks.of(last)
    whole = last.precision().double()
    whole.diagonal().sub_(last.prior_precision)
    values, vectors = torch.linalg.eigh(whole)
    every = values.clamp_min(0).float().expand(classes, -1)
    return ClassBlocks(every, vectors.float().view(classes, size, -1), last.prior_precision)


def by_evidence(learner: Learner, last: LastLayerPosterior, known: ClassBlocks) -> float:
    own = [p for name, p in learner.network.named_parameters() if name.rpartition(".")[0] == last.name]
    whole = known.eigenvectors.shape[1] != known.eigenvectors.shape[2]
    values = known.eigenvalues[0] if whole else known.eigenvalues
    return evidence_precision(values, sum(float(p.detach().double().square().sum()) for p in own))


def linearised(learner: Learner, known: ClassBlocks, delta: float) -> Callable[[Tensor], Predicted]:
    posterior = ClassBlocks(known.eigenvalues, known.eigenvectors, delta)

    def way(x: Tensor) -> Predicted:
        phi, f = seen(learner, x)
        return Predicted(probit(f, posterior.variance(phi)).softmax(1))

    return way


@torch.no_grad()
def nll(way: Callable[[Tensor], Predicted], x: Tensor, y: Tensor) -> float:
    return measured(answers_of(torch.cat([way(part).probabilities for part in x.split(BATCH)]), y))["nll"]


def run(problem: str, seed: int) -> Result:
    """All ways of a problem with a seed, and the prior precisions that they have."""
    warnings.simplefilter("ignore")
    known = PROBLEMS[problem](seed)
    learner, last = known.learner, known.learner.algorithm.posterior.last_layer
    eigen = spectrum(last)
    temperature = fit_temperature(logits_of(learner, known.held_out[0]), known.held_out[1])
    precisions = {"as shipped": last.prior_precision, "by evidence": by_evidence(learner, last, eigen)}
    precisions["held out"] = min(TRIED, key=lambda d: nll(linearised(learner, eigen, d), *known.held_out))
    ways = {
        "mean": scaled(learner),
        "temperature, held out": scaled(learner, lambda f: (f / temperature).softmax(1)),
        **{f"linearised, prior {name}": linearised(learner, eigen, delta) for name, delta in precisions.items()},
    }
    ways["last-layer Laplace, Kronecker"], precisions["Kronecker, by evidence"] = kronecker(known)
    with torch.no_grad():
        found = {name: judged(way, known.test, {"others": known.others}) for name, way in ways.items()}
    return {"ways": found, "precisions": precisions, "temperature": float(temperature)}


def kronecker(known: Problem) -> tuple[Callable[[Tensor], Predicted], float]:
    """The last-layer Laplace approximation G (x) A of all training data, with the prior by its evidence, and this."""
    learner, weights = known.learner, known.learner.network[-1]
    with torch.no_grad():
        phi, p = seen(learner, known.train[0])
    p = p.double().softmax(1)
    (a, u), (g, q) = (torch.linalg.eigh(side) for side in (phi.T @ phi, torch.diag(p.mean(0)) - p.T @ p / len(p)))
    values = torch.outer(g.clamp_min(0), a.clamp_min(0))
    squared = sum(float(part.detach().double().square().sum()) for part in weights.parameters())
    delta = evidence_precision(values, squared)

    def way(x: Tensor) -> Predicted:
        phi, f = seen(learner, x)
        v = (phi @ u).square() @ (1 / (values + delta)).T @ q.square().T
        return Predicted(probit(f.double(), v).softmax(1).float())

    return way, delta


def seen(learner: Learner, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the last layer takes, with a 1 for its bias, in double precision, and what it gives."""
    features, logits = [], []
    with watching_last_linear(learner.network) as last:
        for part in x.split(BATCH):
            logits.append(logits_of(learner, part))
            assert last.features is not None
            features.append(F.pad(last.features, (0, 1), value=1.0).double())
    return torch.cat(features), torch.cat(logits)


def table(results: list[Result]) -> list[str]:
    names = ["accuracy", "NLL", "ECE", "Brier", "AURC", "other data: AUROC", "FPR95"]
    lines = [f"| answers by | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for name, runs in by_way({i: [result] for i, result in enumerate(results)}).items():
        cells = [spread([r[key] for r in runs], 4 if key == "ece" else 3) for key in SHOWN]
        cells += [spread([r["others"][key] for r in runs]) for key in ("auroc_entropy", "fpr95_entropy")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for name in results[0]["precisions"]:
        lines.append(f"\nprior precision {name}: " + ", ".join(f"{r['precisions'][name]:.3g}" for r in results))
    return [*lines, "\ntemperature: " + ", ".join(f"{r['temperature']:.2f}" for r in results)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/evidence.jsonl"))
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--table", action="store_true", help="make no runs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    store = Store(args.results)
    latest = store.latest()
    for problem in args.problems:
        cells = [
            Cell(
                f"{problem}, seed {seed}",
                {"learn": "evidence.run", "arguments": {"problem": problem, "seed": seed}},
            )
            for seed in args.seeds
        ]
        made = [latest.get(c.title) if args.table else store.make(c) for c in cells]
        runs = [one for one in made if one is not None and one.results]
        print(f"\n{problem}, {len(runs)} seeds\n", *table([one.results for one in runs if one.results]), sep="\n")
        print(f"\nmade by {made_by(runs)}")


if __name__ == "__main__":
    main()
