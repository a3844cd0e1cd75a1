"""Comparisons: what is planned, that nothing is done twice, what is refused, and the numbers of the table."""

import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import yaml

from bayesdual import sources
from bayesdual.__main__ import main
from bayesdual.comparison import (
    Method,
    Store,
    attempt,
    cells,
    command,
    ours,
    read_comparison,
)
from bayesdual.configuration import arguments, sole_use

MEMORY = "model.algorithm.init_args.memory_size"
LR = "model.optimizer.init_args.lr_factor"
TINY = {
    "folder": "out",
    "seeds": [0, 1],
    "tuning": {"seeds": [0], "validation": 0.2},
    "baselines": "bayesdual.strategies.baselines",
    "benchmarks": {"m20": {"config": "split_digits.yaml", "set": {"data.epochs": 1, MEMORY: 20}}},
    "methods": {
        "ours": {"set": {"model.algorithm.init_args.weight_prior": None}, "tune": {LR: [0.1, 0.2]}},
        "Replay": {"baseline": "Replay", "tune": {"lr": [1e-3, 1e-4]}},
        "joint": {"baseline": "joint"},
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

    def learn(cell):
        arguments = cell.spec["arguments"]
        config, mine = arguments.get("config"), arguments.get("settings")
        lr = config["model"]["optimizer"]["init_args"]["lr_factor"] if config else mine["lr"]
        if lr > 0.15:
            raise FloatingPointError("the loss became nan")
        seed = config["seed_everything"] if config else arguments["seed"]
        accuracy = 0.5 + lr + 0.1 * seed
        matrix = [[accuracy] * 5] * (1 if arguments.get("name") == "joint" else 5)
        measured = {"average_accuracy": accuracy, "forgetting": 0.1, "nll": 1.0, "ece": 0.1, "exemplars": 20}
        measured |= {"memory_bytes": {"inputs": 1280, "labels": 20}}
        return measured | {"accuracy_matrix": matrix, "seconds_total": 3.0, "seconds_evaluation": 1.0}

    monkeypatch.setattr(command, "learn_cell", learn)
    return here


def planned(content, folder=None):
    return read_comparison(write(content), folder)


def cells_of(comparison, tuning=False, seed=0):
    return {(b.name, m.name): cells.cell_of(comparison, b, m, m.grid[0], seed, tuning) for b, m in comparison.pairs}


def kept(folder="out"):
    """The runs in the folder of a comparison."""
    return list(Store(Path(folder) / "runs.jsonl"))


# ----------------------------------------------------------------------- planning


def test_a_run_is_named_by_all_that_it_depends_on_and_nothing_else(here):
    content = with_("benchmarks", "m50", value={"config": "split_digits.yaml", "set": {"data.epochs": 1, MEMORY: 50}})
    found = cells_of(planned(content))
    assert found["m20", "joint"].name == found["m50", "joint"].name, "joint training has no memory"
    assert len({cell.name for cell in found.values()}) == 5
    assert cells_of(planned(content), seed=1)["m20", "ours"].name != found["m20", "ours"].name
    assert cells_of(planned(content, "elsewhere"))["m20", "ours"].name == found["m20", "ours"].name
    other = cells_of(planned(with_("methods", "Replay", "set", value={"replay_batch_size": 7})))
    assert other["m20", "ours"] == found["m20", "ours"] and other["m20", "Replay"].name != found["m20", "Replay"].name


def test_tuning_learns_without_the_validation_part_on_both_sides(here):
    comparison = planned(TINY)
    for b, m in comparison.pairs:
        tried = cells.tuning_cells(comparison, b, m)
        assert len(tried) == {"ours": 2, "Replay": 2, "joint": 0}[m.name]
        for _, (cell,) in tried:
            arguments = cell.spec["arguments"]
            data = arguments["config"]["data"] if m.name == "ours" else arguments
            assert data["evaluate_on"] == "valid" and data["benchmark"]["init_args"]["validation"] == 0.2


def test_settings_override_in_the_order_benchmark_overlay_method_tuned(here):
    Path("overlay.yaml").write_text("model: {lr_end: 0.5, algorithm: {init_args: {memory_size: 0}}}")
    method = {"overlay": "overlay.yaml", "set": {"model.lr_end": 0.25, LR: 9.0}, "tune": {LR: [0.3]}}
    config = cells_of(planned(with_("methods", "ours", value=method)))["m20", "ours"].spec["arguments"]["config"]
    assert config["data"]["epochs"] == 1  # the benchmark's
    assert config["model"]["algorithm"]["init_args"]["memory_size"] == 0  # the overlay's
    assert config["model"]["lr_end"] == 0.25  # the method's
    assert config["model"]["optimizer"]["init_args"]["lr_factor"] == 0.3  # what is tuned


def test_the_baseline_reads_the_benchmarks_configuration(here):
    content = with_("methods", "Replay", "set", value={"replay_batch_size": 7})
    arguments = cells_of(planned(content))["m20", "Replay"].spec["arguments"]
    expected = {"epochs": 1, "memory_size": 20, "replay_batch_size": 7, "batch_size": 32, "lr": 1e-3}
    assert arguments["settings"] == expected | {"optimizer": "torch.optim.Adam"}
    assert arguments["network"]["init_args"]["hidden"] == [256, 256]


def test_the_best_on_validation_is_chosen_and_what_diverges_loses():
    result = lambda a: {"average_accuracy": a}  # noqa: E731
    tried = [({"lr": 3}, [result(0.9), None]), ({"lr": 2}, [result(0.6), result(0.8)]), ({"lr": 1}, [result(0.7)] * 2)]
    assert cells.choose(tried) == {"lr": 2}  # of equals the first
    assert cells.choose([({"lr": 1}, [None]), ({"lr": 2}, [None])]) == {"lr": 1}
    method = Method("x", tune={"lr": [1, 2, 3], "kind": ["a", "b"]})
    assert len(method.grid) == 6
    edges = [cells.at_edge(method, {"lr": lr, "kind": "a"}) for lr in (1, 2, 3)]
    assert edges == [True, False, True], "a name has no edge"


def test_every_shipped_comparison_is_planned_from_any_folder(here):
    for path in Path(str(arguments.resources.files("bayesdual.configs"))).glob("compare_*.yaml"):
        config = arguments.find_configs(["--config", f"configs/{path.name}"])[1]
        comparison = read_comparison(config)
        assert comparison.ours and len(comparison.seeds) in (3, 6)
        untunable = {"nearest class mean"}
        tuned = [m for m in comparison.methods if comparison.role(m) != "own" and m.baseline not in untunable]
        budgets = {len(method.grid) for method in tuned}
        assert len(budgets) == 1, "ours and the baselines are tuned over as many settings"
        some = replace(comparison, benchmarks=comparison.benchmarks[:2])
        assert len(cells_of(some)) == len(some.pairs) > 0


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
    before = Path("out/runs.jsonl").read_text()
    assert len(kept()) == len(before.splitlines()) == 10
    assert "not tuned by the same budget; settings tried: ours 2, Replay 2, joint 0" in " ".join(out.split())
    status, out, _ = call("--config", write(TINY))
    assert "tuning: 4 runs, 4 of them there already" in out and "comparing: 6 runs, 6 of them there already" in out
    assert Path("out/runs.jsonl").read_text() == before
    assert call("--config", "compare.yaml", "--dry_run")[1] == "0 runs to make\n"
    assert call("--config", write(with_("seeds", value=[0, 1, 2])))[0] == 0
    assert len(kept()) == 13 and Path("out/runs.jsonl").read_text().startswith(before), "only the new seed was run"


def test_results_of_other_code_are_made_again_and_left_where_they_are(faked, monkeypatch):
    """One line of a network of the user's changes: its runs are made again, those of the other methods are not."""
    own = Path("own_network_of_compare.py")
    own.write_text("from bayesdual.models import MLP\n\n\nclass Net(MLP):\n    pass\n")
    monkeypatch.syspath_prepend(faked)
    method = {"set": {"model.network.class_path": f"{own.stem}.Net", LR: 0.1}}
    content = with_("methods", "ours", value=method)
    assert call("--config", write(content))[0] == 0
    before = Path("out/runs.jsonl").read_text()
    old = {run.code for run in kept() if run.title.startswith("ours")}
    own.write_text(own.read_text().replace("pass", "width = 3  # a remark"))
    sources.digest.cache_clear()
    sources.parsed.cache_clear()
    status, out, _ = call("--config", "compare.yaml")
    assert status == 0 and len(old) == 1
    assert f"left aside, and kept in out/runs.jsonl: 2 runs of other code ({old.pop()[:8]}).\n" in out
    assert "comparing: 6 runs, 4 of them there already" in out
    assert Path("out/runs.jsonl").read_text().startswith(before)
    own.write_text(own.read_text().replace("a remark", "another"))
    sources.digest.cache_clear()
    sources.parsed.cache_clear()
    assert "comparing: 6 runs, 6 of them there already" in call("--config", "compare.yaml")[1], "a comment is no code"


def test_a_folder_of_before_is_left_as_it_is(faked):
    Path("out/runs").mkdir(parents=True)
    old = Path("out/runs/0123456789abcdef.json")
    old.write_text('{"title": "ours on m20, seed 0", "spec": {"version": "0.1.0"}, "results": {"average_accuracy": 1}}')
    status, out, _ = call("--config", write(TINY))
    assert status == 0 and old.exists()
    assert out.startswith("left aside, and kept in out/runs: 1 run of before 0.2.0, when none said its code.\n")
    assert "comparing: 6 runs, 0 of them there already" in out


def test_a_run_is_not_made_where_the_code_is_another(here):
    (cell, *_) = cells_of(planned(TINY)).values()
    cell.__dict__["code"] = "feedfacecafebeef"  # as it was when the comparison began
    with pytest.raises(RuntimeError, match=r"is not what it was when the comparison began \(feedface\)"):
        command.learn_cell(cell)


def test_a_run_of_a_comparison_gives_what_fit_gives(here):
    """The results of a cell are those of the command, to the bit."""
    content = with_("methods", "ours", value={"set": {"model.algorithm.init_args.weight_prior": None}})
    results = ours.learn(**cells_of(planned(content))["m20", "ours"].spec["arguments"])
    flags = ["--data.epochs", "1", f"--{MEMORY}", "20", "--model.algorithm.init_args.weight_prior", "null"]
    with redirect_stdout(StringIO()):
        assert main(["fit", "--config", "split_digits.yaml", "--run_dir", "run", *flags]) == 0
    fitted = json.loads(Path("run/results.json").read_text())
    assert results["accuracy_matrix"] == fitted["accuracy_matrix"] and results["nll"] == fitted["nll"]


def test_a_seed_that_diverges_is_said_in_the_table(faked):
    entry = {"set": {"lr": 0.3}, "baseline": "Replay"}
    _, out, _ = call("--config", write(with_("methods", "Replay", value=entry)))
    line = next(line for line in out.splitlines() if line.strip().startswith("Replay "))
    assert "diverged" in line


def test_another_error_ends_the_comparison_in_a_sentence_and_keeps_what_is_done(faked, monkeypatch):
    learn = command.learn_cell

    def breaks(cell):
        if cell.title.startswith("Replay on m20, lr 0.001"):
            raise KeyError("nobody foresaw this")
        return learn(cell)

    monkeypatch.setattr(command, "learn_cell", breaks)
    text = refused("--config", write(TINY), status=1)
    assert text.startswith("Replay on m20, lr 0.001, seed 0, tuning: KeyError: 'nobody foresaw this'")
    assert len(kept()) == 2, "none was begun after it"
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
    for method in ({"baseline": "Replay"}, {}):
        content = with_("benchmarks", "m20", "set", value={"data.benchmark": "unlabelled_of_test.stream"})
        content["methods"] = {"method": method}
        text = refused("--config", write(content), status=1)
        assert text.startswith("method on m20, seed 0: the dataset of experience ") and " has no targets" in text


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
def test_a_killed_comparison_goes_on_where_it_stopped(here):
    config = write(with_("methods", value={"Replay": TINY["methods"]["Replay"], "joint": {"baseline": "joint"}}))
    killed = [sys.executable, "-m", "bayesdual", "compare", "--config", config, "--workers", "1"]
    with open("log", "w") as log:
        process = subprocess.Popen(killed, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while not kept() and time.monotonic() < deadline:
                assert process.poll() is None, Path("log").read_text()
                time.sleep(0.02)
            workers = [int(p) for p in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    before = [run.name for run in kept()]
    assert 0 < len(before) < 6 and workers
    status, out, err = call("--config", config)
    assert (status, err) == (0, "") and "written to out: table.md" in out
    names = [json.loads(line)["name"] for line in Path("out/runs.jsonl").read_text().splitlines()]
    assert names[: len(before)] == before and len(set(names)) == len(names) == 6, "no run was made again"
    assert gone(workers), "the processes of the killed one are gone"
    rows = json.loads(Path("out/results.json").read_text())["rows"]
    assert [row["runs"] for row in rows] == [2, 2] and all(0.15 < row["average_accuracy"] < 1 for row in rows)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_ctrl_c_ends_all_processes_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = with_("benchmarks", "m20", "set", value={"data.epochs": 500})
    content["methods"] = {"naive": {"baseline": "naive"}}
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
    with sole_use(Path("out"), "busy"):
        text = refused("--config", write(TINY))
    assert text == "another comparison is writing to out: wait for it, or give another --folder."
    assert call("--config", write(TINY))[0] == 0


# ----------------------------------------------------------------------- bad input

BAD = {
    "methods.Replay: 'Replya' is not a baseline; did you mean Replay? There are naive": with_(
        "methods", "Replay", "baseline", value="Replya"
    ),
    "methods.x.baseline needs a module of baselines": {
        **TINY,
        "methods": {"x": {"baseline": "SI"}},
        "baselines": None,
    },
    "baselines is no.such, which cannot be imported": with_("baselines", value="no.such"),
    "methods.joint.peer is what baseline was called, and both are there: give one": with_(
        "methods", "joint", "peer", value="joint"
    ),
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
    "ours is 'Replay', which is no method of ours": {**TINY, "ours": "Replay"},
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


# ----------------------------------------------------------------------- Ray


def test_the_same_command_spreads_over_a_ray_cluster_of_two_nodes(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    content = with_("seeds", value=[0, 1, 2, 3])
    content["methods"] = {"naive": {"baseline": "naive"}}
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
    assert len(kept()) == 4
    nodes = {run.made_by for run in kept()}
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
