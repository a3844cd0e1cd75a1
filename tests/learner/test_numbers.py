"""A stream of numbers: learned, remembered, measured by RMSE, and resumed; what cannot be is refused at the start."""

import json
import math

import numpy as np
import pytest
import torch
from lightning import Trainer, seed_everything

from bayesdual import BayesDual, Learner, StreamDataModule
from bayesdual.inspection import RunReport, Standing, read_run, stream_figures
from bayesdual.learner import StreamCheckpoint
from bayesdual.likelihoods import Gaussian
from bayesdual.models import MLP
from bayesdual.scenarios import RotatedDigits, from_arrays
from bayesdual.strategies import BayesDualStrategy

SILENT = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(360, 2))
DOMAIN = np.repeat([0, 1, 2], 120)
X[:, 1] = 0.3 * X[:, 1] + 1.5 * DOMAIN  # drifts
Y = 50 + X[:, 0] * np.array([10, -10, 5])[DOMAIN] + 5 * DOMAIN


def stream(y=Y, targets="numbers", **settings):
    return from_arrays(X, y, by="domain", domain=DOMAIN, targets=targets, **settings)


def learner(size=30, likelihood="gaussian", outputs=1, prediction="mean", **settings):
    seed_everything(1, verbose=False)
    return Learner(
        MLP(2, (100, 100), outputs), BayesDual(size, likelihood=likelihood, **settings), prediction=prediction
    )


def learned(model, benchmark, epochs=10, callbacks=(), **settings):
    trainer = Trainer(**{**SILENT, **settings, "enable_checkpointing": bool(callbacks)}, callbacks=list(callbacks))
    trainer.fit(model, datamodule=StreamDataModule(benchmark, epochs, 16))
    return model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return learned(learner(), stream(), callbacks=[StreamCheckpoint(folder / "checkpoints"), RunReport(folder)]), folder


def test_results_say_rmse_and_the_memory_holds_numbers(run):
    model, folder = run
    results = json.loads((folder / "results.json").read_text())
    assert results["score"] == "rmse" and not [key for key in results if "accuracy" in key or key == "ece"]
    matrix = np.array(results["rmse_matrix"])
    assert results["average_rmse"] == pytest.approx(matrix[-1].mean())
    lost = [matrix[-1][j] - min(matrix[i][j] for i in range(j, 2)) for j in (0, 1)]
    assert results["forgetting"] == pytest.approx(np.mean(lost))
    assert results["backward_transfer"] == pytest.approx(np.mean([matrix[j][j] - matrix[-1][j] for j in (0, 1)]))
    untrained = results["rmse_untrained"]
    gained = [untrained[j] - matrix[j - 1][j] for j in (1, 2)]
    assert results["forward_transfer"] == pytest.approx(np.mean(gained))
    assert results["r2"] > 0 and results["mae"] < results["rmse"]
    z = model.algorithm.memory.exemplars
    assert len(z) == 30 and z.y.dtype == torch.float32 and z.logits.shape == (30, 1)
    assert sorted(z.experience.unique().tolist()) == [0, 1, 2] and 40 < float(z.y.mean()) < 70
    assert float(z.weights.sum()) == pytest.approx(288)
    assert model.algorithm.posterior.knows_data and 0 < model.likelihood.noise < 11


def test_the_nll_has_the_noise_that_was_just_measured(run):
    """Evaluation comes before the experience ends; noise of the experience before would be another."""
    nll = run[0].history.nll
    errors = []
    for data in run[0].trainer.datamodule.evaluation_data("test"):
        with torch.no_grad():
            errors.append(run[0].likelihood.predicted(run[0](data.x)).squeeze(1) - data.y)
    square, noise = float(torch.cat(errors).square().mean()), run[0].likelihood.noise
    assert nll == pytest.approx(square / (2 * noise**2) + math.log(noise) + 0.5 * math.log(2 * math.pi), rel=1e-4)


def test_figures_and_pages_say_rmse(run):
    figures = stream_figures(Standing.of(run[0]))
    assert set(figures) == {"forgetting/rmse_matrix", "forgetting/rmse_over_time", "memory/memory_map"}
    axes = figures["forgetting/rmse_over_time"].axes[0]
    assert axes.get_ylabel() == "RMSE" and axes.get_ylim()[1] > 1.02
    assert read_run(run[1]).matrix == run[0].history.accuracy
    assert read_run(run[1] / "checkpoints" / "last.ckpt").matrix == run[0].history.accuracy


