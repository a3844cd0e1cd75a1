"""IVON and a memory for any Avalanche strategy: Naive, made to remember by a plugin and another optimizer."""

import torch
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive

from bayesdual.algorithm import BayesDual
from bayesdual.ivon import IVONByRule
from bayesdual.models import MLP
from bayesdual.scenarios import SplitDigits
from bayesdual.strategies import BayesDualPlugin

torch.manual_seed(0)
benchmark = SplitDigits()  # 5 experiences of 2 classes; any classification benchmark of Avalanche's will do
model = MLP(in_features=64, hidden=(100, 100), n_classes=10)
examples = len(benchmark.train_stream[0].dataset)  # of an experience
epochs, batch = 20, 32

strategy = Naive(
    model=model,
    optimizer=IVONByRule().make(model.parameters(), examples, steps=epochs * -(-examples // batch)),
    plugins=[BayesDualPlugin(BayesDual(memory_size=100))],
    train_mb_size=batch,
    train_epochs=epochs,
    eval_mb_size=256,
    evaluator=EvaluationPlugin(accuracy_metrics(stream=True)),
)

for experience in benchmark.train_stream:
    strategy.train(experience, eval_streams=[])
    accuracy = strategy.eval(benchmark.test_stream)["Top1_Acc_Stream/eval_phase/test_stream/Task000"]
    print(f"after experience {experience.current_experience + 1}: {accuracy:.3f} of the test stream")
