"""Comparisons: what is planned, that nothing is done twice, what is refused, and the numbers of the table."""

import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import yaml
from scipy import stats

from bayesdual.__main__ import main
from bayesdual.comparison import (
    Entry,
    Method,
    attempt,
    blocks_of,
    comma_separated,
    command,
    comparison_figure,
    markdown,
    read_comparison,
    rows_of,
    runs,
    short,
)
from bayesdual.configuration import arguments

MEMORY = "model.algorithm.init_args.memory_size"
LR = "model.optimizer.init_args.lr_factor"
TINY = {
    "folder": "out",
    "seeds": [0, 1],
    "tuning": {"seeds": [0], "validation": 0.2},
    "peers": "bayesdual.strategies.baselines",
    "benchmarks": {"m20": {"config": "split_digits.yaml", "set": {"data.epochs": 1, MEMORY: 20}}},
    "methods": {
        "ours": {"set": {"model.algorithm.init_args.weight_prior": None}, "tune": {LR: [0.1, 0.2]}},
        "Replay": {"peer": "Replay", "tune": {"lr": [1e-3, 1e-4]}},
        "joint": {"peer": "joint"},
    },
}


def with_(*path, value):
    """The tiny comparison with one thing changed."""
    content = json.loads(json.dumps(TINY))
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return content


def write(content, path="compare.yaml"):
    Path(path).write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return str(path)


