"""A page that is watched is written again while a run goes on; what cannot be read is refused in a sentence."""

import json
import shutil

import pytest
import torch

from bayesdual.cli import inspect, run
from bayesdual.configuration import CommandLineError, in_use, sole_use
from bayesdual.inspection import RunReport, read_run
from bayesdual.inspection.answers import Drawn, remembered
from bayesdual.inspection.runs import Run
from bayesdual.memory import Exemplars
from tests.inspection.test_callbacks import fit

RELOADS = '<meta http-equiv="refresh" content="10">'


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "blobs"
    directory.mkdir()
    fit(directory, [RunReport(directory)])
    return directory


@pytest.fixture
def beside(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "blobs", ignore=shutil.ignore_patterns("*.png", "report"))


@pytest.fixture
def drawn_quickly(monkeypatch):
    monkeypatch.setattr(inspect, "figures_of", lambda run: {})
    monkeypatch.setattr(inspect, "can_be_live", lambda: False)


@pytest.mark.usefixtures("drawn_quickly")
def test_the_page_reloads_while_a_run_goes_on_and_no_longer_when_it_has_ended(beside, monkeypatch, capsys):
    page, seen = beside / "report/report.html", []
    goes_on = iter([True, True, True, False])
    monkeypatch.setattr(inspect, "in_use", lambda folder: next(goes_on))

    def later(_):
        seen.append(RELOADS in page.read_text())
        page.write_text("")  # written again only if the run has written something
        if len(seen) == 2:
            (beside / "results.json").touch()

    monkeypatch.setattr(inspect.time, "sleep", later)
    run(["inspect", str(beside), "--watch"])
    assert seen == [True, False, True]
    assert RELOADS not in page.read_text() and "<h1>" in page.read_text()
    assert "experiences learned: blobs 3 of 3; page: " in capsys.readouterr().out


@pytest.mark.usefixtures("drawn_quickly")
def test_ctrl_c_ends_it_and_a_run_that_is_over_is_said_to_be(beside, monkeypatch, capsys):
    run(["inspect", str(beside), "--watch"])
    assert "note: no run goes on that could be watched: the page is written once." in capsys.readouterr().out

    def pressed(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(inspect.time, "sleep", pressed)
    monkeypatch.setattr(inspect, "in_use", lambda folder: True)
    run(["inspect", str(beside), "--watch"])
    assert "no longer watched" in capsys.readouterr().out
    assert RELOADS not in (beside / "report/report.html").read_text()


def test_a_folder_is_in_use_while_a_process_has_it(tmp_path):
    assert not in_use(tmp_path)
    with sole_use(tmp_path, "no"):
        assert in_use(tmp_path)
    assert not in_use(tmp_path)
    (tmp_path / ".lock").touch()  # left by a process that was killed
    assert not in_use(tmp_path)


def test_what_cannot_be_read_is_refused_in_a_sentence(beside, tmp_path):
    results = json.loads((beside / "results.json").read_text())
    cases = {
        "of another version of bayesdual \\(0.0.1; this is ": json.dumps(
            {k: v for k, v in results.items() if k != "seconds_training"} | {"versions": {"bayesdual": "0.0.1"}}
        ),
        "is damaged, or of another program": json.dumps(results)[:-40],
    }
    for sentence, text in cases.items():
        (beside / "results.json").write_text(text)
        with pytest.raises(CommandLineError, match=sentence):
            run(["inspect", str(beside)])
    (beside / "results.json").unlink()
    with pytest.raises(CommandLineError, match="it has neither results.json nor checkpoints/last.ckpt"):
        run(["inspect", str(beside)])
    (beside / "config.yaml").write_text("data: {epochs: 2}\n")
    with pytest.raises(CommandLineError, match="no epoch has been learned yet"):
        run(["inspect", str(beside)])
    (beside / "checkpoints").mkdir()
    torch.save({"bayesdual": {"history": {}}}, beside / "checkpoints/last.ckpt")
    whole = (beside / "checkpoints/last.ckpt").read_bytes()
    (beside / "checkpoints/last.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CommandLineError, match="is not a checkpoint of bayesdual, or is damaged"):
        run(["inspect", str(beside)])


def test_of_event_files_nothing_is_read(beside):
    (beside / "events.out.tfevents.1.host.1.0").write_bytes(b"\x18\x00\x00")  # cut short
    assert read_run(beside).results["experiences_learned"] == 3


def exemplars_of(x):
    zeros = torch.zeros(2, dtype=torch.int64)
    scores = torch.tensor([0.1, 0.9])
    return Exemplars(x, torch.tensor([0, 1]), zeros, torch.zeros(2, 2), torch.tensor([3.0, 4.0]), scores, zeros, zeros)


def test_rows_of_a_table_are_shown_as_numbers_and_texts_as_text(tmp_path):
    pytest.importorskip("transformers")
    from bayesdual.lora import read_tokenizer, tokens
    from bayesdual.memory import Memory
    from tests.texts import save_encoder

    def said(x, settings):
        memory = Memory(2)
        memory._exemplars = exemplars_of(x)
        kept = Run("texts", {"class_names": ["low", "high"]}, memory, None, settings, {})
        return remembered(Drawn(kept, lambda name, caption: ""))

    rows = said(torch.tensor([[0.5, 1.0], [2.0, 3.25]]), {})
    assert rows.index("<td>2, 3.25</td>") < rows.index("<td>0.5, 1</td>"), "the highest score first"
    folder = save_encoder(tmp_path / "bert")
    ids, _ = tokens(read_tokenizer(folder), ["hello my rain", "what is now"], 8)
    assert "<td>what is now</td>" in said(ids, {"model.network.init_args.folder": folder})
    assert "<td>what is now</td>" not in said(ids, {"model.network.init_args.folder": str(tmp_path / "gone")})
