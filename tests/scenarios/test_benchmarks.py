"""The benchmarks: what their streams hold, as tensors and as Avalanche sees them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from avalanche.benchmarks import with_classes_timeline, with_task_labels
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.models import MultiHeadClassifier, MultiTaskModule
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import ICaRL, Naive, Replay
from torch import nn
from torchvision.transforms.functional import InterpolationMode, rotate

from bayesdual import scenarios
from bayesdual.scenarios import datasets
from bayesdual.scenarios.domain import Permutation, Rotation, domain_benchmark, permutations
from bayesdual.scenarios.split import split_benchmark
from bayesdual.stream import TensorData, normalise

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The models are so small that several threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits() -> datasets.RawDataset:
    return datasets.digits()


def rows_of(stream) -> list[torch.Tensor]:
    return [experience.tensors().index for experience in stream]


# ------------------------------------------------------------------------------------------- split benchmarks


def test_the_experiences_of_a_split_share_the_data_out_without_overlap(digits):
    benchmark = split_benchmark(digits, 5, validation=0.25)
    train, valid = torch.cat(rows_of(benchmark.train_stream)), torch.cat(rows_of(benchmark.valid_stream))
    assert torch.equal(torch.cat([train, valid]).sort().values, torch.arange(len(digits.train_y)))
    test = torch.cat(rows_of(benchmark.test_stream))
    assert torch.equal(test.sort().values, torch.arange(len(digits.test_y)))
    share = digits.train_y[valid].bincount() / digits.train_y.bincount()
    assert share.sub(0.25).abs().max() < 0.01, "the validation part is a quarter of each class"


def test_a_split_gives_each_experience_its_classes_of_the_source(digits):
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    benchmark = split_benchmark(digits, 5, class_order=order)
    for i, (train, test) in enumerate(zip(benchmark.train_stream, benchmark.test_stream, strict=True)):
        for experience, x, y in (
            (train, digits.train_x, digits.train_y),
            (test, digits.test_x, digits.test_y),
        ):
            tensors = experience.tensors()
            assert isinstance(tensors, TensorData) and tensors.x.dtype == torch.uint8
            assert tensors.y.unique().tolist() == sorted(order[2 * i : 2 * i + 2])
            assert torch.equal(tensors.x, x[tensors.index]) and torch.equal(tensors.y, y[tensors.index])
            assert tensors.tasks.unique().tolist() == [0]
    assert benchmark.classes_order == order and benchmark.n_classes_per_exp == [2] * 5


@pytest.mark.parametrize("task_labels", [False, True])
def test_avalanche_sees_the_same_examples_as_the_tensors(digits, task_labels):
    views = [*permutations(2, 64, seed=0), Rotation(50.0)]
    for benchmark in (
        split_benchmark(digits, 2, validation=0.1, task_labels=task_labels),
        domain_benchmark(digits, views, validation=0.1, task_labels=task_labels),
    ):
        for stream in benchmark.streams.values():
            for i, experience in enumerate(stream):
                tensors = experience.tensors()
                dataset = experience.dataset
                x = normalise(tensors.x, tensors.mean, tensors.std)
                expected = (tensors.x / 255 - tensors.mean[0]) / tensors.std[0]
                torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-6)
                assert len(dataset) == len(tensors)
                assert list(dataset.targets) == tensors.y.tolist()
                assert list(dataset.targets_task_labels) == tensors.tasks.tolist()
                assert tensors.tasks.unique().tolist() == [i if task_labels else 0]
                for row in (0, 7, len(dataset) - 1):
                    image, label, task = dataset[row]
                    assert image.dtype == torch.float32 and torch.equal(image, x[row])
                    assert (label, task) == (int(tensors.y[row]), int(tensors.tasks[row]))


def test_the_seed_draws_the_class_order_and_the_validation_part(digits):
    orders = [split_benchmark(digits, 5, shuffle_classes=True, seed=s).classes_order for s in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2] and sorted(orders[2]) == list(range(10))
    valid = [torch.cat(rows_of(split_benchmark(digits, 5, validation=0.1, seed=s).valid_stream)) for s in (0, 0, 1)]
    assert torch.equal(valid[0], valid[1]) and not torch.equal(valid[0], valid[2])
    assert split_benchmark(digits, 5, seed=3).classes_order == list(range(10)), "natural order unless asked"


def test_building_a_benchmark_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    scenarios.SplitDigits(shuffle_classes=True, validation=0.1)
    scenarios.PermutedDigits()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"n_experiences": 3}, "10 classes cannot be split into 3 experiences .* out of 1, 2, 5, 10"),
        ({"n_experiences": 0}, "n_experiences is a whole number of at least 1, not 0"),
        ({"n_experiences": 2.5}, "n_experiences is a whole number of at least 1, not 2.5"),
        ({"class_order": [0, 1, 2]}, r"class_order names each class of 0\.\.9 exactly once"),
        ({"class_order": [0] * 10}, r"class_order names each class of 0\.\.9 exactly once"),
        ({"class_order": list(range(10)), "shuffle_classes": True}, "shuffle_classes must be false"),
        ({"validation": 1.0}, r"validation is a share of the training data in \[0, 1\), not 1.0"),
        ({"validation": -0.1}, r"validation is a share of the training data in \[0, 1\), not -0.1"),
        ({"validation": 0.001}, "no example of class 0 for the stream 'valid' with validation=0.001"),
        ({"validation": 0.999}, "no example of class 0 for the stream 'train' with validation=0.999"),
    ],
)
def test_arguments_that_cannot_work_are_refused_in_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        scenarios.SplitDigits(**arguments)


# ------------------------------------------------------------------------------------------ domain benchmarks


def test_permuted_experiences_hold_all_classes_with_their_pixels_moved_one_to_one(digits):
    benchmark = scenarios.PermutedDigits(n_experiences=3, seed=1)
    first, *others = [experience.tensors() for experience in benchmark.train_stream]
    assert torch.equal(first.x, digits.train_x), "the first experience is the original data"
    for experience, tensors in zip(list(benchmark.train_stream)[1:], others, strict=True):
        assert experience.classes_in_this_experience == list(range(10))
        assert torch.equal(tensors.index, first.index) and torch.equal(tensors.y, first.y)
        assert not torch.equal(tensors.x, first.x)
        assert torch.equal(tensors.x.flatten(1).sort().values, first.x.flatten(1).sort().values)
    assert not torch.equal(others[0].x, others[1].x)
    again = scenarios.PermutedDigits(n_experiences=3, seed=1).train_stream[2].tensors()
    assert torch.equal(again.x, others[1].x), "the seed decides"
    assert not torch.equal(scenarios.PermutedDigits(3, seed=2).train_stream[2].tensors().x, others[1].x)


def test_training_and_test_stream_are_permuted_alike(digits):
    benchmark = scenarios.PermutedDigits(n_experiences=2, validation=0.1)
    marked = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    views = [benchmark.streams[name][1].rows.view for name in ("train", "valid", "test")]
    assert all(torch.equal(view(marked), views[0](marked)) for view in views)
    assert torch.equal(benchmark.test_stream[1].tensors().x, views[0](digits.test_x))


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (5, 9)])
def test_a_permutation_is_a_bijection_of_the_pixels(shape):
    n = shape[0] * shape[1]
    view = permutations(2, n, seed=3)[1]
    assert isinstance(view, Permutation) and view.source.sort().values.tolist() == list(range(n))
    x = torch.randint(0, 256, (4, 3, *shape), dtype=torch.uint8)
    undone = Permutation(view.source.argsort())(view(x))
    assert torch.equal(undone, x)


def test_held_out_examples_stay_held_out_in_all_experiences_of_a_domain_stream():
    benchmark = scenarios.RotatedDigits(n_experiences=3, validation=0.2)
    train, valid = rows_of(benchmark.train_stream), rows_of(benchmark.valid_stream)
    assert all(torch.equal(rows, train[0]) for rows in train)
    assert not set(torch.cat(train).tolist()) & set(torch.cat(valid).tolist())


@pytest.mark.parametrize("degrees", [0.0, 17.0, 36.0, 145.0, -60.0])
def test_a_rotation_is_the_bilinear_one_of_torchvision(digits, degrees):
    x = digits.train_x[:300]
    ours = Rotation(degrees)(x).int()
    theirs = rotate(x, degrees, InterpolationMode.BILINEAR).int()
    assert (ours - theirs).abs().float().mean() < 3, "points are read to 1/16 of a pixel, of 255 levels"
    assert torch.equal(Rotation(degrees)(x[5:6])[0], Rotation(degrees)(x)[5]), "alone as in a batch"


def test_a_quarter_turn_only_moves_pixels():
    x = torch.randint(0, 256, (3, 3, 7, 7), dtype=torch.uint8)
    for quarters in range(4):
        assert torch.equal(Rotation(90.0 * quarters)(x), torch.rot90(x, quarters, (2, 3)))


def test_rotations_are_evenly_spaced_or_as_given(digits):
    benchmark = scenarios.RotatedDigits(n_experiences=2)
    assert torch.equal(benchmark.train_stream[0].tensors().x, digits.train_x)
    assert torch.equal(benchmark.train_stream[1].tensors().x, torch.rot90(digits.train_x, 1, (2, 3)))
    given = scenarios.RotatedDigits(n_experiences=2, rotations=[180.0, 0.0])
    assert torch.equal(given.train_stream[0].tensors().x, digits.train_x.flip(2, 3))
    with pytest.raises(ValueError, match="one angle in degrees for each of the 3 experiences"):
        scenarios.RotatedDigits(n_experiences=3, rotations=[0.0, 10.0])
    with pytest.raises(ValueError, match="one angle in degrees for each of the 2 experiences"):
        scenarios.RotatedDigits(n_experiences=2, rotations=[0.0, float("nan")])


# ---------------------------------------------------------------------------------------------- Avalanche


def test_experiences_know_the_classes_timeline_and_task_labels():
    benchmark = scenarios.SplitDigits(task_labels=True)
    third = benchmark.train_stream[2]
    assert third.current_experience == 2 and third.origin_stream.name == "train"
    assert third.classes_in_this_experience == [4, 5] and third.previous_classes == [0, 1, 2, 3]
    assert third.classes_seen_so_far == [0, 1, 2, 3, 4, 5] and third.future_classes == [6, 7, 8, 9]
    assert third.task_label == 2 and third.task_labels == [2]
    assert third.benchmark is benchmark and benchmark.train_stream[1:].benchmark is benchmark
    assert list(benchmark.streams) == ["train", "test"] and benchmark.n_experiences == 5
    assert scenarios.SplitDigits().train_stream[2].task_label == 0
    again = scenarios.RotatedDigits(n_experiences=2).train_stream[1]
    assert again.previous_classes == again.classes_seen_so_far == list(range(10)) and not again.future_classes


def test_tensors_survive_the_decorators_of_avalanche():
    benchmark = scenarios.SplitDigits(task_labels=True)
    decorated = with_task_labels(with_classes_timeline(benchmark))
    for ours, theirs in zip(benchmark.train_stream, decorated.train_stream, strict=True):
        assert torch.equal(ours.tensors().x, theirs.tensors().x)
        assert set(ours.classes_seen_so_far) == set(theirs.classes_seen_so_far)
        assert set(ours.future_classes) == set(theirs.future_classes)
        assert (ours.task_label, ours.task_labels) == (theirs.task_label, theirs.task_labels)
        assert len(theirs.train().tensors()) == len(ours.dataset), "also where Avalanche hides attributes"


def train_and_test(strategy, benchmark) -> float:
    for experience in benchmark.train_stream:
        strategy.train(experience, num_workers=0)
    result = strategy.eval(benchmark.test_stream, num_workers=0)
    return next(value for key, value in result.items() if key.startswith("Top1_Acc_Stream"))


def options(model: nn.Module, lr: float = 3e-3, epochs: int = 1) -> dict:
    return {
        "optimizer": torch.optim.Adam(model.parameters(), lr=lr),
        "train_mb_size": 32,
        "train_epochs": epochs,
        "eval_mb_size": 256,
        "evaluator": EvaluationPlugin(accuracy_metrics(stream=True), loggers=[], strict_checks=True),
    }


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def test_naive_and_replay_of_avalanche_run_and_replay_forgets_less():
    benchmark = scenarios.SplitDigits()
    accuracy = {}
    for name, strategy in (("naive", Naive), ("replay", Replay)):
        model, memory = mlp(), {"mem_size": 200} if name == "replay" else {}
        settings = options(model, lr=1e-2, epochs=3)
        strategy = strategy(model=model, criterion=nn.CrossEntropyLoss(), **memory, **settings)
        accuracy[name] = train_and_test(strategy, benchmark)
    assert accuracy["naive"] < 0.3 < 0.6 < accuracy["replay"], accuracy


def test_icarl_finds_the_class_order_it_asks_the_benchmark_for():
    model = mlp()
    strategy = ICaRL(
        feature_extractor=model[:3],
        classifier=model[3],
        memory_size=100,
        buffer_transform=None,
        fixed_memory=True,
        **options(model),
    )
    benchmark = scenarios.SplitDigits(class_order=[9, 0, 8, 1, 7, 2, 6, 3, 5, 4])
    assert train_and_test(strategy, benchmark) > 0.6


class MultiHead(MultiTaskModule):
    def __init__(self) -> None:
        super().__init__()
        self.features = mlp()[:3]
        self.classifier = MultiHeadClassifier(64)

    def forward(self, x, task_labels):
        return self.classifier(self.features(x), task_labels)


def test_a_multi_head_model_of_avalanche_uses_the_task_labels():
    model = MultiHead()
    strategy = Naive(model=model, criterion=nn.CrossEntropyLoss(), **options(model))
    assert train_and_test(strategy, scenarios.SplitDigits(task_labels=True)) > 0.7


# ------------------------------------------------------------------------------------------------ the package


def test_importing_the_package_does_not_import_avalanche():
    code = "import sys, bayesdual.scenarios, bayesdual.scenarios.datasets; print('avalanche' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_every_name_is_there_and_no_other():
    assert scenarios.SCENARIOS.keys() < set(scenarios.__all__) <= set(dir(scenarios))
    assert all(callable(getattr(scenarios, name)) for name in scenarios.__all__ if name != "SCENARIOS")
    with pytest.raises(AttributeError, match="no 'SplitNothing'; it has SCENARIOS, PermutedDigits, PermutedFMNIST"):
        _ = scenarios.SplitNothing
