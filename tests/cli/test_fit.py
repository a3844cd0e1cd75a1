"""The command line as a stranger tries it: what it does, what it leaves, and what it says of bad input."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bayesdual import __version__, sources
from bayesdual.__main__ import main
from bayesdual.cli.fit import batch_of_processes
from bayesdual.cli.run_directories import changed_settings, latest_run
from bayesdual.configuration import CommandLineError, Setting, arguments, failure, messages, parsing_complaint, sole_use
from bayesdual.learner import StreamDataModule
from bayesdual.memory import Memory
from tests.streams import blobs

TINY = """
seed_everything: 0
data:
  benchmark:
    class_path: bayesdual.scenarios.SplitDigits
    init_args: {n_experiences: 5, validation: 0.2}
  epochs: 1
  batch_size: 64
model:
  network:
    class_path: bayesdual.models.MLP
    init_args: {in_features: 64, hidden: [32], n_classes: 10}
  algorithm:
    class_path: bayesdual.algorithm.BayesDual
    init_args: {memory_size: 50}
  optimizer:
    class_path: bayesdual.IVON
    init_args: {lr: 0.1, ess: 1000, hess_init: 0.1}
"""


def call(*argv):
    """Runs the command line in this process: status, standard output and standard error."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(word) for word in argv])
    return status, out.getvalue(), err.getvalue()