def call(*argv):
    """Runs the command in this process: status, standard output and standard error."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(["compare", *map(str, argv)])
    return status, out.getvalue(), err.getvalue()


def refused(*argv, status=2):
    got, _, err = call(*argv)
    assert got == status and err.startswith("bayesdual: ") and err.count("\n") == 1, err
    assert err.endswith((".\n", "?\n")) and "Traceback" not in err
    return err.removeprefix("bayesdual: ").strip()


class Here:
    """Makes runs in this process, one after the other."""

    def __init__(self, slots):
        self.slots = 1

    def __call__(self, function, jobs):
        for job in jobs:
            yield job, attempt(function, job), "here"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "LocalProcesses", Here)
    monkeypatch.setattr(command, "be_quiet", lambda: None)
    return tmp_path


@pytest.fixture
def faked(here, monkeypatch):
    """Runs take no time: accuracy grows with the learning rate, and what is above 0.15 diverges."""

    def make(run):
        arguments = run.spec["arguments"]
        config, mine = arguments.get("config"), arguments.get("settings")
        lr = config["model"]["optimizer"]["init_args"]["lr_factor"] if config else mine["lr"]
        if lr > 0.15:
            raise FloatingPointError("the loss became nan")
        seed = config["seed_everything"] if config else arguments["seed"]
        accuracy = 0.5 + lr + 0.1 * seed
        matrix = [[accuracy] * 5] * (1 if arguments.get("name") == "joint" else 5)
        measured = {"average_accuracy": accuracy, "forgetting": 0.1, "nll": 1.0, "ece": 0.1, "exemplars": 20}
        return measured | {"accuracy_matrix": matrix, "seconds_total": 3.0, "seconds_evaluation": 1.0}

    monkeypatch.setattr(command, "make", make)
    return here


def planned(content, folder=None):
    return read_comparison(write(content), folder)


def runs_of(comparison, tuning=False, seed=0):
    return {(b.name, m.name): runs.run_of(comparison, b, m, m.grid[0], seed, tuning) for b, m in comparison.cells}


# ----------------------------------------------------------------------- planning


def test_a_run_is_named_by_all_that_it_depends_on_and_nothing_else(here):
    content = with_("benchmarks", "m50", value={"config": "split_digits.yaml", "set": {"data.epochs": 1, MEMORY: 50}})
    runs = runs_of(planned(content))
    assert runs["m20", "joint"].name == runs["m50", "joint"].name, "joint training has no memory"
    assert len({run.name for run in runs.values()}) == 5
    assert runs_of(planned(content), seed=1)["m20", "ours"].name != runs["m20", "ours"].name
    assert runs_of(planned(content, "elsewhere"))["m20", "ours"].name == runs["m20", "ours"].name
    assert runs_of(planned(with_("methods", "Replay", "set", value={"lr": 0.5})))["m20", "ours"] == runs["m20", "ours"]


def test_tuning_learns_without_the_validation_part_on_both_sides(here):
    comparison = planned(TINY)
    for b, m in comparison.cells:
        tried = runs.tuning_runs(comparison, b, m)
        assert len(tried) == {"ours": 2, "Replay": 2, "joint": 0}[m.name]
        for _, (run,) in tried:
            arguments = run.spec["arguments"]
            data = arguments["config"]["data"] if m.name == "ours" else arguments
            assert data["evaluate_on"] == "valid" and data["benchmark"]["init_args"]["validation"] == 0.2


def test_settings_override_in_the_order_benchmark_overlay_method_tuned(here):
    Path("overlay.yaml").write_text("model: {lr_end: 0.5, algorithm: {init_args: {memory_size: 0}}}")
    method = {"overlay": "overlay.yaml", "set": {"model.lr_end": 0.25, LR: 9.0}, "tune": {LR: [0.3]}}
    config = runs_of(planned(with_("methods", "ours", value=method)))["m20", "ours"].spec["arguments"]["config"]
    assert config["data"]["epochs"] == 1  # the benchmark's
    assert config["model"]["algorithm"]["init_args"]["memory_size"] == 0  # the overlay's
    assert config["model"]["lr_end"] == 0.25  # the method's
    assert config["model"]["optimizer"]["init_args"]["lr_factor"] == 0.3  # what is tuned


def test_the_peer_reads_the_benchmarks_configuration(here):
    content = with_("methods", "Replay", "set", value={"replay_batch_size": 7})
    arguments = runs_of(planned(content))["m20", "Replay"].spec["arguments"]
    expected = {"epochs": 1, "memory_size": 20, "replay_batch_size": 7, "batch_size": 32, "lr": 1e-3}
    assert arguments["settings"] == expected | {"optimizer": "torch.optim.Adam"}
    assert arguments["network"]["init_args"]["hidden"] == [256, 256]


def test_the_best_on_validation_is_chosen_and_what_diverges_loses():
    result = lambda a: {"average_accuracy": a}  # noqa: E731
    tried = [({"lr": 3}, [result(0.9), None]), ({"lr": 2}, [result(0.6), result(0.8)]), ({"lr": 1}, [result(0.7)] * 2)]
    assert runs.choose(tried) == {"lr": 2}  # of equals the first
    assert runs.choose([({"lr": 1}, [None]), ({"lr": 2}, [None])]) == {"lr": 1}
    method = Method("x", tune={"lr": [1, 2, 3], "kind": ["a", "b"]})
    assert len(method.grid) == 6
    assert runs.at_edge(method, {"lr": 3, "kind": "a"}) and not runs.at_edge(method, {"lr": 2, "kind": "a"})


def test_every_shipped_comparison_is_planned_from_any_folder(here):
    for path in Path(str(arguments.resources.files("bayesdual.configs"))).glob("compare_*.yaml"):
        config = arguments.find_configs(["--config", f"configs/{path.name}"])[1]
        comparison = read_comparison(config)
        assert comparison.ours and comparison.seeds == (0, 1, 2)
        budgets = {len(method.grid) for method in comparison.methods if comparison.role(method) != "own"}
        assert len(budgets) == 1, "ours and the peers are tuned over as many settings"
        assert len(runs_of(comparison)) == len(comparison.cells)


# ----------------------------------------------------------------------- runs, once


def test_tunes_compares_and_does_nothing_twice(faked):
    status, out, err = call("--config", write(TINY), "--dry_run")
    assert status == 0 and "6 runs to make, and then 4 with what was chosen" in out and not Path("out").exists()
    status, out, err = call("--config", write(TINY))
    assert (status, err) == (0, "")
    assert "ours on m20, lr_factor 0.2, seed 0, tuning: diverged" in out
    assert "tuned: ours lr_factor=0.1†, Replay lr=0.001†" in out and all(
        len(line) <= 100 for line in out.splitlines()[-12:]
    )
    results = json.loads(Path("out/results.json").read_text())
    assert [row["average_accuracy"] for row in results["rows"]] == pytest.approx([0.65, 0.551, 0.551])
    assert Path("out/figure.png").stat().st_size > 5000 and "| ours | .650 ± .071 |" in Path("out/table.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in Path("out/runs").iterdir()}
    assert len(before) == 10
    assert "not tuned by the same budget; settings tried: ours 2, Replay 2, joint 0" in " ".join(out.split())
    status, out, _ = call("--config", write(TINY))
    assert "tuning: 4 runs, 4 of them there already" in out and "comparing: 6 runs, 6 of them there already" in out
    assert {path: path.stat().st_mtime_ns for path in Path("out/runs").iterdir()} == before
    assert call("--config", "compare.yaml", "--dry_run")[1] == "0 runs to make\n"
    assert call("--config", write(with_("seeds", value=[0, 1, 2])))[0] == 0
    assert len(list(Path("out/runs").iterdir())) == 13, "only the new seed was run"


def test_a_seed_that_diverges_is_said_in_the_table(faked):
    entry = {"set": {"lr": 0.3}, "peer": "Replay"}
    _, out, _ = call("--config", write(with_("methods", "Replay", value=entry)))
    line = next(line for line in out.splitlines() if line.strip().startswith("Replay "))
    assert "diverged" in line


def test_another_error_ends_the_comparison_in_a_sentence_and_keeps_what_is_done(faked, monkeypatch):
    make = command.make

    def breaks(run):
        if run.title.startswith("Replay on m20, lr 0.001"):
            raise KeyError("nobody foresaw this")
        return make(run)

    monkeypatch.setattr(command, "make", breaks)
    text = refused("--config", write(TINY), status=1)
    assert text.startswith("Replay on m20, lr 0.001, seed 0, tuning: KeyError: 'nobody foresaw this'")
    assert len(list(Path("out/runs").iterdir())) == 2, "none was begun after it"
    with pytest.raises(command.RunError):
        main(["compare", "--config", "compare.yaml", "--debug"])


def test_a_stream_without_targets_is_refused_in_a_sentence(here, monkeypatch):
    Path("unlabelled_of_test.py").write_text(
        "import torch\n"
        "from avalanche.benchmarks import benchmark_from_datasets\n"
        "from avalanche.benchmarks.utils import as_avalanche_dataset\n"
        "from torch.utils.data import TensorDataset\n\n"
        "def stream():\n"
        "    data = as_avalanche_dataset(TensorDataset(torch.zeros(9, 64), torch.zeros(9).long()))\n"
        "    return benchmark_from_datasets(train=[data], test=[data])\n"
    )
    monkeypatch.syspath_prepend(here)
    for method in ({"peer": "Replay"}, {}):
        content = with_("benchmarks", "m20", "set", value={"data.benchmark": "unlabelled_of_test.stream"})
        content["methods"] = {"method": method}
        text = refused("--config", write(content), status=1)
        assert text.startswith("method on m20, seed 0: the dataset of experience 0 of the benchmark has no targets")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids):
    """Whether processes end, in the moment that Python's own resource tracker takes after its parent."""
    deadline = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_a_killed_comparison_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "bayesdual", "compare", "--config", write(TINY), "--workers", "1"]
    with open("log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while not list(Path("out/runs").glob("*.json")) and time.monotonic() < deadline:
                assert process.poll() is None, Path("log").read_text()
                time.sleep(0.02)
            workers = [int(p) for p in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    before = {path: path.stat().st_mtime_ns for path in Path("out/runs").glob("*.json")}
    assert 0 < len(before) < 10 and workers
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and "written to out: table.md" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before, "no run was made again"
    assert len(list(Path("out/runs").glob("*.json"))) == 10
    assert gone(workers), "the processes of the killed one are gone"
    rows = json.loads(Path("out/results.json").read_text())["rows"]
    assert [row["runs"] for row in rows] == [2, 2, 2] and all(0.2 < row["average_accuracy"] < 1 for row in rows)
    assert not list(Path("out/runs").glob(".*"))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_ctrl_c_ends_all_processes_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = with_("benchmarks", "m20", "set", value={"data.epochs": 500})
    content["methods"] = {"naive": {"peer": "naive"}}
    command = [sys.executable, "-m", "bayesdual", "compare", "--config", write(content), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    while len(children.read_text().split()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(pid) for pid in children.read_text().split()]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err == "bayesdual: stopped; the same command goes on from the runs that are finished.\n"
    assert workers and gone(workers)


def test_a_second_comparison_in_the_same_folder_is_refused(faked):
    with runs.sole_use(Path("out")):
        text = refused("--config", write(TINY))
    assert text == "another comparison is writing to out: wait for it, or give another --folder."
    assert call("--config", write(TINY))[0] == 0


# ----------------------------------------------------------------------- bad input

BAD = {
    "methods.Replay: 'Replya' is not a peer; did you mean Replay? There are naive": with_(
        "methods", "Replay", "peer", value="Replya"
    ),
    "methods.x.peer needs a module of peers": {**TINY, "methods": {"x": {"peer": "SI"}}, "peers": None},
    "peers is no.such, which cannot be imported": with_("peers", value="no.such"),
    "beta is not a setting of Replay; ": with_("methods", "Replay", "set", value={"beta": 1}),
    "model.optimizer.init_args.lr_facto is not a setting of bayesdual.ivon.IVONByRule; did you mean": with_(
        "methods", "ours", "set", value={"model.optimizer.init_args.lr_facto": 1}
    ),
    "benchmarks.m20.set: data.epoch is not a setting; did you mean data.epochs?": with_(
        "benchmarks", "m20", "set", value={"data.epoch": 1}
    ),
    "memory_size is 0, which Replay cannot learn with": with_("benchmarks", "m20", "set", value={MEMORY: 0}),
    "benchmarks.m20.config is no.yaml: there is no such file": with_("benchmarks", "m20", "config", value="no.yaml"),
    "methods is empty": with_("methods", value={}),
    "methods.ours.tune.model.lr_end is 3: give a list": with_("methods", "ours", "tune", value={"model.lr_end": 3}),
    "method is not a setting; did you mean methods?": {**TINY, "method": {}},
    "methods.Replay.overlay is for methods of ours": with_("methods", "Replay", "overlay", value="methods/full.yaml"),
    "seeds is [0, 0]: a seed stands there twice": with_("seeds", value=[0, 0]),
    "tuning.validation is 2: give a share": with_("tuning", "validation", value=2),
    "folder is missing": with_("folder", value=None),
    "ours is 'Replay', which is no method without a peer": {**TINY, "ours": "Replay"},
    "methods.joint.benchmarks names 'm30'; there are m20": with_("methods", "joint", "benchmarks", value=["m30"]),
    "compare.yaml holds no settings": "only text",
}


@pytest.mark.parametrize(("sentence", "content"), BAD.items(), ids=range(len(BAD)))
def test_bad_comparisons_are_refused_in_one_sentence(faked, sentence, content):
    assert sentence in refused("--config", write(content))
    assert not Path("out").exists()


def test_bad_flags_are_refused_in_one_sentence(faked):
    write(TINY)
    assert "required: --config" in refused()
    assert refused("--config", "compare.yaml", "--workers", 0) == "--workers is 0: give at least 1."
    assert "unrecognized arguments: --worker 3" in refused("--config", "compare.yaml", "--worker", 3)
    assert "compare.yaml cannot be written to" in refused("--config", "compare.yaml", "--folder", "compare.yaml")
    assert call("--config", "compare.yaml")[0] == 0
    damaged = next(Path("out/runs").iterdir())
    damaged.write_text("{")
    assert refused("--config", "compare.yaml") == f"{damaged} is damaged: delete it, and the run is made again."


# ----------------------------------------------------------------------- the numbers of the table


def result(accuracy, seconds=5.0, rows=5):
    measures = {"average_accuracy": accuracy, "forgetting": 0.1, "nll": 1.0, "ece": 0.1, "exemplars": 20}
    matrix = [[accuracy] * 5] * rows
    return measures | {"seconds_total": seconds, "seconds_evaluation": 1.0, "accuracy_matrix": matrix}


def entry(method, role, accuracies, benchmark="b", **more):
    results = {s: None if a is None else result(a, rows=1 if role == "upper" else 5) for s, a in enumerate(accuracies)}
    return Entry(benchmark, method, role, more.get("settings", {}), more.get("at_edge", False), 0, results)


def test_gap_closure_and_the_paired_test_are_what_one_computes_by_hand():
    ours, best, weak = [0.80, 0.82, 0.87], [0.78, 0.79, 0.80], [0.9, 0.1, 0.1]
    entries = [entry("ours", "ours", ours), entry("A", "peer", weak), entry("B", "peer", best)]
    entries += [entry("joint", "upper", [0.9, 0.91, 0.89]), entry("naive", "lower", [0.95, 0.95, 0.95])]
    row = rows_of(entries)[0]
    assert row["best_peer"] == "B", "neither the bound nor a single lucky run"
    assert row["average_accuracy"] == pytest.approx(0.83)
    assert row["average_accuracy_sd"] == pytest.approx(0.036056, 1e-4)
    assert row["gap_closure"] == pytest.approx((0.83 - 0.79) / (0.90 - 0.79))
    # d = .02, .03, .07: mean .04, sd .026458, t = .04 / (.026458 / sqrt(3))
    assert row["difference"] == pytest.approx(0.04) and row["difference_t"] == pytest.approx(2.6186, 1e-4)
    assert row["difference_p"] == pytest.approx(2 * stats.t.sf(2.6186, 2), 1e-3) and row["difference_pairs"] == 3
    assert row["seconds"] == 4.0, "evaluation is not training"


def test_what_cannot_be_said_is_left_out():
    entries = [entry("ours", "ours", [0.8]), entry("A", "peer", [0.7]), entry("joint", "upper", [0.9])]
    row = rows_of(entries)[0]
    assert row["difference_p"] is None and row["average_accuracy_sd"] is None and row["gap_closure"] is not None
    same = [entry("ours", "ours", [0.8, 0.9]), entry("A", "peer", [0.7, 0.8])]  # differences without spread
    assert rows_of(same)[0]["difference_t"] is None and rows_of(same)[0]["gap_closure"] is None
    worse = [entry("ours", "ours", [0.8]), entry("A", "peer", [0.95]), entry("joint", "upper", [0.9])]
    assert rows_of(worse)[0]["gap_closure"] is None, "joint training is no upper bound here"
    assert rows_of(entries)[2]["forgetting"] is None, "one experience"
    partly = rows_of([entry("ours", "ours", [0.8, None, 0.9]), entry("A", "peer", [None, 0.7, 0.8])])
    assert partly[0]["difference"] == pytest.approx(0.1) and partly[0]["difference_pairs"] == 1
    assert "[2]" in markdown(blocks_of(partly)) and "others diverged" in markdown(blocks_of(partly))
    assert "diverged" in markdown(blocks_of(rows_of([entry("ours", "ours", [None, None])])))


def test_several_benchmarks_begin_with_the_accuracies():
    entries = [
        e
        for b in ("one", "two", "three", "four", "five")
        for e in (entry("ours", "ours", [0.8, 0.9], b), entry("A|B", "peer", [0.7, 0.7], b))
    ]
    blocks = blocks_of(rows_of(entries))
    assert [block.title for block in blocks] == ["average accuracy"] * 2 + ["one", "two", "three", "four", "five"]
    assert blocks[0].header == ["method", "one", "two", "three", "four"] and blocks[1].header == ["method", "five"]
    assert blocks[0].lines[0] == ["ours", *[".850 ± .071"] * 4]
    text = markdown(blocks)
    assert "A\\|B" in text and text.count("A|B") == 5  # in the sentences below the tables
    assert len(comma_separated(rows_of(entries)).splitlines()) == 11
    assert len(comparison_figure(entries).axes) == 8


def test_numbers_are_short():
    assert [short(x) for x in (0.5, -0.0123, 0.9996, 1.25, 0.0)] == [".500", "-.012", "1.000", "1.250", ".000"]


# ----------------------------------------------------------------------- Ray


def test_the_same_command_spreads_over_a_ray_cluster_of_two_nodes(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    content = with_("seeds", value=[0, 1, 2, 3])
    content["methods"] = {"naive": {"peer": "naive"}}
    handler = signal.getsignal(signal.SIGTERM)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        status, out, err = call("--config", write(content), "--ray", cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()
        signal.signal(signal.SIGTERM, handler)  # ray leaves its own
    assert status == 0, err
    assert "comparing: 4 runs, 0 of them there already" in out and "naive" in out
    records = [json.loads(path.read_text()) for path in Path("out/runs").glob("*.json")]
    assert len(records) == 4
    nodes = {record["made_by"] for record in records}
    assert len(nodes) == 2 and all(node.startswith("node ") for node in nodes)


def test_without_ray_the_flag_is_refused_in_a_sentence(faked, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    text = refused("--config", write(TINY), "--ray", "auto", status=1)
    assert text == "--ray needs Ray, which is not installed: pip install 'bayesdual[ray]'."


def test_a_cluster_that_is_not_there_is_refused_in_a_sentence(faked):
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    text = refused("--config", write(TINY), "--ray", f"127.0.0.1:{free}", status=1)
    assert text.startswith(f"--ray 127.0.0.1:{free}: there is no Ray cluster to be reached (")
