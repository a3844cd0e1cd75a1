"""What the page says of one run: an answer to each question."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from bayesdual.inspection.figures import name_of
from bayesdual.inspection.memory_figures import is_images, label_of
from bayesdual.inspection.page import capital, folded, paragraph, table
from bayesdual.inspection.runs import Run
from bayesdual.inspection.tables import score_of
from bayesdual.inspection.verdict import classes_lost, verdict

if TYPE_CHECKING:
    from torch import Tensor

    from bayesdual.memory import Exemplars

LISTED = 30  # exemplars that are no images
INPUT_VALUES = 8  # that are shown of an input


class Drawn(NamedTuple):
    """A run, and how its figures are put on a page."""

    run: Run
    show: Callable[[str, str], str]  # a figure's name and its caption; nothing where there is no such figure


def accuracy(one: Drawn) -> str:
    score = score_of(one.run.results)
    return (
        one.show(f"{score.key}_matrix", f"{capital(score.name)} on each experience (columns) after each (rows).")
        + one.show("accuracy_of_classes", "Accuracy of each class at the end, the worst first.")
        + one.show("confusion", "What each class (rows) is taken for (columns), as shares of its examples.")
    )


def forgotten(one: Drawn) -> str:
    score = score_of(one.run.results)
    key, name = score.key, capital(score.name)
    most = classes_lost(one.run.results.get("accuracy_of_classes") or [], one.run.results.get("class_names"))
    return (
        paragraph(f"{capital(verdict(one.run.matrix, score, most))}.")
        + one.show(f"{key}_over_time", f"{name} on each experience once it is learned, and their mean.")
        + one.show(f"{key}_lost", f"{name} on each experience, how much worse than it was at its best.")
        + one.show("stability_gap", "Accuracy on the experiences learned before, while the next is learned.")
    )


def remembered(one: Drawn) -> str:
    memory = one.run.memory
    if memory is None or memory.exemplars is None:
        return paragraph("No example is kept.")
    z, names = memory.exemplars, one.run.results.get("class_names")
    of_class = {} if z.y.is_floating_point() else {c: z[z.y == c] for c in z.y.unique().tolist()}
    classes = f" of {len(of_class)} classes" if of_class else ""
    text = paragraph(
        f"{len(z)} exemplars{classes} stand for {memory.examples_seen:,} examples seen. The "
        "score of one is its leverage: how far it moves what the network says of it, so how much that relies on it."
    )
    caption = "The first exemplars of each class; above each how many examples it stands for, and its score."
    text += one.show("memory", caption)
    if not is_images(z.x):
        text += _listed(one.run, z)
    if one.run.maps:
        text += _mapped(one, max(one.run.maps))
    rows = [
        [name_of(c, names), str(len(of)), f"{float(of.weights.sum()):,.0f}", f"{float(of.scores.mean()):.3g}"]
        for c, of in of_class.items()
    ]
    return text + folded("By class", table(["class", "exemplars", "stand for", "mean score"], rows)) if rows else text


def _mapped(one: Drawn, k: int) -> str:
    """Where the examples of an experience stand to the memory."""
    last, names, words = one.run.maps[k], one.run.results.get("class_names"), words_of(one.run)
    caption = (
        f"The memory map: how wrong the network is about each example of an experience (the last is {k}), and how far "
    )
    caption += "each moves what is said of it, once it is learned."
    text = one.show("memory_map", caption)
    text += one.show("memory_extremes", f"The extremes of experience {k}.")
    rows = [
        [
            label_of(last.y[i], names),
            *(f"{float(value):.3g}" for value in (last.residuals[i], last.leverages[i])),
            "yes" if last.kept[i] else "no",
            str(int(last.index[i])),
            *([] if is_images(last.x) else [_in_words(x, words)]),
        ]
        for i, x in zip(last.extremes.tolist(), last.x, strict=True)
    ]
    kind = "target" if last.y.is_floating_point() else "class"
    columns = [kind, "residual", "leverage", "kept", "place", *([] if is_images(last.x) else ["input"])]
    text += folded("The extremes as a table", table(columns, rows))
    caption = f"Exemplars of each class that came into the memory, and that went, after experience {k}."
    return text + one.show("memory_changes", caption)


def _listed(run: Run, z: Exemplars) -> str:
    """Exemplars that are no images, those of the highest scores."""
    names, words = run.results.get("class_names"), words_of(run)
    order = z.scores.argsort(descending=True, stable=True)[:LISTED].tolist()
    rows = [
        [label_of(z.y[i], names), f"{float(z.weights[i]):,.0f}", f"{float(z.scores[i]):.3g}", _in_words(z.x[i], words)]
        for i in order
    ]
    of = "" if len(rows) == len(z) else f", the {len(rows)} of the highest scores"
    kind = "target" if z.y.is_floating_point() else "class"
    return folded(f"The exemplars as a table{of}", table([kind, "stands for", "score", "input"], rows))


def words_of(run: Run) -> Callable[[Tensor], str] | None:
    """What makes text of token ids; None where the run's network has no tokenizer, or it cannot be had."""
    folder = run.settings.get("model.network.init_args.folder")
    if folder is None:
        return None
    try:
        from bayesdual.lora import read_tokenizer

        tokenizer = read_tokenizer(folder)
    except (ImportError, ValueError):  # the extra is not installed here, or the folder is elsewhere
        return None
    return lambda ids: tokenizer.decode(ids.tolist(), skip_special_tokens=True)


def _in_words(x: Tensor, words: Callable[[Tensor], str] | None) -> str:
    """An input that is no image: the text that it stands for, or its first values."""
    if words is not None and not x.is_floating_point():
        return words(x.flatten())
    values = x.flatten()[:INPUT_VALUES].tolist()
    more = f", ... ({x.numel()})" if x.numel() > INPUT_VALUES else ""
    return ", ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in values) + more


def sure(one: Drawn) -> str:
    results, posterior = one.run.results, one.run.posterior
    marks = "" if posterior is None or posterior.knows_data else " The data have left no mark on it."
    ece = f", ECE {results['ece']:.4f}" if "ece" in results else ""
    return (
        paragraph(f"NLL {results['nll']:.4f} nats an example{ece}, over all of the stream.")
        + one.show("certainty", "How sure, and how rightly, of experiences that are old, new and unseen, after each.")
        + one.show("reliability", "How often answers are right against how sure they are; larger dots: more answers.")
        + one.show("posterior", f"The posterior: standard deviations by parameter, middle half.{marks}")
    )


def cost(one: Drawn) -> str:
    results = one.run.results
    total = sum((results.get("memory_bytes") or {}).values())
    return one.show("seconds", f"Seconds, {results['seconds_total']:.1f} in all.") + one.show(
        "bytes", f"Bytes carried to the next experience, {total:,} in all."
    )
