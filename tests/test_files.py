"""Files are whole or not at all, and on the disk before they have their name."""

import json
import os

import pytest
import torch

from bayesdual.files import append_line, is_damaged, write_json, write_whole


def fails_half_way(path):
    path.write_text("half")
    raise OSError("no space left")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"accuracy": 1})
    with pytest.raises(OSError, match="no space left"):
        write_whole(path, fails_half_way)
    assert json.loads(path.read_text()) == {"accuracy": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_synced_before_the_name_is_given(tmp_path, monkeypatch):
    did = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (did.append("sync"), sync(number)))
    monkeypatch.setattr(os, "replace", lambda *paths: (did.append("rename"), replace(*paths)))
    write_whole(tmp_path / "a.txt", lambda path: path.write_text("whole"))
    assert did == ["sync", "rename", "sync"], "the content, and then the name"
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_a_sync_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(number):
        raise OSError("input/output error")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="input/output"):
        write_whole(path, lambda p: p.write_text("new"))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_lines_are_appended_and_one_that_was_cut_off_spoils_no_other(tmp_path):
    path = tmp_path / "below" / "runs.jsonl"
    append_line(path, "first")
    with path.open("a") as file:
        file.write("cut o")  # as by a kill
    append_line(path, "third")
    assert path.read_text() == "first\ncut o\nthird\n"


def test_damage_inside_an_archive_is_seen(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"w": torch.arange(5000.0)}, path)
    assert not is_damaged(path)
    content = path.read_bytes()
    place = content.index(torch.arange(5000.0).numpy().tobytes()) + 10000
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert torch.load(path, weights_only=True)["w"].shape == (5000,)  # PyTorch itself sees nothing
    assert is_damaged(path)
    path.write_text("no archive")
    assert not is_damaged(path)
