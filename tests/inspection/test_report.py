"""The page about runs: what is in it is what the run has, and nothing is fetched."""

import json
import re
import shutil

import pytest

from bayesdual.cli import run
from bayesdual.configuration import CommandLineError
from bayesdual.inspection import RunReport, drawn, figures_of, read_run, report
from tests.inspection.test_callbacks import fit


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "blobs <1>"
    directory.mkdir()
    learner = fit(directory, [RunReport(directory)])
    (directory / "config.yaml").write_text("model: {lr_end: 0.5}\ndata: {epochs: 2}\n")
    return directory, learner


def test_the_page_has_the_numbers_of_the_results_and_asks_no_other_host(finished, capsys):
    directory, learner = finished
    run(["inspect", str(directory)])
    page = (directory / "report/report.html").read_text()
    results = json.loads((directory / "results.json").read_text())
    for key in ("average_accuracy", "forgetting", "nll", "ece"):
        assert f'<td title="{results[key]!r}">{results[key]:.4f}</td>' in page
    body = page.partition("<script")[0]
    assert not re.findall(r"(?:src|href)=\"(?!data:)", body) and "http:" not in re.sub(r"base64,[^\"]*", "", body)
    assert "default-src 'none'; img-src data:" in page, "a browser asks no host for anything, whatever is in the page"
    assert "blobs &lt;1&gt;" in page and len(re.findall(r"<img alt=\"[^\"]+\"", page)) == 14
    order = [page.index(f"<h2>{q}") for q in ("How well", "What was forgotten", "What is rem", "How sure", "What it")]
    assert order == sorted(order)
    names = {path.name for path in (directory / "report").iterdir()}
    assert {"memory.png", "memory.svg", "posterior.png", "accuracy_lost.png", "bytes.svg", "memory_map.png"} < names
    assert "of its best; " in capsys.readouterr().out


def test_several_runs_stand_side_by_side_and_what_differs_is_marked(finished, tmp_path, monkeypatch):
    some = lambda run: {name: f for name, f in figures_of(run).items() if name in ("memory", "seconds")}  # noqa: E731
    monkeypatch.setattr("bayesdual.cli.inspect.figures_of", some)
    directory, _ = finished
    other = tmp_path / "other"
    other.mkdir()
    results = json.loads((directory / "results.json").read_text())
    (other / "results.json").write_text(json.dumps({**results, "nll": results["nll"] / 2}))
    (other / "config.yaml").write_text("model: {lr_end: 0.25}\ndata: {epochs: 2}\n")
    run(["inspect", str(directory), str(other), "--output", str(tmp_path / "both")])
    page = (tmp_path / "both/report.html").read_text()
    assert re.findall(r"<td class=\"differs\"[^>]*>([^<]*)", page) == ["0.5", "0.25"] and ">lr_end</td>" in page
    assert ">epochs</td>" not in page and "No example is kept." in page
    nll = json.loads((directory / "results.json").read_text())["nll"]
    assert f'<td class="best" title="{nll / 2!r}">{nll / 2:.4f}<br><small>{-nll / 2:+.4f}</small></td>' in page
    assert {"1-memory.png", "2-seconds.png"} < {path.name for path in (tmp_path / "both").iterdir()}


@pytest.mark.parametrize("live", [False, True])
def test_figures_are_looked_into_where_vega_is_installed_and_are_behind_the_charts(finished, live):
    if live:
        pytest.importorskip("vl_convert", reason="the extra inspect is not installed")
    known = read_run(finished[0])
    page = report([known], [drawn(figures_of(known))], live)
    assert len(re.findall(r"<img alt=", page)) == 14
    if not live:
        assert "<script" not in page and "data-charts" not in page
        return
    held = json.loads(re.search(r'<script type="application/json" id="charts">(.*?)</script>', page)[1])
    ids = " ".join(re.findall(r'<figure data-charts="([^"]*)"', page)).split()
    assert ids == [*held] and len(ids) == page.count('<div class="chart" role="img" aria-label="')
    assert "vegaEmbed" in page and page.count("</script>") == 2


def test_a_page_without_vega_says_so(finished, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("bayesdual.cli.inspect.can_be_live", lambda: False)
    monkeypatch.setattr("bayesdual.cli.inspect.figures_of", lambda run: {})
    run(["inspect", str(finished[0]), "--output", str(tmp_path)])
    assert "note: its figures cannot be looked into: pip install 'bayesdual[inspect]'." in capsys.readouterr().out


def test_a_run_that_goes_on_is_read_from_its_checkpoint(tmp_path):
    learner = fit(tmp_path / "run", [], max_epochs=4)
    learner.trainer.save_checkpoint(tmp_path / "run/last.ckpt", weights_only=False)
    (tmp_path / "run/checkpoints").mkdir()
    (tmp_path / "run/last.ckpt").rename(tmp_path / "run/checkpoints/last.ckpt")
    known = read_run(tmp_path / "run")
    assert known.results["accuracy_matrix"] == learner.history.accuracy and known.results["experiences_learned"] == 2
    assert len(known.memory) == 12 and known.posterior.knows_data == learner.algorithm.posterior.knows_data
    run(["inspect", str(tmp_path / "run/checkpoints/last.ckpt")])
    assert "has learned 2 of 3 experiences" in (tmp_path / "run/report/report.html").read_text()


def test_what_is_no_run_is_refused_in_a_sentence(finished, tmp_path):
    with pytest.raises(CommandLineError, match="is no run directory: it has neither results.json nor"):
        run(["inspect", str(tmp_path)])
    (tmp_path / "results.json").write_text('{"accuracy_matrix": ')
    with pytest.raises(CommandLineError, match="results.json is damaged, or of another program"):
        run(["inspect", str(tmp_path)])
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run/memory_maps/experience_2.safetensors").write_bytes(b"cut off")
    with pytest.raises(CommandLineError, match="experience_2.safetensors is not a memory map file, or is damaged"):
        run(["inspect", str(tmp_path / "run")])
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "x.ckpt").write_bytes(b"not one")
    with pytest.raises(CommandLineError, match="x.ckpt is not a checkpoint of bayesdual, or is damaged"):
        run(["inspect", str(tmp_path / "x.ckpt")])
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "x.ckpt"}