def test_what_was_learned_is_kept_where_a_memory_is(run):
    naive = learned(learner(0, weight_prior=None), stream()).history.results()
    ours = run[0].history.results()
    assert ours["forgetting"] < naive["forgetting"] / 2 and ours["average_rmse"] < naive["average_rmse"] - 1


def test_a_run_that_is_resumed_ends_as_the_whole_does(run, tmp_path):
    learned(learner(), stream(), callbacks=[StreamCheckpoint(tmp_path)], max_epochs=15)
    model = learner()
    Trainer(**SILENT).fit(model, datamodule=StreamDataModule(stream(), 10, 16), ckpt_path=tmp_path / "last.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), run[0].parameters(), strict=True))
    assert model.likelihood.state_dict() == run[0].likelihood.state_dict()
    assert model.history.accuracy == run[0].history.accuracy


def test_the_avalanche_host_learns_them_too():
    seed_everything(1, verbose=False)
    algorithm, model = BayesDual(30, likelihood="gaussian"), MLP(2, (100, 100), 1)
    strategy = BayesDualStrategy(model=model, algorithm=algorithm, train_mb_size=16, train_epochs=10)
    for experience in stream().train_stream:
        strategy.train(experience)
    data = [e.tensors() for e in stream().test_stream]
    with torch.no_grad():
        said = algorithm.likelihood.predicted(model(torch.cat([d.x for d in data]))).squeeze(1)
    y = torch.cat([d.y for d in data])
    assert 1 - float((said - y).square().mean() / y.var()) > 0.3 and len(algorithm.memory) == 30


def test_a_plugin_beside_another_criterion_is_refused():
    strategy = BayesDualStrategy(
        model=MLP(2, (4,), 1), algorithm=BayesDual(30, likelihood="poisson"), criterion=torch.nn.MSELoss()
    )
    with pytest.raises(ValueError, match=r"criterion is MSELoss\(\): give criterion=algorithm.criterion"):
        strategy.train(stream(np.round(Y.clip(0))).train_stream[0])


@pytest.mark.parametrize(
    ("likelihood", "y", "targets", "low"),
    [("poisson", np.round(np.exp(2 + 0.8 * X[:, 0])), "numbers", 0.3), ("bernoulli", X[:, 0] > 0, "classes", 0.8)],
)
def test_counts_and_two_classes_by_one_output(likelihood, y, targets, low):
    results = learned(learner(likelihood=likelihood), stream(y.astype(int), targets)).history.results()
    assert (results["r2"] if targets == "numbers" else results["average_accuracy"]) > low
    assert ("ece" in results) == (targets == "classes")


@pytest.mark.parametrize("score", ["nll", "r2"])
def test_forgetting_is_of_the_score_that_is_chosen(score):
    results = learned(learner(likelihood=Gaussian(score=score)), stream(), epochs=1).history.results()
    matrix = np.array(results[f"{score}_matrix"])
    lost = np.mean([min(matrix[:2, 0]) - matrix[2, 0], matrix[1, 1] - matrix[2, 1]])
    if score == "r2":
        lost = -np.mean([matrix[2, 0] - max(matrix[:2, 0]), matrix[2, 1] - matrix[1, 1]])
        assert results["forgetting"] == pytest.approx(lost)
    else:
        assert results["forgetting"] == pytest.approx(-lost)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: learned(learner(likelihood="categorical", outputs=9), stream()), "floats, .* algorithm.likelihood"),
        (lambda: learned(learner(outputs=2), stream()), "gives 2 outputs, and the likelihood gaussian takes 1"),
        (lambda: learner(prediction="linearised"), "prediction is linearised, .* likelihood gaussian give mean"),
        (lambda: learned(learner(), stream(task_labels=True)), "has task labels, and model.network has one output"),
        (
            lambda: Trainer(**SILENT).fit(
                learner(), datamodule=StreamDataModule(stream(), ood=RotatedDigits(n_experiences=2))
            ),
            "entropy of classes, and the targets are numbers",
        ),
        (lambda: from_arrays(X, Y, targets="numbers"), "targets of x are numbers, .* give by domain or time"),
        (lambda: stream(["a"] * 360), "example 0 .* of x has a target that is no number"),
        (lambda: stream(targets="floats"), "targets is 'floats': give classes or numbers"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
