"""Breaks the package on purpose, one mutant of the table at a time, and sees that the named test notices.

    make mutants            all of the table (tests/mutants/table.py)
    python -m tests.mutants.run kronecker "T^2"      those whose name or file has one of these words

Each mutant is put into a copy of the repository, never into the working tree. First all named tests must pass in the
copy as it is: a test that fails anyway notices nothing. The exit status is 0 only if every mutant is caught.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
COPIED = ("bayesdual", "scenarios", "strategies", "configs", "examples", "benchmarks", "tests", "pyproject.toml")
SECONDS = 300.0  # that a test may take
CAUGHT, SURVIVED, NOT_FOUND = "caught", "SURVIVED", "SNIPPET NOT FOUND"


def copy_of(root: Path, to: Path) -> Path:
    """Copies what the tests need, with its links as links; returns ``to``."""
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, to / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, to / name)
    return to


def run_tests(copy: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Runs tests in a copy until one fails; pytest's exit status (124: out of time) and what it printed."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # none is needed, and to load them takes a second
        "PYTHONDONTWRITEBYTECODE": "1",  # a mutant can be as long as the original, and written in the same second
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return 124, f"no end after {SECONDS:.0f} seconds"
    return done.returncode, done.stdout + done.stderr


def verdict(copy: Path, mutant: Mutant) -> str:
    """Puts a mutant into a copy, runs its tests, and takes it out again; CAUGHT if one of them failed."""
    file = copy / mutant.file
    text = file.read_text() if file.exists() else ""
    if text.count(mutant.snippet) != 1:
        return NOT_FOUND
    file.write_text(text.replace(mutant.snippet, mutant.replacement))
    try:
        status, output = run_tests(copy, [mutant.test])
    finally:
        file.write_text(text)
    if status == 1:
        return CAUGHT
    return SURVIVED if status == 0 else f"pytest ended with {status}, which is no failed test:\n{output[-2000:]}"


def judge(root: Path, mutants: Sequence[Mutant], jobs: int = 2) -> dict[str, str]:
    """The verdict of each mutant, by name, printed as it falls.

    Args:
        root: The repository.
        mutants: What to try.
        jobs: How many copies are worked on at the same time.

    Raises:
        SystemExit: A named test fails in an unchanged copy.
    """
    verdicts: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for i in range(jobs):
            copies.put(copy_of(root, Path(folder, str(i))))
        tests = sorted({mutant.test for mutant in mutants})
        print(f"{len(tests)} tests without a mutant ...", flush=True)
        status, output = run_tests(Path(folder, "0"), tests)
        if status:
            raise SystemExit(f"{output}\nThese tests fail on the code as it is: mend them first.")

        def one(mutant: Mutant) -> tuple[str, float]:
            copy, start = copies.get(), time.perf_counter()
            try:
                return verdict(copy, mutant), time.perf_counter() - start
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(jobs) as pool:
            tried = {pool.submit(one, mutant): mutant for mutant in mutants}
            for number, future in enumerate(as_completed(tried), start=1):
                mutant, (said, seconds) = tried[future], future.result()
                verdicts[mutant.name] = said
                print(f"[{number}/{len(mutants)}] {said}: {mutant.name} ({mutant.file}, {seconds:.0f} s)", flush=True)
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="try only mutants whose name or file has one of these")
    parser.add_argument("--jobs", type=int, default=2, help="how many are tried at the same time")
    given = parser.parse_args()
    wanted = [m for m in MUTANTS if not given.words or any(word in f"{m.name} {m.file}" for word in given.words)]
    if not wanted:
        raise SystemExit(f"no mutant has any of {given.words} in its name or file: see tests/mutants/table.py.")
    start = time.perf_counter()
    verdicts = judge(ROOT, wanted, given.jobs)
    left = {name: said for name, said in verdicts.items() if said != CAUGHT}
    print(f"{len(verdicts) - len(left)} of {len(verdicts)} mutants caught, in {time.perf_counter() - start:.0f} s")
    for name, said in left.items():
        print(f"  {said}: {name}")
    sys.exit(bool(left))


if __name__ == "__main__":
    main()
