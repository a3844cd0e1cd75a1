"""Whether a network can tell the classes of a stream apart, seen before anything is learned."""

from __future__ import annotations

from bayesdual.learner.datamodule import StreamDataModule


def check_labels(stream: StreamDataModule, n_logits: int) -> None:
    """Sees that there is something to learn from and to evaluate on in every experience, with labels that can be.

    Args:
        stream: What is learned.
        n_logits: How many classes the network tells apart.

    Raises:
        ValueError: An experience is empty, is evaluated nowhere, or has a label that is not in 0..n_logits - 1.
    """
    about, evaluated = stream.describe(), stream.evaluation_data(stream.evaluate_on)
    for number, (size, classes) in enumerate(zip(about["sizes"], about["classes"], strict=True), start=1):
        name = f"experience {number} of data.benchmark"
        if size == 0:
            raise ValueError(f"{name} has no training examples: leave it out.")
        if min(classes) < 0:
            raise ValueError(f"{name} has the label {min(classes)}: labels are 0, 1, and so on.")
    if len(evaluated) != stream.n_experiences:
        raise ValueError(
            f"data.benchmark has {stream.n_experiences} experiences to learn and {len(evaluated)} in the stream "
            f"{stream.evaluate_on!r}: give as many, to evaluate each."
        )
    for number, data in enumerate(evaluated, start=1):
        name = f"experience {number} of the stream {stream.evaluate_on!r} of data.benchmark"
        if len(data) == 0:
            raise ValueError(f"{name} has no examples: give it some to evaluate on.")
        low, high = int(data.y.min()), int(data.y.max())
        if low < 0 or high >= n_logits:
            raise ValueError(
                f"{name} has the label {low if low < 0 else high}, but model.network tells the classes 0 to "
                f"{n_logits - 1} apart."
            )
