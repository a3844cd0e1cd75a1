"""Kills runs at random moments (SIGKILL) and goes on with them: does each leave what one that was not killed left?

    python benchmarks/kill_resume.py [--kills 60] [--minutes 15] [--results FILE] [--table]

Split Digits in 5 experiences of 2 epochs, a checkpoint after every 5 steps, on 8 kinds of runs: MLP and CNN, tensors
and a loader with augmentation, one process and two. A run is started by ``fit --ckpt_path auto``, killed with all its
processes after a random share of the time that a whole run takes (start-up, a step, a checkpoint's write, scoring,
evaluation, the report), started again by the same command, killed again, three times, and then let be. In the end its
run directory is compared with that of a run that was not killed: all checkpoints (weights, optimizer, memory,
posterior, prior, generators, history), ``memory.safetensors``, ``posterior.safetensors``, the results but for seconds,
and the names of all files. Lightning's count of the batches of an epoch, which begins anew with the rest of one that
was stopped, is left out.

Processes are forked from one that has imported everything, so that a start takes no seconds. What was tried is kept in
the results file, with the code that was tried; a second call goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import TransformGroups, as_classification_dataset
from safetensors import safe_open
from torch.utils.data import TensorDataset

from bayesdual import sources
from bayesdual.__main__ import main as bayesdual_main
from bayesdual.files import append_line
from bayesdual.scenarios import SplitDigits

IN_A_ROW = 3  # kills of one run
KINDS = [(net, data, ranks) for ranks in (1, 2) for data in ("tensors", "loader") for net in ("MLP", "CNN")]
NETWORKS = {
    "MLP": "{class_path: bayesdual.models.MLP, init_args: {in_features: 64, hidden: [64], n_classes: 10}}",
    "CNN": "{class_path: bayesdual.models.CNN, init_args: {image_size: 8, n_classes: 10}}",
}
STREAMS = {"tensors": "bayesdual.scenarios.SplitDigits", "loader": "kill_resume.behind_loaders"}
CONFIG = """
threads: 1
data: {{benchmark: {stream}, epochs: 2, batch_size: 32}}
model:
  network: {network}
  algorithm: {{class_path: bayesdual.algorithm.BayesDual, init_args: {{memory_size: 50}}}}
trainer: {{devices: {ranks}, strategy: {strategy}, logger: false, enable_progress_bar: false, accelerator: cpu}}
checkpoint: {{every_n_steps: 5}}
"""


def noisy(x: torch.Tensor) -> torch.Tensor:
    return x + 0.05 * torch.randn(x.shape)


def behind_loaders() -> Any:
    """Split Digits as datasets that are read through a loader, with noise in training."""

    def dataset(experience: Any) -> Any:
        data = experience.tensors()
        items = TensorDataset(data.x.float() / 255, data.y)
        items.targets = data.y.tolist()  # type: ignore[attr-defined]  # as Avalanche asks for them
        return as_classification_dataset(
            items, transform_groups=TransformGroups({"train": (noisy, None), "eval": None})
        )

    source = SplitDigits(n_experiences=5)
    streams = {name: getattr(source, f"{name}_stream") for name in ("train", "test")}
    return benchmark_from_datasets(**{name: [dataset(e) for e in stream] for name, stream in streams.items()})


# ---- Runs that are killed ----------------------------------------------------------------------------------


def start(folder: Path) -> int:
    """Starts ``fit`` in a folder with ``run.yaml``, or goes on with it there; returns the id of the process."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setpgid(0, 0)  # it and what it starts are killed together
        os.chdir(folder)
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        status = bayesdual_main(["fit", "--config", "run.yaml", "--run_dir", "run", "--ckpt_path", "auto"])
        sys.stdout.flush(), sys.stderr.flush()
    finally:
        os._exit(status)


def ends(pid: int, within: float | None) -> bool:
    """Waits for a process; whether it ended by itself, and well. Else it and what it started are killed."""
    give_up = time.monotonic() + (within if within is not None else 600.0)
    while time.monotonic() < give_up:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            if status:
                raise SystemExit(f"a run ended with status {os.waitstatus_to_exitcode(status)}: see its log.txt")
            return True
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if within is None:
        raise SystemExit("a run hung for 600 seconds")
    return False


