"""A run that has learned its stream and what came next, made once for all tests of the command line."""

import shutil

import pytest

from tests.cli.test_fit import call

FIRST = """
data:
  benchmark: {class_path: tests.streams.some_blobs, init_args: {n_experiences: 2, needs: first.txt}}
  epochs: 2
  batch_size: 16
model:
  network: {class_path: bayesdual.models.MLP, init_args: {in_features: 16, hidden: [32], n_classes: 4}}
  algorithm: {class_path: bayesdual.algorithm.BayesDual, init_args: {memory_size: 12, replay_batch_size: 16}}
"""
NEXT = "data: {benchmark: {class_path: tests.streams.some_blobs, init_args: {first: 2}}, epochs: 3}"


@pytest.fixture(scope="session")
def learned_more(tmp_path_factory):
    """A folder with a run of two experiences, of which one is learned more in ``runs/more``."""
    folder = tmp_path_factory.mktemp("more")
    for name, text in (("first.yaml", FIRST), ("next.yaml", NEXT), ("first.txt", "")):
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        status, _, err = call("fit", "--config", "first.yaml")
        assert status == 0, err
        status, out, err = call("learn", "runs/first-1", "--config", "next.yaml", "--run_dir", "runs/more")
        assert status == 0 and err == "", err
    return folder, out


@pytest.fixture
def beside_more(learned_more, tmp_path, monkeypatch):
    """A copy of that folder to work in."""
    shutil.copytree(learned_more[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
