"""What a run knows of its answers: after each experience, of old, new and unseen ones, and of data of another kind."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning import Trainer

from bayesdual.algorithm import BayesDual
from bayesdual.ivon import IVON
from bayesdual.learner import History, Learner, StreamDataModule
from bayesdual.models import MLP
from bayesdual.stream import TensorData
from tests.streams import blobs

pytestmark = pytest.mark.filterwarnings("ignore")


def learner(prediction="mean"):
    torch.manual_seed(0)
    ivon = partial(IVON, lr=0.2, ess=80, hess_init=0.5)
    return Learner(MLP(16, (32,), 6), BayesDual(memory_size=12, replay_batch_size=16), ivon, prediction=prediction)


def trainer():
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", enable_checkpointing=False, **quiet)


def noise(x=None):
    """A benchmark of inputs in the shape of blobs, of another kind, with labels that are no classes of these."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, (60, 1, 4, 4), generator=generator, dtype=torch.uint8) if x is None else x
    data = TensorData(x, torch.full((60,), 50), torch.zeros(60, dtype=torch.int64), torch.arange(60))
    return SimpleNamespace(train_stream=[], test_stream=[SimpleNamespace(tensors=lambda: data)])


def fitted(model, **data):
    trainer().fit(model, StreamDataModule(blobs(), epochs=4, batch_size=16, **data))
    return model


def test_after_each_experience_the_groups_are_those_of_the_accuracy_matrix():
    history = fitted(learner("samples")).history
    for i, (row, accuracy) in enumerate(zip(history.over_stream, history.accuracy, strict=True)):
        assert row["after"] == i + 1
        groups = {"old": accuracy[:i], "new": accuracy[i : i + 1], "unseen": accuracy[i + 1 :]}
        for name, values in groups.items():
            assert (name in row) == bool(values)
            if values:
                assert row[name]["accuracy"] == pytest.approx(sum(values) / len(values))
                assert row[name]["entropy"] == pytest.approx(row[name]["aleatoric"] + row[name]["epistemic"], abs=1e-6)
        assert ("unseen" in row["told_apart"]) == (i < 2)
    last = history.over_stream[-1]
    assert history.results()["nll"] == pytest.approx((2 * last["old"]["nll"] + last["new"]["nll"]) / 3)
    assert {
        "nll/old",
        "ece/new",
        "epistemic/new",
        "average_accuracy",
        "accuracy/experience_3",
    } <= history.scalars().keys()
    assert "aleatoric" not in fitted(learner()).history.results()


def test_data_of_another_kind_are_told_apart_and_change_nothing_that_is_learned():
    plain, model = fitted(learner()), fitted(learner(), ood=noise)
    assert all(torch.equal(a, b) for a, b in zip(plain.network.parameters(), model.network.parameters(), strict=True))
    assert plain.history.accuracy == model.history.accuracy and plain.history.nll == model.history.nll
    apart = model.history.measures["told_apart"]["ood"]
    assert 0 <= apart["auroc_entropy"] <= 1 and "ood" not in plain.history.measures["told_apart"]
    trainer().test(model, StreamDataModule(blobs(), batch_size=16, ood=noise()), verbose=False)
    assert model.latest_evaluation["told_apart"]["ood"] == pytest.approx(apart)
    assert model.latest_evaluation["groups"].keys() == {
        "old",
        "new",
        "ood",
    }  # though the data module has learned nothing
    rows = trainer().predict(model, StreamDataModule(blobs(), batch_size=16, ood=noise))
    assert len(rows) == 3, "predictions are of the stream"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: 3, "data.ood gives 3, which is no Avalanche benchmark"),
        (lambda: SimpleNamespace(train_stream=[], test_stream=[]), "data.ood has no examples in a stream 'test'"),
        (
            lambda: noise(x=torch.zeros(60, 1, 5, 5, dtype=torch.uint8)),
            r"data.ood has inputs of shape \(1, 5, 5\) \(torch.uint8\), and data.benchmark of shape \(1, 4, 4\)",
        ),
        (
            lambda: noise(x=torch.full((60, 1, 4, 4), torch.nan)),
            r"data.ood has inputs of shape \(1, 4, 4\) \(torch.float32",
        ),
    ],
)
def test_other_data_that_cannot_be_are_refused_before_anything_is_learned(other, message):
    model = learner()
    with pytest.raises(ValueError, match=message):
        fitted(model, ood=other)
    assert not model.algorithm.memory.counts


def test_other_data_have_no_task_labels():
    model = learner()
    with pytest.raises(ValueError, match="data.benchmark has task labels, .*: leave data.ood out"):
        trainer().fit(model, StreamDataModule(blobs(task_labels=True), batch_size=16, ood=noise))


def test_a_history_of_before_is_gone_on_with():
    known = History()
    state = known.state_dict()
    for name in ("measures", "over_stream"):
        del state[name]
    known.load_state_dict({**state, "accuracy": [[0.5, 0.0]]})
    results = known.results()
    assert results["over_stream"] == [] and "brier" not in results and known.scalars()["average_accuracy"] == 0.25