def refused(*argv, status=2):
    """Runs what must fail in one sentence, and returns the sentence."""
    got, out, err = call(*argv)
    assert got == status, err
    assert err.startswith("bayesdual: ") and err.endswith(("." + os.linesep, "?" + os.linesep)), err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert "run directory" not in out
    return err.removeprefix("bayesdual: ").strip()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, with ``tiny.yaml``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A folder in which ``fit --config tiny.yaml`` was run, and what it printed."""
    folder = tmp_path_factory.mktemp("learned")
    (folder / "tiny.yaml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        status, out, err = call("fit", "--config", "tiny.yaml")
    assert status == 0, err
    return folder, out, err


@pytest.fixture
def in_learned(learned, monkeypatch):
    monkeypatch.chdir(learned[0])
    return Path("runs/tiny-1")


def config_of(out):
    return yaml.safe_load(out)


# ----------------------------------------------------------------------- what a run says and leaves


def test_output_is_quiet_and_ends_with_the_run_directory(learned):
    folder, out, err = learned
    lines = out.splitlines()
    assert err == ""
    assert lines[-1] == "run directory: runs/tiny-1"
    assert sum(line.startswith("experience ") and "learned" in line for line in lines) == 5
    assert all(len(line) <= 80 for line in lines)
    assert "warn" not in out.lower()


def test_the_accuracy_matrix_is_printed_as_it_is_in_the_results(learned):
    folder, out, _ = learned
    matrix = json.loads((folder / "runs/tiny-1/results.json").read_text())["accuracy_matrix"]
    final = [f"{a:.3f}" for a in matrix[-1]]
    assert re.search(r"^ *5 +" + " +".join(map(re.escape, final)), out, re.MULTILINE)


def test_results_hold_what_is_promised(learned):
    results = json.loads((learned[0] / "runs/tiny-1/results.json").read_text())
    promised = {
        "average_accuracy",
        "forgetting",
        "backward_transfer",
        "forward_transfer",
        "accuracy_matrix",
        "nll",
        "ece",
    }
    promised |= {"memory_size", "seconds_total", "seconds_training", "seconds_evaluation", "seconds_memory", "seed"}
    assert not [key for key in (*promised, "versions") if results.get(key) is None]
    assert results["average_accuracy"] == pytest.approx(sum(results["accuracy_matrix"][-1]) / 5)
    assert results["memory_size"] == 50 and results["seed"] == 0
    assert results["versions"]["bayesdual"] == __version__ and results["code"] == sources.digest_of_all()
    assert results["seconds_total"] >= results["seconds_training"] > 0


def test_scalars_share_one_step_axis(learned):
    events = EventAccumulator(str(learned[0] / "runs/tiny-1"))
    events.Reload()
    tags = events.Tags()["scalars"]
    expected = {"loss/total", "loss/new", "loss/labels", "learning_rate", "average_accuracy", "forgetting"}
    assert expected | {"memory/exemplars", *(f"accuracy/experience_{k}" for k in range(1, 6))} <= set(tags)
    steps = [event.step for event in events.Scalars("average_accuracy")]
    assert steps == sorted(set(steps)) and len(steps) == 5
    assert events.Scalars("loss/total")[-1].step <= steps[-1] <= events.Scalars("memory/exemplars")[-1].step


def test_run_directory_holds_checkpoints_memory_and_the_resolved_configuration(learned):
    run = learned[0] / "runs/tiny-1"
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert names == {"last.ckpt", *(f"experience_{k}.ckpt" for k in range(1, 6))}
    assert len(Memory.load(run / "memory.safetensors")) == 50
    config = config_of((run / "config.yaml").read_text())
    assert config["data"]["benchmark"]["init_args"]["n_experiences"] == 5
    assert config["model"]["optimizer"]["init_args"]["mc_samples"] == 1  # a default, spelled out
    assert not [path for path in run.rglob(".*")]  # no temporary file


def test_checkpoints_within_epochs_are_a_setting(here):
    tiny = ["fit", "--config", "tiny.yaml", "--trainer.max_epochs", 1]
    text = refused(*tiny, "--checkpoint.every_n_steps", 3, "--trainer.enable_checkpointing", "false")
    assert "checkpoint.every_n_steps says when checkpoints are written, and trainer.enable_checkpointing is f" in text
    assert "checkpoint.every_n_minutes is 0" in refused(*tiny, "--checkpoint.every_n_minutes", 0, status=1)
    assert not Path("runs").exists()
    status, _, err = call(*tiny, "--checkpoint.every_n_steps", 3)
    assert status == 0, err
    assert config_of(Path("runs/tiny-1/config.yaml").read_text())["checkpoint"]["every_n_steps"] == 3
    status, out, err = call(*tiny, "--ckpt_path", "last")
    assert status == 0 and "going on with checkpoint.every_n_steps None, which was 3" in out, err


def test_how_processes_share_out_a_batch_is_said():
    stream = partial(StreamDataModule, blobs, batch_size=32)
    assert batch_of_processes(stream(), 2) == "2 processes: 32 new examples in a batch, 16 on each"
    assert batch_of_processes(stream(batch_size_of="each"), 2) == "2 processes: 64 new examples in a batch, 32 on each"


def test_evaluating_the_last_checkpoint_gives_the_accuracy_of_the_run(in_learned):
    results = json.loads((in_learned / "results.json").read_text())
    status, out, _ = call("test", "--config", "tiny.yaml", "--ckpt_path", "last")
    assert status == 0
    assert re.search(rf"average +{results['average_accuracy']:.4f}", out)
    for key, name in (("nll", "NLL"), ("ece", "ECE"), ("brier", "Brier"), ("aurc", "AURC"), ("entropy", "entropy")):
        assert re.search(rf" {name} +{results[key]:.4f}", out), key
    left = json.loads((in_learned / "test.json").read_text())
    assert left["measures"] == pytest.approx({key: results[key] for key in left["measures"]}, rel=1e-5)
    assert [left["groups"][g] for g in ("old", "new")] == [
        pytest.approx(results["over_stream"][-1][g], rel=1e-5) for g in ("old", "new")
    ]


def test_data_of_another_kind_are_given_where_a_checkpoint_is_evaluated(in_learned, tmp_path):
    spec = "{class_path: bayesdual.scenarios.PermutedDigits, init_args: {n_experiences: 2, seed: 3}}"
    (tmp_path / "ood.yaml").write_text(f"data:\n  ood: {spec}\n")
    given = ["--config", "tiny.yaml", "--ckpt_path", in_learned / "checkpoints/last.ckpt"]
    for more in (["--config", tmp_path / "ood.yaml"], ["--data.ood", "bayesdual.scenarios.PermutedDigits"]):
        status, out, err = call("test", *given, *more)
        assert status == 0, err
        apart = json.loads((in_learned / "test.json").read_text())["told_apart"]["ood"]
        assert 0.5 < apart["auroc_entropy"] <= 1
        assert re.search(rf"other data, by entropy: AUROC +{apart['auroc_entropy']:.4f}", out)
    text = refused("test", *given, "--data.ood", "bayesdual.scenarios.PermutedFMNST")
    assert "data.ood" in text and "PermutedFMNIST" in text


def test_a_run_is_found_by_its_own_configuration_from_another_folder(learned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = learned[0] / "runs/tiny-1/config.yaml"
    for command in ("test", "validate"):
        status, out, err = call(command, "--config", config, "--ckpt_path", "last")
        assert status == 0, err
        assert "average" in out
    assert not list(tmp_path.iterdir())


def test_an_earlier_checkpoint_can_be_evaluated_by_file(in_learned):
    results = json.loads((in_learned / "results.json").read_text())
    status, out, _ = call(
        "test", "--config", "tiny.yaml", "--data.epochs", 3, "--ckpt_path", in_learned / "checkpoints/experience_2.ckpt"
    )
    assert status == 0
    assert re.search(rf"average +{sum(results['accuracy_matrix'][1]) / 5:.4f}", out)


def test_predictions_have_one_row_for_each_test_example(in_learned):
    status, out, _ = call("predict", "--config", "tiny.yaml", "--ckpt_path", "last")
    assert status == 0 and out.splitlines()[-1] == "predictions: runs/tiny-1/predictions.csv"
    rows = list(csv.DictReader((in_learned / "predictions.csv").open()))
    results = json.loads((in_learned / "results.json").read_text())
    first = [row for row in rows if row["experience"] == "1"]
    hits = [row["label"] == row["prediction"] for row in first]
    assert len(rows) == 359
    assert sum(hits) / len(hits) == pytest.approx(results["accuracy_matrix"][-1][0])
    assert all(0 <= float(row["probability"]) <= 1 for row in rows)
    assert sum(float(row["entropy"]) for row in rows) / len(rows) == pytest.approx(results["entropy"], abs=1e-5)
    assert "epistemic" not in rows[0] and re.search(rf"AURC +{results['aurc']:.4f}", out)


def test_a_checkpoint_is_evaluated_by_the_configuration_of_its_run(in_learned):
    last = in_learned / "checkpoints/last.ckpt"
    expected = call("test", "--config", "tiny.yaml", "--ckpt_path", "last")[1]
    status, out, err = call("test", f"--ckpt_path={last}")
    assert (status, out) == (0, expected), err
    assert "is a folder: give a checkpoint, such as" in refused("test", "--config", "tiny.yaml", "--ckpt_path", "runs")


def test_by_a_posterior_predictions_have_the_entropy_in_two_parts(in_learned):
    status, _, err = call("predict", "--config", "tiny.yaml", "--ckpt_path", "last", "--model.prediction", "linearised")
    assert status == 0, err
    rows = list(csv.DictReader((in_learned / "predictions.csv").open()))
    parts = [[float(row[key]) for key in ("entropy", "aleatoric", "epistemic")] for row in rows]
    assert all(abs(whole - a - e) < 1e-5 or e == 0 for whole, a, e in parts) and any(e > 0.01 for *_, e in parts)


def test_a_stopped_run_goes_on_to_the_same_results(here, learned):
    assert call("fit", "--config", "tiny.yaml", "--trainer.max_epochs", 2)[0] == 0
    status, out, err = call("fit", "--config", "tiny.yaml", "--ckpt_path", "last")
    assert status == 0, err
    assert out.splitlines()[-1] == "run directory: runs/tiny-1"
    ours, theirs = (json.loads((f / "runs/tiny-1/results.json").read_text()) for f in (here, learned[0]))
    assert ours["accuracy_matrix"] == theirs["accuracy_matrix"] and ours["nll"] == theirs["nll"]
    config = config_of(Path("runs/tiny-1/config.yaml").read_text())
    assert "ckpt_path" not in config  # it says how to run, not how it was resumed


def test_a_given_directory_is_not_overwritten(in_learned):
    text = refused("fit", "--config", "tiny.yaml", "--run_dir", in_learned)
    assert "already holds a run" in text


def test_runs_are_numbered_and_only_those_with_a_validation_stream_can_be_validated(in_learned):
    flags = ["--data.benchmark.init_args.n_experiences", 1, "--data.benchmark.init_args.validation", 0]
    status, out, _ = call("fit", "--config", "tiny.yaml", *flags)
    assert status == 0 and out.splitlines()[-1] == "run directory: runs/tiny-2"
    text = refused(
        "validate", "--config", "tiny.yaml", "--run_dir", "runs/tiny-2", "--ckpt_path", "last", *flags, status=1
    )
    assert "no experiences in a stream 'valid'" in text and "--data.benchmark.init_args.validation 0.1" in text


# ----------------------------------------------------------------------- settings from files and flags


OWN = [f"data.{key}" for key in ("benchmark", "epochs", "batch_size", "evaluate_on", "workers")]
OWN += [f"model.{key}" for key in ("network", "algorithm", "optimizer", "lr_end")]
OWN += ["run_dir", "threads", "seed_everything", "ckpt_path", "config"]


@pytest.mark.parametrize("command", ["fit", "test"])
def test_help_of_a_command_is_short_and_has_all_settings_of_ours(command):
    status, out, _ = call(command, "--help")
    assert status == 0 and len(out.splitlines()) <= 200
    assert out.startswith(f"usage: python -m bayesdual {command} --config FILE")
    assert not [key for key in OWN if f"--{key} " not in out]
    assert "torch.nn.Linear" not in out and "--trainer.profiler" not in out and "--help=all" in out


def test_help_of_everything_is_there_for_who_asks():
    status, out, _ = call("fit", "--help=all")
    assert status == 0 and "torch.nn.Linear" in out and "--trainer.profiler" in out
    assert not [key for key in OWN if f"--{key} " not in out]


def test_later_files_and_flags_override_earlier_ones(here):
    Path("overlay.yaml").write_text(
        "data: {epochs: 2, batch_size: 8}\nmodel: {algorithm: {init_args: {memory_size: 70}}}"
    )
    _, out, _ = call(
        "fit", "--config", "tiny.yaml", "--config", "overlay.yaml", "--data.batch_size=9", "--print_config"
    )
    config = config_of(out)
    assert (config["data"]["epochs"], config["data"]["batch_size"]) == (2, 9)
    assert config["model"]["algorithm"]["init_args"]["memory_size"] == 70
    assert not Path("runs").exists()


def test_every_shipped_configuration_and_overlay_parses_from_any_folder(here):
    folder = Path(arguments.resources.files("bayesdual.configs"))
    runs = [path for path in folder.glob("*.yaml") if not path.name.startswith("compare_")]
    commands = [["--config", f"configs/{path.name}"] for path in runs]
    for path in folder.glob("methods/*.yaml"):
        commands.append([*commands[0], "--config", f"configs/methods/{path.name}"])
    for command in commands:
        status, out, err = call("fit", *command, "--print_config")
        if "clinc150" in command[1] and find_spec("peft") is None:
            assert status == 2 and "which is not installed: pip install 'bayesdual[lora]'." in err
            continue
        assert status == 0, (command, err)
        assert config_of(out)["data"]["benchmark"]["class_path"].startswith("bayesdual.scenarios.")


def test_interpolations_mean_the_final_value(here):
    Path("overlay.yaml").write_text(
        "data:\n  epochs: ${data.batch_size}\n  benchmark: {init_args: {seed: '${seed_everything}'}}\n"
        "model:\n  lr_end: ${oc.env:LR_END_OF_TEST}\n"
    )
    os.environ["LR_END_OF_TEST"] = "0.25"
    argv = ["fit", "--config", "tiny.yaml", "--config", "overlay.yaml", "--print_config", "--seed_everything", 5]
    argv += ["--allow-env"]
    config = config_of(call(*argv, "--model.algorithm.init_args.memory_size", "${data.batch_size}")[1])
    assert config["data"]["epochs"] == 64
    assert config["data"]["benchmark"]["init_args"]["seed"] == 5
    assert config["model"]["algorithm"]["init_args"]["memory_size"] == 64
    assert config["model"]["lr_end"] == 0.25


@pytest.mark.parametrize(
    ("key", "name"), [("selection", "bayesdual.memory.herding"), ("condensation", "bayesdual.memory.memory_vectors")]
)
def test_an_interpolation_that_names_a_function_is_resolved(here, monkeypatch, key, name):
    monkeypatch.setenv("NAME_OF_TEST", name)
    for given in ("${oc.env:NAME_OF_TEST}", "bayesdual.memory.${data.evaluate_on}"):
        argv = ["fit", "--config", "tiny.yaml", "--print_config", "--data.evaluate_on", name.rpartition(".")[2]]
        argv += ["--allow-env"]
        _, out, _ = call(*argv, f"--model.algorithm.init_args.{key}", given)
        assert config_of(out)["model"]["algorithm"]["init_args"][key] == name
    Path("overlay.yaml").write_text(f"model: {{algorithm: {{init_args: {{{key}: '${{data.evaluate_on}}'}}}}}}")
    argv = ["fit", "--config", "tiny.yaml", "--config", "overlay.yaml", "--data.evaluate_on", name, "--print_config"]
    assert config_of(call(*argv)[1])["model"]["algorithm"]["init_args"][key] == name


@pytest.mark.parametrize("key", ["selection", "condensation"])
def test_an_interpolation_that_names_nothing_is_refused(here, key):
    whole = f"model.algorithm.init_args.{key}"
    text = refused("fit", "--config", "tiny.yaml", f"--{whole}", "${no.such}")
    assert text == f"--{whole} refers to ${{no.such}}, which is nowhere: give no.such a value."
    Path("bad.yaml").write_text(f"model: {{algorithm: {{init_args: {{{key}: '${{data.evaluate_on}}'}}}}}}")
    text = refused("fit", "--config", "tiny.yaml", "--config", "bad.yaml")
    assert text.startswith(f"bad.yaml: {whole} is ") and "test" in text


OVERLAY = "model: {algorithm: {init_args: {label_share: 1.0, memory_size: 7}}, lr_end: 0.5}"


def test_a_configuration_that_undoes_an_overlay_before_it_is_said(here):
    Path("overlay.yaml").write_text(OVERLAY)
    status, out, err = call("fit", "--config", "overlay.yaml", "--config", "tiny.yaml", "--print_config")
    assert status == 0 and config_of(out)["model"]["algorithm"]["init_args"]["memory_size"] == 50
    key = "model.algorithm.init_args.memory_size"
    assert err == (
        f"bayesdual: tiny.yaml comes after overlay.yaml and undoes what it says of {key}: give --config overlay.yaml "
        "last.\n"
    )
    for files in (["tiny.yaml", "overlay.yaml"], ["tiny.yaml", "tiny.yaml"]):
        assert call("fit", *(word for file in files for word in ("--config", file)), "--print_config")[2] == ""
    Path("overlay.yaml").write_text("model: {algorithm: {init_args: {label_share: 1.0}}}")
    assert call("fit", "--config", "overlay.yaml", "--config", "tiny.yaml", "--print_config")[2] == "", (
        "nothing is undone"
    )


def test_benchmark_flags_replace_name_and_arguments(here):
    Path("order.yaml").write_text("data: {benchmark: {init_args: {class_order: [1, 0, 2, 3, 4, 5, 6, 7, 8, 9]}}}")
    argv = ["fit", "--config", "tiny.yaml", "--config", "order.yaml", "--print_config"]
    argv += ["--data.benchmark", "bayesdual.scenarios.PermutedDigits"]
    benchmark = config_of(call(*argv, "--data.benchmark.init_args.n_experiences=3")[1])["data"]["benchmark"]
    assert benchmark["class_path"] == "bayesdual.scenarios.PermutedDigits"
    assert benchmark["init_args"]["n_experiences"] == 3
    assert benchmark["init_args"]["validation"] == 0.2  # the new one takes it as well
    assert "class_order" not in benchmark["init_args"]
    flag = ["--data.benchmark.init_args.class_order", "[9,8,7,6,5,4,3,2,1,0]"]
    benchmark = config_of(call("fit", "--config", "tiny.yaml", "--print_config", *flag)[1])["data"]["benchmark"]
    assert benchmark["class_path"] == "bayesdual.scenarios.SplitDigits"
    assert benchmark["init_args"]["class_order"] == list(range(9, -1, -1))
    assert benchmark["init_args"]["validation"] == 0.2


@pytest.mark.parametrize("name", ["SplitMNIST", "PermutedMNIST", "SplitCIFAR100"])
def test_benchmarks_of_avalanche_are_taken(here, name):
    flags = ["--data.benchmark", f"avalanche.benchmarks.classic.{name}", "--data.benchmark.init_args.n_experiences", 5]
    status, out, err = call("fit", "--config", "tiny.yaml", *flags, "--print_config")
    assert (status, err) == (0, "")
    benchmark = config_of(out)["data"]["benchmark"]
    assert benchmark["class_path"].endswith(name) and benchmark["init_args"]["n_experiences"] == 5
    assert "Unable" not in out  # transforms, which YAML cannot say, are left at their defaults


def test_a_benchmark_of_a_module_outside_the_repository(here):
    module = here / "elsewhere"
    module.mkdir()
    (module / "my_streams.py").write_text(
        "from bayesdual.scenarios import SplitDigits\n\n"
        "def two_by_five(first: int, seed=None):\n"
        "    order = [(first + i) % 10 for i in range(10)]\n"
        "    return SplitDigits(n_experiences=2, class_order=order)\n"
    )
    command = [sys.executable, "-m", "bayesdual", "fit", "--config", "tiny.yaml", "--run_dir", "out"]
    flags = ["--data.benchmark", "my_streams.two_by_five", "--data.benchmark.init_args.first", "5"]
    flags += ["--trainer.logger", "false"]  # whose figures take their time
    environment = {**os.environ, "PYTHONPATH": str(module)}
    done = subprocess.run([*command, *flags], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "run directory: out"
    assert json.loads(Path("out/results.json").read_text())["experiences_learned"] == 2
    benchmark = config_of(Path("out/config.yaml").read_text())["data"]["benchmark"]
    assert benchmark == {"class_path": "my_streams.two_by_five", "init_args": {"first": 5, "seed": None}}


def test_threads_are_set(here):
    before = torch.get_num_threads()
    try:
        text = refused("fit", "--config", "tiny.yaml", "--threads", 2, "--data.epochs", 0, status=1)
        assert text.startswith("--data.epochs is 0") and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ----------------------------------------------------------------------- bad input

BAD_FLAGS = {
    "--data.epoch 3": "--data.epoch is not a setting; did you mean data.epochs?",
    "--epochs 3": "--epochs is not a setting; did you mean data.epochs?",
    "--model.algorithm.init_args.memory_sise 9": "; did you mean model.algorithm.init_args.memory_size?",
    "--model.optimizer.init_args.lrr 9": "is not a setting of bayesdual.IVON; did you mean",
    "--data.benchmark.init_args.experiences 2": "is not a setting of bayesdual.scenarios.SplitDigits; did you mean",
    "--data.benchmark.experiences 2": "--data.benchmark.experiences is not a setting: use --data.benchmark NAME",
    "--data.benchmark nosuch.Thing": "--data.benchmark is nosuch.Thing: No module named 'nosuch'.",
    "--data.benchmark bayesdual.scenarios.SplitDigit": "not there; did you mean bayesdual.scenarios.SplitDigits?",
    "--data.benchmark Digits": "--data.benchmark is 'Digits': give a dotted name",
    "--model.network bayesdual.models.MPL": "--model.network is bayesdual.models.MPL, which is not there; did you mean",
    "--model.network textwrap.dedent": "--model.network is textwrap.dedent, which is no Module",
    "--data.epochs three": "--data.epochs is 'three': it has to be a whole number.",
    "--data.epochs 1.5": "--data.epochs is '1.5': it has to be a whole number.",
    "--data.epochs": "--data.epochs needs a value.",
    "--data.benchmark": "--data.benchmark needs a value.",
    "--model.network.init_args.hidden 3": "--model.network.init_args.hidden is '3': it has to be a list.",
    "--seed_everything x": "--seed_everything is 'x': it has to be true or false or a whole number.",
    "--data.epochs ${no.such}": "--data.epochs refers to ${no.such}, which is nowhere",
    "--config no.yaml": "--config no.yaml: there is no such file",
    "--run_dir tiny.yaml": "--run_dir tiny.yaml cannot be written to (it is a file): give another folder.",
    "--run_dir tiny.yaml/below": "--run_dir tiny.yaml/below cannot be written to",
    "--ckpt_path no.ckpt": "--ckpt_path no.ckpt: there is no such file.",
    "--ckpt_path tiny.yaml": "--ckpt_path tiny.yaml is not a checkpoint, or is damaged",
    "--ckpt_path last": "--ckpt_path last: no run of this configuration with a checkpoint in runs/tiny-*",
    "more": "'more' is not understood",
}


@pytest.mark.parametrize(("flags", "sentence"), BAD_FLAGS.items(), ids=BAD_FLAGS)
def test_bad_flags_are_refused_in_one_sentence(here, flags, sentence):
    assert sentence in refused("fit", "--config", "tiny.yaml", *flags.split())
    assert [path.name for path in here.iterdir()] == ["tiny.yaml"]


BAD_LATER = {
    "--data.epochs 0": "--data.epochs is 0: give at least 1.",
    "--data.batch_size 0": "--data.batch_size is 0: give at least 1.",
    "--trainer.max_epochs 0": "--trainer.max_epochs is 0",
    "--threads 0": "--threads is 0: give at least 1",
    "--model.lr_end -1": "--model.lr_end is -1.0",
    "--model.algorithm.init_args.memory_size 9": "init_args.memory_size is 9, but data.benchmark has 10 classes",
    "--data.benchmark.init_args.n_experiences 3": "take --data.benchmark.init_args.n_experiences out of 1, 2, 5, 10.",
    "--model.network.init_args.n_classes 5": "model.network gives 5 logits but data.benchmark has 10 classes",
    "--model.network.init_args.in_features 63": "does not take the inputs of data.benchmark, of shape (1, 8, 8)",
    "--data.evaluate_on nope": "no experiences in a stream 'nope'",
    "--data.benchmark bayesdual.scenarios.SplitFMNIST --data.benchmark.init_args.root .": "is truncated or damaged",
}


@pytest.mark.parametrize(("flags", "sentence"), BAD_LATER.items(), ids=BAD_LATER)
def test_what_cannot_be_learned_is_refused_before_anything_is_written(here, flags, sentence):
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        Path(name).write_bytes(b"\0\0\x08\x03\0\0\xea\x60\0\0\0\x1c\0\0\0\x1c" + bytes(99))
    assert sentence in refused("fit", "--config", "tiny.yaml", *flags.split(), status=1)
    assert not Path("runs").exists()


BAD_FILES = {
    "data: {epochs: 1": "bad.yaml is not YAML: line 1, column 17: ",
    "data:\n  epochs: 1\n  epochs: 2": "bad.yaml is not YAML: line 3, column 3: found duplicate key",
    "only text": "bad.yaml holds no settings",
    "": "bad.yaml holds no settings",
    "[1, 2]": "bad.yaml holds no settings",
    "dat: {epochs: 1}": "bad.yaml: dat.epochs is not a setting; did you mean data.epochs?",
    "data: {epoch: 1}": "bad.yaml: data.epoch is not a setting; did you mean data.epochs?",
    "data: {epochs: many}": "bad.yaml: data.epochs is 'many': it has to be a whole number.",
    "data: {epochs: '${x.y}'}": "bad.yaml: data.epochs refers to ${x.y}, which is nowhere: give x.y a value.",
    "data: {epochs: '${x'}": "bad.yaml: data.epochs cannot be read",
    "data: {benchmark: {class_path: bayesdual.scenarios.Digits}}": "bad.yaml: data.benchmark is bayesdual.scenarios.D",
    "data: {benchmark: {name: x}}": "data.benchmark is {'name': 'x'}: give the dotted name of a callable as class_path",
    "model: {algorithm: {init_args: {memory: 9}}}": "bad.yaml: model.algorithm.init_args.memory is not a setting of",
}


@pytest.mark.parametrize(("text", "sentence"), BAD_FILES.items(), ids=range(len(BAD_FILES)))
def test_bad_files_are_refused_by_name_and_key(here, text, sentence):
    Path("bad.yaml").write_text(text)
    assert sentence in refused("fit", "--config", "tiny.yaml", "--config", "bad.yaml")
    assert not Path("runs").exists()


def test_a_file_that_is_no_text_and_a_bad_value_in_a_file_alone(here):
    Path("bad.yaml").write_bytes(bytes(range(128, 256)))
    assert "bad.yaml is not a text file" in refused("fit", "--config", "bad.yaml")
    Path("zero.yaml").write_text(TINY.replace("epochs: 1", "epochs: 0"))
    assert refused("fit", "--config", "zero.yaml", status=1) == "zero.yaml: data.epochs is 0: give at least 1."


def test_what_is_missing_is_named(here):
    assert "choose fit, validate, test, predict" in refused("study", "--config", "tiny.yaml")
    assert "choose fit, validate, test, predict" in refused()
    assert "no value for model.network" in refused("fit")
    assert "--config needs a value." in refused("fit", "--config")
    assert "test needs a trained network: give --ckpt_path" in refused("test", "--config", "tiny.yaml")


def test_a_benchmark_without_its_argument_and_a_callable_that_makes_none(here, monkeypatch):
    Path("streams_of_test.py").write_text("def stream(n: int):\n    return n\n")
    monkeypatch.syspath_prepend(here)
    flags = ["--data.benchmark", "streams_of_test.stream"]
    text = refused("fit", "--config", "tiny.yaml", *flags)
    assert text == "streams_of_test.stream needs n: give --data.benchmark.init_args.n VALUE."
    text = refused("fit", "--config", "tiny.yaml", *flags, "--data.benchmark.init_args.n", 1, status=1)
    assert "is no Avalanche benchmark" in text


OTHERS = {
    "--model.network.init_args.hidden [16]": "the checkpoint is of another model",
    "--data.benchmark.init_args.n_experiences 2": "the checkpoint is of another stream: classes there are",
    "--data.epochs 2": "the checkpoint is of another stream: epochs there are 1, but --data.epochs 2",
    "--model.algorithm.init_args.memory_size 60": "memory holds 50 examples but --model.algorithm.init",
}


@pytest.mark.parametrize(("flags", "sentence"), OTHERS.items(), ids=OTHERS)
def test_a_checkpoint_of_something_else_is_refused(in_learned, tmp_path, flags, sentence):
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}
    checkpoint = tmp_path / "alone.ckpt"  # no config.yaml beside it says what it is of
    shutil.copyfile(in_learned / "checkpoints/experience_2.ckpt", checkpoint)
    text = refused("fit", "--config", "tiny.yaml", "--ckpt_path", checkpoint, *flags.split(), status=1)
    assert sentence in text
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}.keys() == before.keys()


def test_a_run_does_not_go_on_with_settings_that_its_checkpoint_decides(in_learned):
    config = (in_learned / "config.yaml").read_text()
    for flags, was in (
        ("--model.optimizer.init_args.lr 0.3", "model.optimizer.init_args.lr was 0.1 in the run that goes on ("),
        ("--model.algorithm.init_args.weight_prior null", "weight_prior was kronecker in the run that goes on ("),
        (
            "--seed_everything 1",
            "seed_everything was 0 in the run that goes on (runs/tiny-1/config.yaml)",
        ),
    ):
        words = ["--run_dir", "runs/tiny-1", "--ckpt_path", "last", *flags.split()]
        text = refused("fit", "--config", "tiny.yaml", *words)
        assert was in text and text.endswith("give what it was, or start a new run.")
    assert (in_learned / "config.yaml").read_text() == config


def test_settings_of_the_trainer_may_change_and_are_listed_and_recorded(learned, tmp_path, monkeypatch):
    shutil.copytree(learned[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    flags = ["--run_dir", "runs/tiny-1", "--trainer.gradient_clip_val", 5.0, "--data.workers", 1]
    status, out, err = call("fit", "--config", "tiny.yaml", "--ckpt_path", "last", *flags)
    assert status == 0, err
    assert "going on with trainer.gradient_clip_val 5.0, which was None" in out
    assert "going on with data.workers 1, which was 0" in out and out.count("going on with") == 2
    assert config_of(Path("runs/tiny-1/config.yaml").read_text())["trainer"]["gradient_clip_val"] == 5.0


def test_changes_are_those_of_settings_that_both_name():
    before = {"a": {"b": 1, "c": None, "gone": 0}, "d": [1]}
    now = {"a": {"b": 2, "c": {"class_path": "x"}, "new": 1}, "d": [1]}
    assert changed_settings(before, now) == {"a.b": (1, 2), "a.c": (None, {"class_path": "x"})}


def test_a_run_directory_in_use_is_refused_and_free_again_afterwards(here):
    flags = ["--run_dir", "mine", "--trainer.max_epochs", 1]
    Path("mine").mkdir()
    with sole_use(Path("mine"), "busy"):
        text = refused("fit", "--config", "tiny.yaml", *flags)
        assert text.startswith("--run_dir mine is in use by another run")
    assert not list(Path("mine").iterdir())
    assert call("fit", "--config", "tiny.yaml", *flags)[0] == 0
    with sole_use(Path("mine"), "busy"):
        pass


def damage(path, share=0.5):
    """Turns one byte of a file's content around."""
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 0xFF
    path.write_bytes(content)


