"""What an Avalanche run leaves: the run directory that the command line leaves, by any strategy.

One evaluation of the whole stream after each experience is a row of the accuracy matrix:

    for experience in benchmark.train_stream:
        strategy.train(experience)
        strategy.eval(benchmark.test_stream)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from avalanche.training.plugins import SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from bayesdual.algorithm import BayesDual
from bayesdual.inspection import Standing, by_experience, leave, pictures_of, save_map, save_pictures
from bayesdual.learner import History
from bayesdual.measures import Evaluation, StreamMetric
from bayesdual.posterior import Posterior
from bayesdual.strategies.plugin import BayesDualPlugin


class StreamReport(SupervisedPlugin):
    """Leaves results, figures and what TensorBoard shows of any strategy, where ``inspect`` reads them.

    Beside a :class:`BayesDualPlugin`, the memory, its map and the posterior, too. It is a plugin like others, beside an
    ``EvaluationPlugin`` or without one::

        BayesDualStrategy(model=model, algorithm=BayesDual(), plugins=[StreamReport("runs/mine")], evaluator=None)

    Of the evaluations after an experience the first counts; those while one is learned do not.

    Args:
        directory: The run directory; made if need be.
        class_names: By label.
        stream: Name of the stream whose evaluation is recorded.

    Raises:
        ValueError: While training: an experience was not evaluated before the next, there are more of them than the
            evaluated stream has, or the likelihood is not of classes by softmax.
    """

    def __init__(self, directory: str | Path, class_names: Sequence[str] | None = None, stream: str = "test") -> None:
        super().__init__()
        self.directory = Path(directory)
        self.class_names = class_names
        self.stream = stream
        self.history = History()
        self._learned = 0
        self._metric: StreamMetric | None = None

    def before_training_exp(self, strategy: SupervisedTemplate, **kwargs: Any) -> None:
        algorithm = _algorithm(strategy)
        if algorithm is not None and not algorithm.likelihood.is_softmax:
            raise ValueError(
                f"StreamReport measures classes by softmax, and the likelihood is {algorithm.likelihood.name}: leave "
                "it out, or learn by python -m bayesdual fit."
            )
        if self._learned > len(self.history.accuracy):
            raise ValueError(
                f"experience {self._learned} was not evaluated: call strategy.eval(benchmark.{self.stream}_stream) "
                "after each strategy.train, for a row of the accuracy matrix."
            )
        self.history.start("total")

    def after_training_exp(self, strategy: SupervisedTemplate, **kwargs: Any) -> None:
        self.history.stop("total")
        self._learned += 1

    def before_eval(self, strategy: SupervisedTemplate, **kwargs: Any) -> None:
        experiences = [e for e in strategy.current_eval_stream if e.origin_stream.name == self.stream]
        if self._learned <= len(self.history.accuracy) or not experiences:
            return
        n = len(experiences[0].origin_stream)
        if self._learned > n:
            raise ValueError(
                f"{self._learned} experiences are learned, and the stream {self.stream} has {n}: StreamReport is for "
                "streams with an evaluation for each experience."
            )
        self._metric = StreamMetric(n, self._learned - 1)
        self.history.start("total")
        self.history.start("evaluation")

    def after_eval_iteration(self, strategy: SupervisedTemplate, **kwargs: Any) -> None:
        experience = cast(Any, strategy.experience)
        if self._metric is not None and experience.origin_stream.name == self.stream:
            probabilities = cast(Tensor, strategy.mb_output).detach().softmax(1).cpu()
            self._metric.update(probabilities, cast(Tensor, strategy.mb_y).cpu(), experience.current_experience)

    def after_eval(self, strategy: SupervisedTemplate, **kwargs: Any) -> None:
        if self._metric is None:
            return
        evaluation, self._metric = self._metric.compute(), None
        self.history.stop("evaluation")
        self.history.stop("total")
        self.history.record(evaluation)
        self.history.drift = [found for p in strategy.plugins if isinstance(p, BayesDualPlugin) for found in p.drift]
        self._leave(strategy, evaluation)

    def _leave(self, strategy: SupervisedTemplate, evaluation: Evaluation) -> None:
        algorithm = _algorithm(strategy)
        standing = Standing(self.history, algorithm, evaluation, self.class_names, self._learned, self.stream)
        self.directory.mkdir(parents=True, exist_ok=True)
        posterior = Posterior.of(strategy.model, strategy.optimizer)
        leave(self.directory, standing, (algorithm.posterior if algorithm else None) or posterior)
        save_map(self.directory, standing)
        with SummaryWriter(str(self.directory)) as writer:
            for name, value in by_experience(standing).items():
                writer.add_scalar(f"by_experience/{name}", value, self._learned)
            pictures = pictures_of(standing)
            for tag, pixels in pictures.items():
                writer.add_image(tag, pixels, self._learned, dataformats="HWC")
        save_pictures(self.directory, pictures)


def _algorithm(strategy: SupervisedTemplate) -> BayesDual | None:
    """That of a plugin of ours, if there is one."""
    return next((p.algorithm for p in strategy.plugins if isinstance(p, BayesDualPlugin)), None)
