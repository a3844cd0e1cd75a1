"""How sure, and how rightly, after digits two at a time: by the mean, with a temperature, and by the posterior."""

import warnings

import torch
from lightning import Trainer

from bayesdual.algorithm import BayesDual
from bayesdual.learner import Learner, StreamDataModule
from bayesdual.measures import answers_of, measured
from bayesdual.models import MLP
from bayesdual.prediction import fit_temperature, prediction_by
from bayesdual.scenarios import SplitDigits

warnings.simplefilter("ignore")  # Lightning's advice
torch.manual_seed(0)
benchmark = SplitDigits(validation=0.2)  # a fifth of the training data is held out
learner = Learner(MLP(in_features=64, hidden=(100,)), BayesDual(memory_size=100), prediction="linearised")
quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
Trainer(accelerator="cpu", **quiet).fit(learner, StreamDataModule(benchmark, epochs=2, batch_size=32))


def examples(stream):
    data = [experience.tensors() for experience in stream]
    return torch.cat([d.x for d in data]), torch.cat([d.y for d in data]), torch.cat([d.tasks for d in data])


learner.eval()
x, y, t = examples(benchmark.valid_stream)
with torch.no_grad():
    temperature = fit_temperature(learner(x, t), y)
    x, y, t = examples(benchmark.test_stream)
    linearised = prediction_by("linearised")(learner.network, learner, learner.algorithm.posterior, x, t)
    answers = {
        "mean": learner(x, t).softmax(1),
        "temperature": (learner(x, t) / temperature).softmax(1),
        "linearised": linearised.probabilities,
    }
for name, p in answers.items():
    said = measured(answers_of(p, y))
    print(f"{name:<12} accuracy {said['accuracy']:.3f}   NLL {said['nll']:.3f}   ECE {said['ece']:.3f}")
