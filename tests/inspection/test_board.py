"""What TensorBoard shows of a stream: every tab, with the numbers that the results have."""

import json

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bayesdual.algorithm import BayesDual
from bayesdual.inspection import RunReport, StreamBoard, classes_figure, confusion_figure, reliability_figure
from bayesdual.learner import Learner, StreamDataModule
from bayesdual.measures import Bin, StreamMetric
from bayesdual.models import MLP
from tests.streams import blobs

pytestmark = pytest.mark.filterwarnings("ignore")


def fit(directory, board):
    torch.manual_seed(0)
    learner = Learner(MLP(16, [16], 6), BayesDual(memory_size=12))
    trainer = Trainer(
        accelerator="cpu",
        callbacks=[RunReport(directory), board],
        logger=TensorBoardLogger(directory, name="", version=""),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(learner, datamodule=StreamDataModule(blobs(), epochs=2, batch_size=16))
    return learner


def events(directory):
    found = EventAccumulator(str(directory), size_guidance={"images": 0, "histograms": 0})
    return found.Reload()


def test_every_tab_shows_each_experience(tmp_path):
    learner = fit(tmp_path, StreamBoard(share=1e9))
    shown, steps = events(tmp_path), [2 * 6, 4 * 6, 6 * 6]
    tags = shown.Tags()
    figures = {"forgetting/accuracy_matrix", "forgetting/accuracy_over_time", "classes/accuracy_of_classes"}
    figures |= {"classes/confusion", "certainty/reliability", "certainty/certainty", "memory/memory"}
    figures |= {"memory/memory_map", "memory/memory_extremes", "memory/memory_changes"}
    assert set(tags["images"]) == figures and all(
        len({image.step for image in shown.Images(tag)}) == 3 for tag in figures
    )
    assert {image.step for image in shown.Images("classes/confusion")} == {
        event.step for event in shown.Scalars("forgetting")
    }, steps
    assert {f"posterior/{name}" for name, _ in learner.network.named_parameters()} == set(tags["histograms"])
    matrix = learner.history.accuracy
    drawn = shown.Scalars("by_experience/accuracy_of_the_new")
    assert [e.step for e in drawn] == [1, 2, 3]
    assert [e.value for e in drawn] == pytest.approx([matrix[i][i] for i in range(3)], abs=1e-7)
    of_third = [shown.Scalars(f"{group}/experience_3") for group in ("accuracy", "accuracy_before_learning")]
    assert [len(found) for found in of_third] == [1, 2], "what is not learned yet is not drawn as failure"
    assert "custom_scalars__config__" in tags["tensors"]
    results = json.loads((tmp_path / "results.json").read_text())
    assert shown.Scalars("final/average_accuracy")[-1].value == pytest.approx(results["average_accuracy"], abs=1e-7)
    rows = next(tmp_path.rglob("metadata.tsv")).read_text().splitlines()
    assert rows[0] == "kind\tclass" and sum(row.startswith("exemplar") for row in rows) == 12
    assert next(tmp_path.rglob("sprite.png")).stat().st_size > 100


def test_figures_keep_to_their_share_of_the_time_and_say_what_is_left_out(tmp_path):
    board = StreamBoard(share=0.0, projector=False)
    fit(tmp_path, board)
    shown = events(tmp_path)
    assert board.left_out == [2] and len(shown.Images("memory/memory")) == 2, "the first and the last are there"
    text = shown.Tensors("figures left out/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text.startswith("After experiences 2 there are no figures")
    assert len(shown.Scalars("by_experience/forgetting")) == 3 and not list(tmp_path.rglob("sprite.png"))
    with pytest.raises(ValueError, match="board.share is -1: it is a share of the time, 0 or more."):
        StreamBoard(share=-1)


def test_confusion_and_reliability_are_those_of_the_answers():
    metric = StreamMetric(2, 1)
    p = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.0, 0.3, 0.7], [0.05, 0.95, 0.0]])
    metric.update(p, torch.tensor([0, 0, 2, 1]), 0)
    metric.update(p[:1], torch.tensor([1]), 2)  # data of another kind
    metric.update(p[3:], torch.tensor([1]), 1)
    found = metric.compute()
    assert found["confusion"] == [[1, 1, 0], [0, 2, 0], [0, 0, 1]]
    assert found["reliability"] == [
        Bin(1, pytest.approx(0.7), 1.0),
        Bin(1, pytest.approx(0.8), 0.0),
        Bin(1, pytest.approx(0.9), 1.0),
        Bin(2, pytest.approx(0.95), 1.0),
    ]


def test_figures_draw_shares_and_leave_out_the_middle_of_many_classes():
    image = confusion_figure([[3, 1], [0, 0]]).axes[0].images[0].get_array()
    assert image[0].tolist() == [0.75, 0.25] and image.mask[1].all(), "a class without examples is empty"
    axes = classes_figure([[j if i == j else 50 - j for j in range(50)] for i in range(50)]).axes[0]
    assert len(axes.get_yticks()) == 20 and "10 worst and the 10 best of 50" in axes.get_ylabel()
    named = classes_figure([[1, 1], [0, 2]], ["cat", "dog"]).axes[0]
    assert [label.get_text() for label in named.get_yticklabels()] == ["cat", "dog"]
    dots = reliability_figure([Bin(4, 0.5, 0.25), Bin(8, 0.9, 1.0)]).axes[0].collections[0]
    assert dots.get_offsets().tolist() == [[0.5, 0.25], [0.9, 1.0]]