def prepared(folder: Path, network: str, stream: str, ranks: int) -> Path:
    """A folder with ``run.yaml``."""
    folder.mkdir(parents=True)
    text = CONFIG.format(
        network=NETWORKS[network],
        stream=STREAMS[stream],
        ranks=ranks,
        strategy="auto" if ranks == 1 else "ddp_fork",
    )
    (folder / "run.yaml").write_text(text)
    return folder


def killed(folder: Path, kind: tuple[str, str, int], seconds: float, draw: random.Random) -> list[float]:
    """Makes a run that is killed on its way; returns after how many seconds each time."""
    prepared(folder, *kind)
    moments = []
    while len(moments) < IN_A_ROW:
        moment = draw.uniform(0, seconds)
        if ends(start(folder), moment):
            return moments  # it was through before
        moments.append(moment)
    ends(start(folder), None)
    return moments


# ---- What they left ----------------------------------------------------------------------------------------


def parts(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """All tensors and plain values in nested ones, by place, but for what a clock or Lightning's count says."""
    if isinstance(value, dict | list | tuple):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            counted = key == "current" and "/epoch_loop." in place
            if not (counted or str(key).startswith("seconds")):
                yield from parts(part, f"{place}/{key}")
    else:
        yield place, value


def left(folder: Path) -> dict[str, Any]:
    """All that a run left, by place."""
    run = folder / "run"
    found: dict[str, Any] = {f"file {path.relative_to(run)}": None for path in run.rglob("*")}
    for path in run.rglob("*.ckpt"):
        found |= parts(torch.load(path, weights_only=True), path.name)
    for path in run.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            found |= parts({"metadata": file.metadata(), **tensors}, path.name)
    found |= parts(json.loads((run / "results.json").read_text()), "results")
    return found


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Places where two runs left something else."""

    def same(x: Any, y: Any) -> bool:
        return torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y or (x != x and y != y)

    return sorted(set(a) ^ set(b)) + [place for place in a if place in b and not same(a[place], b[place])]


# ---- All kinds ---------------------------------------------------------------------------------------------


def table(tried: list[dict[str, Any]]) -> Iterator[str]:
    yield f"{'network':8} {'stream':8} {'processes':>9} {'runs':>5} {'kills':>6} {'to the bit':>11}"
    for net, data, ranks in KINDS:
        of_kind = [t for t in tried if t["kind"] == [net, data, ranks]]
        kills = sum(len(t["kills"]) for t in of_kind)
        whole = sum(len(t["kills"]) for t in of_kind if not t["differences"])
        yield f"{net:8} {data:8} {ranks:9} {len(of_kind):5} {kills:6} {whole:11}"
    kills = sum(len(t["kills"]) for t in tried)
    whole = sum(len(t["kills"]) for t in tried if not t["differences"])
    yield f"{kills} kills, {whole} of them in runs that went on to the same bits, with no file left over"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="how many, at least")
    parser.add_argument("--minutes", type=float, default=15.0, help="begin no run after this time")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/kill_resume.jsonl"))
    parser.add_argument("--table", action="store_true", help="make no runs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    code = sources.digest_of_all()[: sources.SHORT]
    lines = args.results.read_text().splitlines() if args.results.exists() else []
    tried = [json.loads(line) for line in lines]
    if not args.table:
        tried = [t for t in tried if t["code"] == code]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        whole: dict[tuple[str, str, int], tuple[dict[str, Any], float]] = {}
        while not args.table and sum(len(t["kills"]) for t in tried) < args.kills:
            if time.monotonic() - began > 60 * args.minutes:
                break
            kind = KINDS[len(tried) % len(KINDS)]
            if kind not in whole:
                folder, at = prepared(Path(temporary, "whole-{}-{}-{}".format(*kind)), *kind), time.monotonic()
                ends(start(folder), None)
                whole[kind] = left(folder), time.monotonic() - at
            folder, number = Path(temporary, str(len(tried))), len(tried)
            kills = killed(folder, kind, whole[kind][1], random.Random(number))
            different = differences(whole[kind][0], left(folder))
            trial = {"kind": list(kind), "run": number, "kills": kills, "differences": different[:20], "code": code}
            append_line(args.results, json.dumps(trial))
            tried.append(trial)
            print(f"run {number}, {kind}: {len(kills)} kills, {different[:3] or 'the same bits'}", flush=True)
    print("\n".join(["", *table(tried)]))
    print(f"made by bayesdual (code {', '.join(sorted({t['code'] for t in tried}))})")


if __name__ == "__main__":
    main()
