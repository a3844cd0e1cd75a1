"""``learn``: a run that has learned its stream learns what comes next, in processes of their own."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.cli.test_fit import call, refused


def results(run):
    held = json.loads((Path(run) / "results.json").read_text())
    return {k: v for k, v in held.items() if not k.startswith("seconds")}


def test_what_comes_next_is_learned_elsewhere_and_the_run_stays_as_it_was(learned_more):
    folder, out = learned_more
    first, more = results(folder / "runs/first-1"), results(folder / "runs/more")
    assert "experience 3/3 learned" in out and out.splitlines()[-1] == "run directory: runs/more"
    assert len(first["accuracy_matrix"]) == 2 and len(more["accuracy_matrix"]) == 3
    assert more["accuracy_matrix"][:2] == [[*row, None] for row in first["accuracy_matrix"]]
    assert None not in more["accuracy_matrix"][2] and more["experiences_learned"] == 3
    config, new = (yaml.safe_load((folder / f"runs/more/config{n}.yaml").read_text()) for n in ("", "-2"))
    assert config == yaml.safe_load((folder / "runs/first-1/config.yaml").read_text())
    assert new["data"]["epochs"] == 3 and new["model"] == config["model"]
    assert new["data"]["benchmark"]["init_args"] == {"first": 2, "n_experiences": 1, "seed": 0, "needs": None}
    names = {path.name for path in (folder / "runs/more/checkpoints").iterdir()}
    assert names == {"experience_3.ckpt", "last.ckpt"}


def test_a_stopped_one_goes_on_by_the_same_command_and_a_learned_one_is_not_learned_again(beside_more):
    argv = ["learn", "runs/first-1", "--config", "next.yaml"]
    status, out, err = call(*argv, "--trainer.max_epochs", 2)
    assert status == 0 and "stopped early, in experience 3 of 3: the same command goes on" in out, err
    text = refused(*argv, "--data.batch_size", 4)
    assert text.startswith("data.batch_size was 16 in what goes on (runs/first-1/config-2.yaml), and is 4 now")
    text = refused(*argv, "--data.benchmark.init_args.seed", 7, status=1)
    assert "the checkpoint is in the middle of another stream, in experience 3 of 3: finish that first" in text
    status, out, err = call(*argv)
    assert status == 0, err
    assert results("runs/first-1") == results("runs/more")
    status, out, err = call(*argv)
    assert status == 0 and "runs/first-1 has learned these data already: nothing is learned again" in out, err
    assert results("runs/first-1") == results("runs/more")


def test_data_that_are_gone_are_said_and_left_out_and_the_head_grows_on(beside_more):
    Path("first.txt").unlink()
    argv = ["learn", "runs/more", "--data.benchmark", "tests.streams.some_blobs", "--data.benchmark.init_args.first", 3]
    status, _, err = call(*argv)
    assert status == 0
    assert err.startswith("bayesdual: runs/more/config.yaml: its data cannot be had, and are not evaluated (")
    row = results("runs/more")["accuracy_matrix"][3]
    assert row[:2] == [None, None] and None not in row[2:]
    assert results("runs/more")["average_accuracy"] == pytest.approx(sum(row[2:]) / 2)
    assert Path("runs/more/config-3.yaml").exists()
    status, out, err = call("test", "--config", "runs/more/config-3.yaml", "--ckpt_path", "last")
    assert status == 0 and f"{row[3]:.4f}" in out, err
    assert call("inspect", "runs/more", "--output", "page")[0] == 0


def test_what_cannot_be_learned_next_is_refused_in_a_sentence(beside_more):
    held = lambda: {p: p.read_bytes() for p in Path("runs").rglob("*") if p.is_file() and "tfevents" not in p.name}  # noqa: E731
    before = held()
    assert "runs/no is no run directory: it has no config.yaml" in refused("learn", "runs/no", "--config", "next.yaml")
    assert "what is to be learned next is not said" in refused("learn", "runs/more")
    assert "learn: the following arguments are required: RUN" in refused("learn")
    argv = ["learn", "runs/more", "--config", "next.yaml"]
    text = refused(*argv, "--model.algorithm.init_args.memory_size", 20)
    assert text.startswith("model.algorithm.init_args.memory_size is 12 in runs/more, and cannot become 20: leave")
    assert "leave --ckpt_path out" in refused(*argv, "--ckpt_path", "last")
    new = ["--data.benchmark.init_args.first", 4, "--run_dir", "runs/more"]
    assert "has learned something else already" in refused("learn", "runs/first-1", "--config", "next.yaml", *new)
    shutil.copytree("runs/first-1", "runs/other")
    with Path("runs/other/config.yaml").open("a") as file:
        file.write("\n")
    assert "runs/other already holds another run" in refused(*argv, "--run_dir", "runs/other")
    text = refused("fit", "--config", "runs/more/config.yaml", "--ckpt_path", "last", status=1)
    assert "the checkpoint is of another stream" in text
    text = refused("learn", "runs/more", "--data.benchmark", "bayesdual.scenarios.SplitDigits", status=1)
    assert "data.benchmark has inputs of shape (1, 8, 8), but (1, 4, 4) has been learned" in text
    shutil.rmtree("runs/other")
    assert before == held()
