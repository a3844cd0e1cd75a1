"""What the page says of one run: an answer to each question."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from bayesdual.inspection.figures import name_of
from bayesdual.inspection.memory_figures import is_images
from bayesdual.inspection.page import folded, paragraph, table
from bayesdual.inspection.runs import Run
from bayesdual.inspection.verdict import verdict

if TYPE_CHECKING:
    from torch import Tensor

INPUT_VALUES = 8  # that are shown of an input


class Drawn(NamedTuple):
    """A run, and how its figures are put on a page."""

    run: Run
    show: Callable[[str, str], str]  # a figure's name and its caption; nothing where there is no such figure


def accuracy(one: Drawn) -> str:
    return one.show("accuracy_matrix", "Accuracy on each experience (columns) after each (rows).")


def forgotten(one: Drawn) -> str:
    text = verdict(one.run.results["accuracy_matrix"])
    return (
        paragraph(f"{text[0].upper()}{text[1:]}.")
        + one.show("accuracy_over_time", "Accuracy on each experience once it is learned, and their mean.")
        + one.show("accuracy_lost", "Accuracy on each experience that is gone since it was best.")
    )


def remembered(one: Drawn) -> str:
    memory = one.run.memory
    if memory is None or memory.exemplars is None:
        return paragraph("No example is kept.")
    z, names = memory.exemplars, one.run.results.get("class_names")
    of_class = {c: z[z.y == c] for c in z.y.unique().tolist()}
    text = paragraph(
        f"{len(z)} exemplars of {len(of_class)} classes stand for {memory.examples_seen:,} examples seen. The "
        "score of one is its leverage: how far it moves what the network says of it, so how much that relies on it."
    )
    text += one.show(
        "memory", "The first exemplars of each class; above each how many examples it stands for, and its score."
    )
    if one.run.maps:
        text += _mapped(one, max(one.run.maps))
    rows = [
        [name_of(c, names), str(len(of)), f"{float(of.weights.sum()):,.0f}", f"{float(of.scores.mean()):.3g}"]
        for c, of in of_class.items()
    ]
    return text + folded("By class", table(["class", "exemplars", "stand for", "mean score"], rows))


def _mapped(one: Drawn, k: int) -> str:
    """Where the examples of an experience stand to the memory."""
    last, names = one.run.maps[k], one.run.results.get("class_names")
    caption = (
        f"The memory map: how wrong the network is about each example of an experience (the last is {k}), and how far "
    )
    caption += "each moves what is said of it, once it is learned."
    text = one.show("memory_map", caption)
    text += one.show("memory_extremes", f"The extremes of experience {k}.")
    rows = [
        [
            name_of(int(last.y[i]), names),
            *(f"{float(value):.3g}" for value in (last.residuals[i], last.leverages[i])),
            "yes" if last.kept[i] else "no",
            str(int(last.index[i])),
            *([] if is_images(last.x) else [_in_words(x)]),
        ]
        for i, x in zip(last.extremes.tolist(), last.x, strict=True)
    ]
    columns = ["class", "residual", "leverage", "kept", "place", *([] if is_images(last.x) else ["input"])]
    text += folded("The extremes as a table", table(columns, rows))
    caption = f"Exemplars of each class that came into the memory, and that went, after experience {k}."
    return text + one.show("memory_changes", caption)


def _in_words(x: Tensor) -> str:
    """An input that is no image, its first values."""
    values = x.flatten()[:INPUT_VALUES].tolist()
    more = f", ... ({x.numel()})" if x.numel() > INPUT_VALUES else ""
    return ", ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in values) + more


def sure(one: Drawn) -> str:
    results, posterior = one.run.results, one.run.posterior
    marks = "" if posterior is None or posterior.knows_data else " The data have left no mark on it."
    return (
        paragraph(f"NLL {results['nll']:.4f} nats an example, ECE {results['ece']:.4f}, over all of the stream.")
        + one.show("certainty", "How sure, and how rightly, of experiences that are old, new and unseen, after each.")
        + one.show("posterior", f"The posterior: standard deviations by parameter, middle half.{marks}")
    )


def cost(one: Drawn) -> str:
    results = one.run.results
    total = sum((results.get("memory_bytes") or {}).values())
    return one.show("seconds", f"Seconds, {results['seconds_total']:.1f} in all.") + one.show(
        "bytes", f"Bytes carried to the next experience, {total:,} in all."
    )