def test_a_damaged_newest_checkpoint_is_passed_over_by_name(learned, tmp_path, monkeypatch):
    shutil.copytree(learned[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    folder = Path("runs/tiny-1/checkpoints")
    damage(folder / "last.ckpt")
    text = refused("test", "--config", "tiny.yaml", "--ckpt_path", folder / "last.ckpt")
    assert "last.ckpt is not a checkpoint, or is damaged" in text
    shutil.copyfile(folder / "last.ckpt", folder / "experience_5.ckpt")
    os.utime(folder / "experience_4.ckpt", (2e9, 2e9))
    status, _, err = call("test", "--config", "tiny.yaml", "--run_dir", "runs/tiny-1", "--ckpt_path", "last")
    assert status == 0
    assert err == f"bayesdual: {folder}/last.ckpt is damaged: {folder}/experience_4.ckpt is taken in its place.\n"
    for path in folder.iterdir():
        path.write_bytes(b"nothing")
    text = refused("fit", "--config", "tiny.yaml", "--run_dir", "runs/tiny-1", "--ckpt_path", "last")
    assert "are damaged: start the run again" in text


def test_truncated_and_foreign_checkpoints_are_refused(in_learned, tmp_path):
    whole = (in_learned / "checkpoints/last.ckpt").read_bytes()
    (tmp_path / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    text = refused("test", "--config", "tiny.yaml", "--ckpt_path", tmp_path / "half.ckpt")
    assert "half.ckpt is not a checkpoint, or is damaged" in text
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.0"}, tmp_path / "foreign.ckpt")
    text = refused("test", "--config", "tiny.yaml", "--ckpt_path", tmp_path / "foreign.ckpt", status=1)
    assert "not made by bayesdual" in text
    for number, other in enumerate([[1, 2], {"weights": torch.ones(2)}]):
        torch.save(other, tmp_path / f"other_{number}.pt")
        text = refused("test", "--config", "tiny.yaml", "--ckpt_path", tmp_path / f"other_{number}.pt")
        assert f"other_{number}.pt is not a checkpoint, or is damaged" in text


def test_a_loss_that_becomes_nan_stops_the_run_and_keeps_the_last_checkpoint(here, monkeypatch):
    Path("callbacks_of_test.py").write_text(
        "import lightning\n\n"
        "class Break(lightning.Callback):\n"
        "    def on_train_epoch_start(self, trainer, module):\n"
        "        if trainer.current_epoch == 2:\n"
        "            next(module.network.parameters()).data.fill_(float('nan'))\n"
    )
    monkeypatch.syspath_prepend(here)
    text = refused("fit", "--config", "tiny.yaml", "--trainer.callbacks", "callbacks_of_test.Break", status=1)
    assert text.startswith("the loss became nan in experience 3, epoch 1: lower model.optimizer's lr")
    state = torch.load("runs/tiny-1/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values())
    assert not Path("runs/tiny-1/results.json").exists()


@pytest.mark.parametrize(("signal_", "expected"), [(signal.SIGINT, 130), (signal.SIGUSR1, 143)])  # this sends SIGTERM
def test_a_signal_keeps_the_last_checkpoint_and_the_run_goes_on(here, monkeypatch, signal_, expected):
    Path("interrupts_of_test.py").write_text(
        "import os\nimport lightning\n\n"
        "class Interrupt(lightning.Callback):\n"
        "    def __init__(self, signal: int):\n"
        "        self.signal = signal\n\n"
        "    def on_train_batch_start(self, trainer, module, batch, batch_idx):\n"
        "        if trainer.current_epoch == 2 and batch_idx == 1:\n"
        "            os.kill(os.getpid(), self.signal)\n"
    )
    monkeypatch.syspath_prepend(here)
    again = ["--run_dir", "runs/tiny-1", "--ckpt_path", "auto"]  # what a scheduler runs, first and again
    flags = ["--trainer.callbacks", "interrupts_of_test.Interrupt", "--trainer.callbacks.signal", int(signal_)]
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        status, _, err = call("fit", "--config", "tiny.yaml", *flags, *again)
    finally:
        for each, handler in handlers.items():  # Lightning ignores Ctrl-C from then on
            signal.signal(each, handler)
    assert status == expected
    assert err == "bayesdual: stopped; --ckpt_path last goes on from the last checkpoint.\n"
    checkpoints = {path.name for path in Path("runs/tiny-1/checkpoints").iterdir()}
    assert checkpoints == {"last.ckpt", "experience_1.ckpt", "experience_2.ckpt"}
    assert call("fit", "--config", "tiny.yaml", *again)[0] == 0
    assert json.loads(Path("runs/tiny-1/results.json").read_text())["experiences_learned"] == 5
    with pytest.MonkeyPatch.context() as patch:  # once it is done, there is nothing to learn
        patch.setattr("bayesdual.algorithm.BayesDual.loss", None)
        assert call("fit", "--config", "tiny.yaml", *again)[0] == 0


@pytest.mark.parametrize("command", ["fit", "compare"])
def test_a_command_that_is_told_to_end_before_it_has_begun_leaves_nothing(here, monkeypatch, command):
    Path("ends_of_test.py").write_text(
        "import os, signal\nfrom bayesdual.scenarios import SplitDigits\n\n"
        "def benchmark():\n    os.kill(os.getpid(), signal.SIGTERM)\n    return SplitDigits()\n"
    )
    monkeypatch.syspath_prepend(here)
    monkeypatch.setattr("bayesdual.comparison.command.dry_run", lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    Path("c.yaml").write_text("{folder: out, benchmarks: {one: tiny.yaml}, methods: {ours: {}}}")
    before = signal.getsignal(signal.SIGTERM)
    argv = {
        "fit": ["--config", "tiny.yaml", "--data.benchmark", "ends_of_test.benchmark"],
        "compare": ["--config", "c.yaml", "--dry_run"],
    }
    status, out, err = call(command, *argv[command])
    assert status == 143 and err.startswith("bayesdual: stopped; ") and err.count("\n") == 1
    assert not Path("runs").exists() and not Path("out").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_process_that_dies_ends_the_others_and_one_that_fails_says_why(here, monkeypatch):
    Path("dies_of_test.py").write_text(
        "import os, signal\nimport lightning\n\n"
        "class Die(lightning.Callback):\n"
        "    def __init__(self, alone: bool):\n        self.alone = alone\n\n"
        "    def on_train_batch_start(self, trainer, module, batch, batch_idx):\n"
        "        if not self.alone:\n            raise ValueError('the data are gone')\n"
        "        if trainer.global_rank == 1:\n            os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.syspath_prepend(here)
    flags = ["--trainer.devices", 2, "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp_fork", "--threads", 1]
    flags += ["--trainer.logger", "false", "--trainer.callbacks", "dies_of_test.Die", "--trainer.callbacks.alone"]
    began = time.monotonic()
    assert refused("fit", "--config", "tiny.yaml", *flags, "false", status=1) == "the data are gone."
    assert refused("fit", "--config", "tiny.yaml", *flags, "true", status=1).startswith(
        "another process of this run has"
    )
    assert time.monotonic() - began < 60


def test_auto_names_its_run_directory(here):
    expected = "--ckpt_path auto is for fit, which begins in --run_dir DIR or goes on with what is there"
    assert expected in refused("fit", "--config", "tiny.yaml", "--ckpt_path", "auto")
    assert expected in refused("test", "--config", "tiny.yaml", "--ckpt_path", "auto", "--run_dir", "runs/x")


def test_debug_shows_the_traceback(here):
    with pytest.raises(ValueError, match="data.epochs is 0"):
        call("fit", "--config", "tiny.yaml", "--data.epochs", 0, "--debug")


# ----------------------------------------------------------------------- the pure parts


def test_flags_and_files_are_read_as_settings(here):
    Path("more.yaml").write_text("data: {epochs: 1e1}")
    argv = ["fit", "--config=more.yaml", "--model.lr_end", "1e-3", "--data.workers=2", "--print_config"]
    assert arguments.read_settings(argv) == [
        Setting("data.epochs", 10.0, "more.yaml"),
        Setting("model.lr_end", 0.001),
        Setting("data.workers", 2),
        Setting("print_config", None),
    ]


def test_benchmarks_merge_by_name():
    spec = {}
    arguments.merge_benchmark(spec, {"class_path": "a.B", "init_args": {"x": 1, "y": 2}})
    arguments.merge_benchmark(spec, {"init_args": {"y": 3}})
    assert spec == {"class_path": "a.B", "init_args": {"x": 1, "y": 3}}
    arguments.merge_benchmark(spec, "a.B")
    assert spec["init_args"] == {"x": 1, "y": 3}
    arguments.merge_benchmark(spec, "a.C")
    assert spec == {"class_path": "a.C", "init_args": {}}
    with pytest.raises(CommandLineError, match="data.benchmark is 3"):
        arguments.merge_benchmark(spec, 3)


def test_interpolations_are_anchored_at_the_command():
    argv = ["fit", "--a", "${b.c}", "--d", "${oc.env:HOME}", "--e", "${.x}", "--f", "${g.${h}}"]
    assert arguments.anchor_interpolations(argv)[2::2] == [
        "${fit.b.c}",
        "${oc.env:HOME}",
        "${.x}",
        "${fit.g.${fit.h}}",
    ]


def test_a_run_is_named_after_its_first_configuration_and_what_tells_it_from_others(tmp_path):
    run = tmp_path / "split_digits-12"
    (run / "checkpoints").mkdir(parents=True)
    assert (
        arguments.name_of_run(["fit", "--config", "x/split_mnist.yaml", "--config", "naive.yaml"])
        == "split_mnist-naive"
    )
    flags = ["--seed_everything", "3", "--model.algorithm.init_args.memory_size=50", "--data.epochs", "2"]
    assert arguments.name_of_run(["fit", "--config", "split_mnist.yaml", *flags]) == "split_mnist-seed_3-memory_50"
    assert arguments.name_of_run(["fit", "--config", str(run / "config.yaml")]) == "split_digits"
    assert arguments.name_of_run(["fit"]) == "run"


def test_the_latest_run_is_that_of_the_name_or_else_of_the_same_configuration(here):
    with pytest.raises(CommandLineError, match="no run of this configuration"):
        latest_run("digits")
    for name in ("digits-seed_2-1", "digits-1", "digits-more-3", "digits_more-3"):
        (here / "runs" / name / "checkpoints").mkdir(parents=True)
        (here / "runs" / name / "checkpoints/last.ckpt").touch()
    assert latest_run("digits-seed_2").name == "digits-seed_2-1" and latest_run("digits").name == "digits-1"
    assert latest_run("digits-seed_7").name in ("digits-seed_2-1", "digits-1")
    with pytest.raises(CommandLineError, match="no run of this configuration"):
        latest_run("digits-replay")


@pytest.mark.parametrize(
    "words",
    [
        "[pair.cc:545] Read error [127.0.0.1]:714: Connection reset by peer. This is typically caused by",
        "[pair.cc:534] Connection closed by peer [127.0.0.1]:1",
        "NCCL error: remote process exited or there was a network error",
        "process 1 terminated with signal SIGKILL",
    ],
)
def test_a_connection_that_is_lost_means_that_another_process_has_ended(words):
    assert failure(RuntimeError(words), []).startswith("another process of this run has ended, which ends this one")


def test_what_nobody_foresaw_is_still_one_sentence():
    assert parsing_complaint("something\n  new", [], []) == "something new."
    assert failure(KeyError("x"), []) == "KeyError: 'x' (--debug shows where)."
    assert failure(ValueError(""), []) == "ValueError."
    given = [Setting("model.algorithm.init_args.memory_size", 3, "a.yaml")]
    sentence = failure(ValueError("memory_size is 3: more"), given)
    assert sentence == "a.yaml: model.algorithm.init_args.memory_size is 3: more."


def test_the_value_that_was_refused_tells_file_from_flag():
    given = [Setting("model.network.init_args.width", "x", "a.yaml"), Setting("data.width", 3)]
    message = "Parser key \"width\":\n  Expected a <class 'int'>. Got value: x"
    assert parsing_complaint(message, given, []).startswith("a.yaml: model.network.init_args.width is 'x'")


def test_names_are_only_suggested_if_close():
    assert messages.closest_name("torch.nn.Linaer") == "torch.nn.Linear"
    assert messages.closest_name("torch.nn.zzzzzzzz") is None
    assert messages.closest_name("no_such_module.X") is None
