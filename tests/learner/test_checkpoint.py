"""Checkpoints are whole or not at all, whatever file system they lie on."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from bayesdual.inspection import RunReport
from bayesdual.learner import StreamCheckpoint


def trainer(text, fails=False):
    """Writes a text as a checkpoint, or the half of it."""

    def save(path):
        Path(path).write_text(text)
        if fails:
            raise OSError("no space left")

    stream = SimpleNamespace(epoch=0, experience=1)
    return SimpleNamespace(is_global_zero=True, datamodule=stream, save_checkpoint=save)


def test_a_checkpoint_whose_write_fails_leaves_the_one_before(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoint = StreamCheckpoint(folder)
    checkpoint.on_train_epoch_end(trainer("whole"), None)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.on_train_epoch_end(trainer("half", fails=True), None)
    assert {path.name: path.read_text() for path in folder.iterdir()} == dict.fromkeys(
        ("last.ckpt", "experience_1.ckpt"), "whole"
    )


@pytest.mark.parametrize("callback", [StreamCheckpoint, RunReport])
def test_what_a_killed_run_left_half_written_is_taken_away(tmp_path, callback):
    (tmp_path / ".last.123.ckpt").write_text("half")
    (tmp_path / ".memory.123.png").write_text("half")
    for whole in ("last.ckpt", ".lock", ".mine"):
        (tmp_path / whole).write_text("whole")
    callback(tmp_path).on_fit_start(trainer(""), None)
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", ".lock", ".mine"}


def test_older_experiences_are_taken_away_where_that_is_asked_for(tmp_path):
    for name in ("experience_notes.ckpt", "experience_9.ckpt"):  # not ours, and of a run that went further
        (tmp_path / name).touch()
    for experience in (1, 2, 3, 4):
        made = trainer("whole")
        made.datamodule.experience = experience
        StreamCheckpoint(tmp_path, keep=2).on_train_epoch_end(made, None)
    kept = {path.stem.removeprefix("experience_") for path in tmp_path.iterdir()}
    assert kept == {"last", "3", "4", "9", "notes"}
    with pytest.raises(ValueError, match="checkpoint.keep is 0: give more than 0"):
        StreamCheckpoint(tmp_path, keep=0)


def test_a_folder_that_vanishes_stops_the_run_and_is_not_made_again(tmp_path):
    checkpoint = StreamCheckpoint(tmp_path / "checkpoints")
    checkpoint.on_train_epoch_end(trainer("whole"), None)
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(FileNotFoundError, match="checkpoints has gone while the run was learning"):
        checkpoint.on_train_epoch_end(trainer("whole"), None)
    assert not list(tmp_path.iterdir())


def test_a_run_killed_between_the_two_of_an_experience_leaves_both_once_it_has_gone_on(tmp_path, monkeypatch):
    """The last one is of the epoch before, then, so that the epoch that ends the experience is learned again."""
    (tmp_path / "last.ckpt").write_text("the epoch before")
    monkeypatch.setattr("bayesdual.learner.checkpoint.shutil.copyfile", lambda *_: 1 / 0)  # where it is killed
    with pytest.raises(ZeroDivisionError):
        StreamCheckpoint(tmp_path).on_train_epoch_end(trainer("whole"), None)
    assert (tmp_path / "last.ckpt").read_text() == "the epoch before"
    assert (tmp_path / "experience_1.ckpt").read_text() == "whole"
