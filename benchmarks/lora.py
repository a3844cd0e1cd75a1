"""IVON-LoRA against AdamW-LoRA on CLINC150: on all data at once, and over 15 experiences of 10 intents.

    python benchmarks/lora.py --encoder FOLDER [--results benchmarks/results/lora.jsonl] [--table] [--figure FILE]

FOLDER holds a BERT of 6 layers and its tokenizer; the numbers in docs/lora.md are of all-MiniLM-L6-v2. So that one
thread of a processor can do it, the adapter is in the last 2 layers, what the others give is computed once for each
text, and 10 training and 4 test texts of each intent are taken, cut to 16 tokens, and 200 queries out of scope; 2
epochs in batches of 10; forward passes in bfloat16. The intents come in an order drawn by the seed. The methods:

    joint                all at once: what no stream can beat
    naive                one experience after the other
    replay               AdamW, with a memory of random texts of BYTES, as many replayed as are new
    ours                 IVON, with a memory of as many bytes, soft labels and a K-prior of the head
    ours, AdamW          the same, learned by AdamW
    one adapter a task   AdamW; a test text is given to all adapters, and the largest logit says what it is

The rate of each method is that of its grid with the best NLL (joint) or accuracy (streams, of which the first 5
experiences are learned, with TUNING_BYTES) on 4 texts of each intent that are left out; then three seeds. Every run is
appended to the results file, and none is made twice by the same code. ``--table`` runs nothing, and shows the last run
of each kind. ``--methods`` runs some of them.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bayesdual.algorithm import BayesDual
from bayesdual.comparison import Cell, Run, Store, made_by
from bayesdual.ivon import IVON
from bayesdual.kprior import KroneckerPrior
from bayesdual.lora import IVONForLoRA
from bayesdual.measures import StreamMetric, ood_auroc
from bayesdual.memory import IMPOSSIBLE, random_selection
from bayesdual.models import evaluating
from bayesdual.posterior import Posterior
from bayesdual.stream import TensorData

TEXTS, HELD_OUT, TEST, OUT_OF_SCOPE = 10, 4, 4, 200
LAYERS, LENGTH, EPOCHS, BATCH = 4, 16, 2, 10
EXPERIENCES, TUNED_ON = 15, 5
BYTES, TUNING_BYTES, SAMPLES, PRUNED, SEEDS = 6000, 3000, 8, 0.1, 3
RATES = (2e-3, 5e-3, 1e-2)  # AdamW's, and the largest steps of IVON
ENCODER = "LORA_ENCODER"  # environment variable: the folder, which results do not depend on but for what is in it


BELOW: dict[int, Tensor] = {}  # what the frozen layers give


class Unmeasured(BayesDual):
    """Without the posterior of all data, which nothing here asks for, and which would take longer than learning."""

    def measure_posterior(self, *args: Any, posterior: Posterior | None = None, **kwargs: Any) -> None:
        self.posterior = posterior


def nothing(memory_bytes: int) -> BayesDual:
    return Unmeasured(memory_size=0, weight_prior=None, condensation=None)


def replay(memory_bytes: int) -> BayesDual:
    return Unmeasured(
        memory_bytes=memory_bytes, replay_batch_size=BATCH, label_share=1.0, weight_prior=None, condensation=None,
        selection=random_selection,
    )  # fmt: skip


def ours(memory_bytes: int) -> BayesDual:
    prior = KroneckerPrior(examples=200)
    return Unmeasured(memory_bytes=memory_bytes, replay_batch_size=BATCH, weight_prior=prior, condensation=None)


@dataclass(frozen=True)
class Method:
    """What is remembered, by which optimizer it is learned, and in how many experiences."""

    algorithm: Callable[[int], BayesDual]
    ivon: bool
    experiences: int = EXPERIENCES
    apart: bool = False  # an adapter for each experience

    def optimizer(self, network: nn.Module, rate: float, examples: int, steps: int) -> torch.optim.Optimizer:
        if self.ivon:
            return IVONForLoRA(rate).make(network.parameters(), examples, steps)
        return torch.optim.AdamW(network.parameters(), lr=rate)


METHODS = {
    "joint, AdamW": Method(nothing, False, 1),
    "joint, IVON": Method(nothing, True, 1),
    "ours": Method(ours, True),
    "ours, AdamW": Method(ours, False),
    "replay, AdamW": Method(replay, False),
    "naive, AdamW": Method(nothing, False),
    "naive, IVON": Method(nothing, True),
    "one adapter a task, AdamW": Method(nothing, False, apart=True),
}


# ---- Data --------------------------------------------------------------------------------------------------


@cache
def data(tuning: bool):
    """A dataset of token ids, and those out of scope."""
    from bayesdual.lora import read_tokenizer, tokens
    from bayesdual.scenarios import Texts, clinc150, tokenised

    encoder, whole = os.environ[ENCODER], clinc150()
    train, rest = firsts(whole.train, TEXTS)
    tested = firsts(rest, HELD_OUT)[0] if tuning else firsts(whole.test, TEST)[0]
    outside, _ = tokens(read_tokenizer(encoder), whole.out_of_scope[:OUT_OF_SCOPE], LENGTH)
    return tokenised(Texts(whole.name, train, tested), encoder, LENGTH), outside


def firsts(rows, n: int) -> tuple[list, list]:
    """The first n of each class, and the others."""
    seen: Counter[str] = Counter()
    first, rest = [], []
    for row in rows:
        (first if seen[row.label] < n else rest).append(row)
        seen[row.label] += 1
    return first, rest


def experiences(raw, method: Method, seed: int, tuning: bool) -> list[tuple[TensorData, TensorData]]:
    """Training and test data of each."""
    order = torch.randperm(raw.n_classes, generator=torch.Generator().manual_seed(seed))
    parts = order.view(method.experiences, -1)[: TUNED_ON if tuning and method.experiences > 1 else None]
    return [
        tuple(of_classes(x, y, part) for x, y in ((raw.train_x, raw.train_y), (raw.test_x, raw.test_y)))
        for part in parts
    ]


def of_classes(x: Tensor, y: Tensor, classes: Tensor) -> TensorData:
    rows = torch.nonzero(torch.isin(y, classes)).squeeze(1)
    return TensorData(x[rows], y[rows], torch.zeros_like(rows), rows)


# ---- Learning ----------------------------------------------------------------------------------------------


class AboveTheFrozen(nn.Module):
    """A classifier whose layers below the adapter are computed once for each text: the same logits in less time.

    Args:
        network: The classifier; its adapter is in the layers from ``LAYERS`` on.
        texts: All token ids that there will be, shape (N, L).
    """

    def __init__(self, network: Any, texts: Tensor) -> None:
        super().__init__()
        self.network = network
        self._model = network.encoder.base_model.model
        self._model.set_attn_implementation("eager")  # in bfloat16 far faster on a processor
        self._code = torch.randint(2**31, (texts.shape[1],), generator=torch.Generator().manual_seed(0))
        self._codes, order = (texts.long() * self._code).sum(1).sort()
        self._hidden = self._below(texts[order])

    def forward(self, x: Tensor) -> Tensor:
        hidden = self._hidden[torch.searchsorted(self._codes, (x.long() * self._code).sum(1))]
        known = x != self.network.padding
        absent = torch.zeros(known.shape).masked_fill(~known, torch.finfo(torch.float32).min)[:, None, None]
        for layer in self._model.encoder.layer[LAYERS:]:
            hidden = layer(hidden, absent)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        counted = known.unsqueeze(-1).to(hidden)
        return self.network.head((hidden * counted).sum(1) / counted.sum(1).clamp_min(1))

    def _below(self, texts: Tensor) -> Tensor:
        key = hash(tuple(self._codes.tolist()))
        if key not in BELOW:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                BELOW[key] = torch.cat([self._given(part) for part in texts.split(100)])
        return BELOW[key]

    def _given(self, x: Tensor) -> Tensor:
        mask = (x != self.network.padding).long()
        return self._model(input_ids=x.long(), attention_mask=mask, output_hidden_states=True).hidden_states[LAYERS]


def make_network(classes: int, texts: Tensor) -> nn.Module:
    from bayesdual.lora import LoRAClassifier

    adapted = [f"layer.{i}.attention.self.{part}" for i in (LAYERS, LAYERS + 1) for part in ("query", "value")]
    network = LoRAClassifier(os.environ[ENCODER], classes, target_modules=adapted)
    quick = AboveTheFrozen(network, texts).eval()
    with torch.no_grad():
        torch.testing.assert_close(logits_of(quick, texts[:8]), logits_of(network, texts[:8]), rtol=0.02, atol=0.01)
    return quick


def logits_of(network: nn.Module, x: Tensor, t: Tensor | None = None) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return network(x).float()


def learn(
    network: nn.Module,
    algorithm: BayesDual,
    optimizer: torch.optim.Optimizer,
    predict: Callable[[Tensor, Tensor], Tensor],
    train: TensorData,
    experience: int,
    generator: torch.Generator,
) -> None:
    """An experience, with a rate that falls to 0 linearly."""
    network.train()
    algorithm.begin_experience(train)
    batches = [rows for _ in range(EPOCHS) for rows in torch.randperm(len(train), generator=generator).split(BATCH)]
    highest = [group.setdefault("highest", group["lr"]) for group in optimizer.param_groups]
    for step, rows in enumerate(batches):
        for group, lr in zip(optimizer.param_groups, highest, strict=True):
            group["lr"] = lr * (1 - step / len(batches))

        def closure(rows: Tensor = rows) -> Tensor:
            optimizer.zero_grad()
            loss, _ = algorithm.loss(network, predict, train.x[rows], train.y[rows], train.tasks[rows])
            loss.backward()
            return loss

        optimizer.step(closure)  # type: ignore[arg-type]
    with evaluating(network):
        algorithm.end_experience(network, predict, train, experience, Posterior.of(network, optimizer))


@torch.no_grad()
def probabilities(network: nn.Module, x: Tensor) -> Tensor:
    with evaluating(network):
        return torch.cat([logits_of(network, part) for part in x.split(100)]).softmax(1)


def evaluation(p: Tensor, y: Tensor, outside: Tensor | None = None) -> dict[str, float]:
    metric = StreamMetric(1)
    metric.update(p, y, 0)
    result = metric.compute()
    known = {"accuracy": result["accuracy"][0], "nll": result["nll"], "ece": result["ece"]}
    return known if outside is None else known | {"auroc": ood_auroc(*(1 - q.max(1).values for q in (p, outside)))}


def run(method: str, rate: float, seed: int, tuning: bool) -> dict[str, Any]:
    """Learns and evaluates once."""
    how, (raw, outside) = METHODS[method], data(tuning)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    parts = experiences(raw, how, seed, tuning)
    network, algorithm = (
        make_network(raw.n_classes, torch.cat([raw.train_x, raw.test_x, outside])),
        how.algorithm(TUNING_BYTES if tuning else BYTES),
    )
    n = len(parts[0][0])
    make = partial(how.optimizer, network, rate, n, EPOCHS * math.ceil(n / BATCH))
    start, fresh, optimizer = time.perf_counter(), network.state_dict(), make()
    fresh = {name: value.clone() for name, value in fresh.items()}
    adapters, just_learned = [], []
    x, y = (torch.cat([getattr(test, name) for _, test in parts]) for name in ("x", "y"))
    for e, (train, test) in enumerate(parts):
        if how.apart:
            network.load_state_dict(fresh)
            algorithm, optimizer = how.algorithm(TUNING_BYTES if tuning else BYTES), make()
        own = torch.isin(torch.arange(raw.n_classes), train.y.unique()) if how.apart else None
        predict = partial(masked, network, own)
        learn(network, algorithm, optimizer, predict, train, e, generator)
        if how.apart:
            adapters.append(masked_everywhere(network, own, x))
        elif how.experiences > 1:
            just_learned.append(float((probabilities(network, test.x).argmax(1) == test.y).float().mean()))
    result: dict[str, Any] = {"seconds": time.perf_counter() - start}
    if how.apart:
        p = torch.stack(adapters).amax(0).softmax(1)
        return result | {"mean": evaluation(p, y), "bytes": len(parts) * sum(p.nbytes for p in network.parameters())}
    if how.experiences > 1:
        result |= {"just_learned": statistics.mean(just_learned), "bytes": sum(algorithm.memory_bytes().values())}
        result["texts"] = len(algorithm.memory)
    joint = how.experiences == 1 and not tuning
    result["mean"] = evaluation(probabilities(network, x), y, probabilities(network, outside) if joint else None)
    if isinstance(optimizer, IVON) and joint:
        result |= by_posterior(network, optimizer, x, y, outside)
    return result


def by_posterior(network: nn.Module, optimizer: IVON, x: Tensor, y: Tensor, outside: Tensor) -> dict[str, Any]:
    """Averaged over samples, and at the mean without what is least certain."""
    from bayesdual.lora import prune_uncertain

    sums = [torch.zeros(()), torch.zeros(())]
    for _ in range(SAMPLES):
        with optimizer.sampled_params():
            sums = [total + probabilities(network, z) / SAMPLES for total, z in zip(sums, (x, outside), strict=True)]
    posterior = Posterior.of(network, optimizer)
    assert posterior is not None
    prune_uncertain(network, posterior.variance, PRUNED)
    return {
        "samples": evaluation(sums[0], y, sums[1]),
        "pruned": evaluation(probabilities(network, x), y, probabilities(network, outside)),
    }


def masked(network: nn.Module, own: Tensor | None, x: Tensor, t: Tensor) -> Tensor:
    logits = logits_of(network, x)
    return logits if own is None else logits.masked_fill(~own, IMPOSSIBLE)


def masked_everywhere(network: nn.Module, own: Tensor | None, x: Tensor) -> Tensor:
    with torch.no_grad(), evaluating(network):
        return torch.cat([masked(network, own, part, part[:, 0]) for part in x.split(100)])


# ---- Tables ------------------------------------------------------------------------------------------------


def cell(method: str, rate: float, seed: int, tuning: bool = False) -> Cell:
    title = f"{method}, rate {rate:g}, seed {seed}" + (", tuning" if tuning else "")
    arguments = {"method": method, "rate": rate, "seed": seed, "tuning": tuning}
    return Cell(title, {"learn": "lora.run", "arguments": arguments})


def best(method: str, runs: dict[float, Run]) -> float:
    """The rate that validation data ask for."""
    joint = METHODS[method].experiences == 1
    value = {r: run.results["mean"]["nll"] if joint else -run.results["mean"]["accuracy"] for r, run in runs.items()}
    return min(value, key=lambda rate: value[rate])


def chosen(find: Callable[[Cell], Run | None], methods: Iterable[str] = METHODS) -> dict[str, tuple[float, list[Run]]]:
    """The rate of each method, and its runs; methods that were not tuned yet are left out."""
    rates: dict[str, float] = {}
    for method in methods:
        tuned = {rate: run for rate in RATES if (run := find(cell(method, rate, 0, True)))}
        if len(tuned) == len(RATES):
            rates[method] = best(method, tuned)
    runs: dict[str, list[Run]] = {method: [] for method in rates}
    for seed in range(SEEDS):  # a seed of all methods before the next
        for method, rate in rates.items():
            if run := find(cell(method, rate, seed)):
                runs[method].append(run)
    return {method: (rates[method], found) for method, found in runs.items() if found}


def said(values: list[float], digits: int = 3) -> str:
    sd = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{sd}"


def table(found: dict[str, tuple[float, list[Run]]]) -> None:
    print(f"\n{'all data':36s} {'rate':>6s} {'accuracy':>14s} {'NLL':>14s} {'ECE':>14s} {'AUROC':>14s}  runs")
    for method, (rate, runs) in found.items():
        for kind in ("mean", "samples", "pruned") if METHODS[method].experiences == 1 else ():
            values = [run.results[kind] for run in runs if kind in run.results]
            if values:
                numbers = (said([v[key] for v in values]) for key in ("accuracy", "nll", "ece", "auroc"))
                print(f"{method + ', ' + kind:36s} {rate:6g} {' '.join(f'{n:>14s}' for n in numbers)}  {len(values)}")
    titles = " ".join(f"{title:>14s}" for title in ("accuracy", "just learned", "NLL"))
    print(f"\n{'15 experiences':36s} {'rate':>6s} {titles} {'bytes':>9s}  runs")
    for method, (rate, runs) in found.items():
        results = [run.results for run in runs]
        accuracy, nll = ([r["mean"][key] for r in results] for key in ("accuracy", "nll"))
        learned = said([r["just_learned"] for r in results]) if "just_learned" in results[0] else ""
        carried = f"{statistics.mean(r['bytes'] for r in results):9,.0f}" if "bytes" in results[0] else " " * 9
        print(f"{method:36s} {rate:6g} {said(accuracy):>14s} {learned:>14s} {said(nll):>14s} {carried}  {len(runs)}")
        print(f"{'':36s} seeds: {', '.join(f'{a:.3f}' for a in accuracy)}")
    print(f"made by {made_by([run for _, runs in found.values() for run in runs])}")


def figure(found: dict[str, tuple[float, list[Run]]], path: Path) -> None:
    """Accuracy after the stream, a point a seed, and NLL and ECE on all data."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = drawn.subplots(1, 2, width_ratios=(1.4, 1))
    names = list(found)[::-1]
    for place, method in enumerate(names):
        values = [run.results["mean"]["accuracy"] for run in found[method][1]]
        left.barh(place, statistics.mean(values), color="C0" if METHODS[method].ivon else "0.7")
        left.plot(values, [place] * len(values), "k.", markersize=4)
    left.set_yticks(range(len(names)), names)
    left.set(xlabel="accuracy on all 150 intents at the end", xlim=(0, 1))
    shown = {
        f"{method.removeprefix('joint, ')}, {kind}": [run.results[kind]["ece"] for run in found[method][1]]
        for method in ("joint, AdamW", "joint, IVON")
        for kind in ("mean", "samples")
        if method in found and kind in found[method][1][0].results
    }
    for place, (name, values) in enumerate(reversed(shown.items())):
        right.barh(place, statistics.mean(values), color="C0" if "IVON" in name else "0.7")
        right.plot(values, [place] * len(values), "k.", markersize=4)
    right.set_yticks(range(len(shown)), list(shown)[::-1])
    right.set(xlabel="ECE, all data at once")
    drawn.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", help="folder of a BERT of 6 layers and its tokenizer")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/lora.jsonl"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS], help="default: all")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--figure", type=Path, help="draw the results to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    store = Store(args.results)
    if args.table or args.figure:
        latest = store.latest()
        found = chosen(lambda cell: latest.get(cell.title), args.methods)
    elif args.encoder:
        os.environ[ENCODER] = args.encoder
        found = chosen(partial(make, store), args.methods)
    else:
        parser.error("give --encoder FOLDER, or --table")
    table(found)
    if args.figure:
        figure(found, args.figure)


def make(store: Store, cell: Cell) -> Run:
    """The run of a cell, made and said if it is not there."""
    new = cell not in store
    run = store.make(cell)
    if new:
        print(f"{run.title}: {run.results}", flush=True)
    return run


if __name__ == "__main__":
    main()
