"""The stability gap is measured on what was learned before, while the next is learned."""

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger

from bayesdual.algorithm import BayesDual
from bayesdual.inspection import StreamBoard
from bayesdual.inspection.gap import gap_figure, gaps
from bayesdual.inspection.loggers import left_out, taker_of
from bayesdual.learner import Learner, StreamDataModule
from bayesdual.models import MLP
from tests.streams import blobs

pytestmark = pytest.mark.filterwarnings("ignore")


class Taking(Logger):
    """A logger as W&B's, which takes figures."""

    name, version = "taking", 0

    def __init__(self):
        super().__init__()
        self.metrics, self.figures, self.settings = [], [], {}

    def log_metrics(self, metrics, step=None):
        self.metrics.append((step, dict(metrics)))

    def log_hyperparams(self, params, *args, **kwargs):
        self.settings = dict(params)

    def log_image(self, key, images, step):
        self.figures.append((key, step, images[0].shape[2]))


@pytest.fixture(scope="module")
def learned():
    torch.manual_seed(0)
    learner, logger = Learner(MLP(16, [16], 6), BayesDual(memory_size=12)), Taking()
    trainer = Trainer(
        accelerator="cpu",
        callbacks=[StreamBoard(share=0, old_every_n_steps=2)],
        logger=logger,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(learner, datamodule=StreamDataModule(blobs(), epochs=1, batch_size=16))
    return learner, logger


def test_the_old_is_evaluated_before_each_experience_and_every_so_many_steps(learned):
    learner, logger = learned
    rows = learner.history.on_old
    steps = [(row["experience"], row["step"]) for row in rows]
    assert steps == [(2, 5), (2, 6), (2, 8), (2, 10), (3, 10), (3, 12), (3, 14)], "at 5 an experience begins"
    matrix = learner.history.accuracy
    first = next(row for row in rows if row["experience"] == 3)
    assert first["old"] == pytest.approx((matrix[1][0] + matrix[1][1]) / 2), "as it was when the one before ended"
    assert [value["accuracy_on_old"] for _, value in logger.metrics if "accuracy_on_old" in value] == [
        row["old"] for row in rows
    ]
    assert learner.history.results()["on_old"] == rows


def test_a_dip_is_counted_from_the_boundary():
    rows = [{"step": s, "experience": k, "old": a} for k, s, a in ((2, 5, 0.9), (2, 7, 0.5), (2, 9, 0.8), (3, 9, 0.7))]
    assert gaps(rows) == {2: pytest.approx(0.4), 3: 0.0}
    axes = gap_figure(rows).axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines if line.get_linestyle() == "-"][0] == [
        [5, 0.9],
        [7, 0.5],
        [9, 0.8],
    ]
    assert axes.get_title(loc="left") == "deepest dip: 0.400, in experience 2"


def test_any_logger_gets_scalars_and_figures_where_it_takes_them(learned, tmp_path):
    _, logger = learned
    assert [step for key, step, _ in logger.figures if key == "forgetting/accuracy_matrix"] == [5, 15], "first and last"
    assert [step for step, values in logger.metrics if "experiences_learned" in values] == [5, 10, 15]
    assert all(channels == 3 for *_, channels in logger.figures)
    assert logger.settings["memory_budget"] == 12 and "final/average_accuracy" in logger.metrics[-1][1]
    assert left_out(logger).startswith("Taking gets scalars, settings and figures; it does not get histograms")
    plain = CSVLogger(tmp_path)
    assert taker_of(plain) is None and "it does not get figures, histograms" in left_out(plain)


def test_mlflow_s_client_takes_figures():
    given = []

    class Client:
        def log_image(self, run_id, image, key, step):
            given.append((run_id, image, key, step))

    class MLFlow(Logger):
        name, version, run_id, experiment = "mlflow", 0, "r7", Client()

        def log_metrics(self, metrics, step=None): ...

        def log_hyperparams(self, params, *args, **kwargs): ...

    take = taker_of(MLFlow())
    assert take is not None
    take("classes/confusion", "pixels", 5)
    assert given == [("r7", "pixels", "classes/confusion", 5)]


def test_steps_below_one_are_refused():
    with pytest.raises(ValueError, match="board.old_every_n_steps is 0: give 1 or more, or leave it out"):
        StreamBoard(old_every_n_steps=0)
