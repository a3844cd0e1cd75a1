"""What an Avalanche run leaves: the measures of Avalanche's own metrics, and what ``inspect`` reads."""

import json

import pytest
import torch
from avalanche.evaluation.metrics import (
    accuracy_metrics,
    bwt_metrics,
    confusion_matrix_metrics,
    forgetting_metrics,
)
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bayesdual.algorithm import BayesDual
from bayesdual.cli import run
from bayesdual.inspection import read_run
from bayesdual.strategies import BayesDualStrategy, StreamReport
from tests.avalanche_streams import benchmark, mlp, pieces

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
STREAM = "eval_phase/test_stream"


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A run directory, and what Avalanche's own metrics said after each experience."""
    directory, stream = tmp_path_factory.mktemp("runs") / "ours", benchmark()
    theirs = EvaluationPlugin(
        accuracy_metrics(experience=True),
        bwt_metrics(stream=True),
        forgetting_metrics(experience=True, stream=True),
        confusion_matrix_metrics(num_classes=10, stream=True, save_image=False),
    )
    torch.manual_seed(0)
    strategy = BayesDualStrategy(
        model=mlp(), algorithm=BayesDual(20), train_mb_size=16, train_epochs=2, eval_mb_size=64,
        plugins=[StreamReport(directory, class_names=[f"class {c}" for c in range(10)])], evaluator=theirs,
    )  # fmt: skip
    said = []
    for experience in stream.train_stream[:3]:
        strategy.train(experience)
        said.append(dict(strategy.eval(stream.test_stream)))
        strategy.eval(stream.test_stream)  # the first one counts
    return directory, said, strategy


def test_avalanche_s_own_metrics_say_the_same(learned):
    directory, said, _ = learned
    results = json.loads((directory / "results.json").read_text())
    theirs = [[row[f"Top1_Acc_Exp/{STREAM}/Task000/Exp{j:03}"] for j in range(5)] for row in said]
    assert results["accuracy_matrix"] == [pytest.approx(row) for row in theirs] and len(theirs) == 3
    assert results["backward_transfer"] == pytest.approx(said[-1][f"StreamBWT/{STREAM}"])
    assert results["forgetting"] >= said[-1][f"StreamForgetting/{STREAM}"], (
        "ours is from the best, theirs from the first"
    )
    diagonal = [theirs[j][j] - theirs[-1][j] for j in range(2)]
    assert said[-1][f"StreamForgetting/{STREAM}"] == pytest.approx(sum(diagonal) / 2)


def test_the_run_directory_is_one_that_inspect_reads(learned, tmp_path):
    directory, _, strategy = learned
    known = read_run(directory)
    assert len(known.memory) == 20 and known.results["experiences_learned"] == 3 and [*known.maps] == [1, 2, 3]
    assert known.posterior is not None and known.results["class_names"][3] == "class 3"
    run(["inspect", str(directory), "--output", str(tmp_path)])
    page = (tmp_path / "report.html").read_text()
    assert f"{known.results['average_accuracy']:.4f}" in page and "class 5" in page
    shown = EventAccumulator(str(directory), size_guidance={"images": 0}).Reload()
    assert [image.step for image in shown.Images("classes/confusion")] == [1, 2, 3]
    last = shown.Scalars("by_experience/average_accuracy_seen")[-1]
    seen = known.results["accuracy_matrix"][-1][:3]
    assert last.step == 3 and last.value == pytest.approx(sum(seen) / 3)
    seconds = known.results
    assert seconds["seconds_total"] == pytest.approx(seconds["seconds_training"] + seconds["seconds_evaluation"])


def naive(plugin):
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    return Naive(model=model, optimizer=optimizer, train_mb_size=64, evaluator=EvaluationPlugin(), plugins=[plugin])


def test_another_strategy_leaves_all_but_a_memory(tmp_path):
    stream, strategy = benchmark(), naive(StreamReport(tmp_path / "naive"))
    for experience in stream.train_stream[:1]:
        strategy.train(experience, eval_streams=[stream.test_stream])  # those while it learns do not count
        strategy.eval(stream.test_stream)
    known = read_run(tmp_path / "naive")
    assert len(known.results["accuracy_matrix"]) == 1 and known.memory is None and known.posterior is None
    assert (tmp_path / "naive/confusion.png").exists() and not (tmp_path / "naive/memory_map.png").exists()


def test_what_would_leave_gaps_is_refused(tmp_path, monkeypatch):
    stream, strategy = benchmark(), naive(StreamReport(tmp_path))
    first, second, *_ = stream.train_stream
    strategy.train(first)
    strategy.eval(stream.train_stream)  # another stream
    with pytest.raises(ValueError, match="experience 1 was not evaluated: call strategy.eval"):
        strategy.train(second)
    algorithm = BayesDual(2, likelihood="gaussian")
    ours = BayesDualStrategy(model=mlp(), algorithm=algorithm, plugins=[StreamReport(tmp_path)], evaluator=None)
    with pytest.raises(ValueError, match="StreamReport measures classes by softmax, and the likelihood is gaussian"):
        ours.train(first)
    monkeypatch.setattr(StreamReport, "_leave", lambda *_: None)
    strategy = naive(StreamReport(tmp_path))
    for piece in pieces([[i] for i in range(5)]):
        strategy.train(piece)
        strategy.eval(stream.test_stream)
    strategy.train(first)
    with pytest.raises(ValueError, match="6 experiences are learned, and the stream test has 5"):
        strategy.eval(stream.test_stream)
