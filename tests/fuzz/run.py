"""Opens damaged files: each is read, or refused in one sentence; none crashes, hangs, shows a traceback or runs code.

    python -m tests.fuzz.run [--cases 5000] [--seed 0] [--again "memory, by_tensors, 12"]

A case is the damage that a seed does to a whole file of one kind (``targets.py``), opened in a process beside this
one. What is found is printed with its name, by which ``--again`` opens that one here. The exit status is 0 only if
nothing was found. Refused in one sentence are ValueError, OSError and what the command line makes a sentence of; any
other exception is a traceback to whoever calls the package.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from bayesdual.configuration import CommandLineError
from tests.fuzz.targets import TARGETS, Target, write_whole_ones

SECONDS = 30.0  # without an answer: it hangs
REFUSALS = (ValueError, OSError, CommandLineError, FloatingPointError, MisconfigurationException)


@dataclass(frozen=True)
class Case:
    """The damage that a seed does.

    Attributes:
        target: The kind of file, how it is damaged and opened.
        seed: The seed.
    """

    target: Target
    seed: int

    @property
    def name(self) -> str:
        return f"{self.target.name}, {self.target.damage.__name__}, {self.seed}"


def cases(number: int, seed: int) -> list[Case]:
    """So many, of each kind according to its share."""
    shares = sum(target.share for target in TARGETS)
    return [Case(target, seed + i) for target in TARGETS for i in range(max(1, -(-number * target.share // shares)))]


def case_named(name: str) -> Case:
    """The case that a finding was printed as.

    Raises:
        KeyError: There is none of this name.
    """
    kind, way, seed = name.rsplit(", ", 2)
    by_name = {(target.name, target.damage.__name__): target for target in TARGETS}
    return Case(by_name[kind, way], int(seed))


def opened(case: Case, whole: Path) -> str | None:
    """Opens what a case is, beside the folder of whole files; what is wrong about it, None if nothing is."""
    folder = whole.parent / "tried"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / Path(case.target.file).name
    draw = random.Random(f"{case.target.name} {case.target.damage.__name__} {case.seed}")
    here = os.getcwd()
    os.chdir(folder)
    try:
        case.target.damage(whole / case.target.file, path, draw)
        case.target.open(path)
    except REFUSALS as error:
        if "\n" in str(error).strip():
            return f"{type(error).__name__} of several lines: {error}"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:150]} ({Path(last.filename).name}:{last.lineno})"
    finally:
        os.chdir(here)
    return "executed code" if (folder / "executed").exists() else None


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing that a library says of what it is given is shown."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


# ---- In a process beside this one --------------------------------------------------------------------------


def start(tried: list[Case], whole: Path) -> tuple[int, int]:
    """Opens cases in a forked process; its id, and where a line for each can be read."""
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1), os.dup2(nothing, 2)
        with quiet():
            for case in tried:
                said = (opened(case, whole) or "").replace("\n", " ")
                os.write(write, f"{said[:400]}\n".encode())
    finally:
        os._exit(0)


def answers(tried: list[Case], whole: Path) -> Iterator[tuple[Case, str]]:
    """Each case and what is wrong about it, or nothing; a process that dies or hangs is replaced."""
    left = list(tried)
    while left:
        pid, pipe = start(left, whole)
        held = b""
        while left:
            ready, _, _ = select.select([pipe], [], [], SECONDS)
            more = os.read(pipe, 1 << 16) if ready else b""
            if not more:
                os.kill(pid, signal.SIGKILL)
                _, status = os.waitpid(pid, 0)
                yield left.pop(0), "hangs" if not ready else f"crashes (status {status})"
                break
            held += more
            *lines, held = held.split(b"\n")
            for line in lines:
                yield left.pop(0), line.decode()
        else:
            os.waitpid(pid, 0)
        os.close(pipe)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0, help="the first seed of each kind")
    parser.add_argument("--again", metavar="CASE", help="open this one, here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        whole = Path(folder, "whole")
        with quiet():
            write_whole_ones(whole)
        if given.again:
            print(opened(case_named(given.again), whole) or "nothing is wrong")
            return
        tried, began = cases(given.cases, given.seed), time.monotonic()
        found: list[tuple[Case, str]] = []
        number: Counter[str] = Counter()
        for case, said in answers(tried, whole):
            number[case.target.name] += 1
            if said:
                found.append((case, said))
                print(f"{case.name}: {said}", flush=True)
    for name, count in number.items():
        print(f"{name:26} {count:5} cases, {sum(case.target.name == name for case, _ in found)} found")
    print(
        f"{len(tried)} damaged files in {time.monotonic() - began:.0f} s: {len(found)} crashes, hangs, tracebacks or "
        "code executed"
    )
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
