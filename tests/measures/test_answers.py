"""All measures of one pass: they are those of the single functions, of each group of examples."""

import pytest
import torch

from bayesdual.measures import (
    StreamMetric,
    adaptive_ece,
    answers_of,
    aurc,
    brier,
    ece,
    measured,
    ood_auroc,
    ood_fpr,
    split_entropy,
    told_apart,
)


def drawn(n=300, samples=4, seed=0):
    """Probabilities by samples of the weights, their mean, and labels."""
    generator = torch.Generator().manual_seed(seed)
    p = (2 * torch.randn(samples, n, 5, generator=generator)).softmax(2)
    return p, p.mean(0), torch.multinomial(p[0], 1, generator=generator)[:, 0]


def test_they_are_those_of_the_single_functions():
    samples, p, y = drawn()
    entropy = split_entropy(samples)
    result = measured(answers_of(p, y, entropy.epistemic))
    expected = {
        "accuracy": float((p.argmax(1) == y).double().mean()),
        "nll": float(torch.nn.functional.nll_loss(p.log(), y)),
        "ece": ece(p, y),
        "adaptive_ece": adaptive_ece(p, y),
        "brier": brier(p, y),
        "aurc": aurc(p, y),
        "entropy": float(entropy.total.mean()),
        "aleatoric": float(entropy.aleatoric.mean()),
        "epistemic": float(entropy.epistemic.mean()),
    }
    assert result == pytest.approx(expected, rel=1e-5)
    assert measured(answers_of(p, y)).keys() == expected.keys() - {"aleatoric", "epistemic"}


def test_what_is_unfamiliar_is_told_by_each_score():
    (of_known, p, y), (of_other, q, z) = drawn(seed=0), drawn(seed=1)
    q = (q + 0.2) / 2  # less sure
    known, other = (split_entropy(s) for s in (of_known, of_other))
    apart = told_apart(answers_of(p, y, known.epistemic), answers_of(q, z, other.epistemic))
    scores = {"max_probability": (1 - p.max(1).values, 1 - q.max(1).values)}
    scores["entropy"] = tuple(torch.special.entr(part).sum(1) for part in (p, q))
    scores["epistemic"] = known.epistemic, other.epistemic
    for name, both in scores.items():
        assert apart[f"auroc_{name}"] == pytest.approx(ood_auroc(*both), abs=1e-4)
        assert apart[f"fpr95_{name}"] == pytest.approx(ood_fpr(*both), abs=0.01)
    assert not any("epistemic" in name for name in told_apart(answers_of(p, y), answers_of(q, z)))


def test_old_new_and_unseen_experiences_and_other_data_are_each_for_themselves():
    _, p, y = drawn(n=500)
    metric = StreamMetric(4, learned=1)
    for experience in range(5):  # the last is data of another kind, whose labels are none
        part = slice(100 * experience, 100 * experience + 100)
        metric.update(p[part], y[part] if experience < 4 else y[part] + 1000, experience)
    result = metric.compute()
    whole = answers_of(p, y)
    rows = torch.arange(500)
    groups = {"old": rows < 100, "new": (rows >= 100) & (rows < 200), "unseen": (rows >= 200) & (rows < 400)}
    assert result["groups"].keys() == groups.keys() | {"ood"}
    of_ood = measured(whole.where(rows >= 400))
    assert result["groups"]["ood"] == {"entropy": pytest.approx(of_ood["entropy"])}, "labels mean nothing there"
    for name, mask in groups.items():
        assert result["groups"][name] == pytest.approx(measured(whole.where(mask)))
    assert result["measures"] == pytest.approx(measured(whole.where(rows < 400)))
    for name, mask in {"unseen": groups["unseen"], "ood": rows >= 400}.items():
        assert result["told_apart"][name] == pytest.approx(told_apart(whole.where(rows < 200), whole.where(mask)))


def test_before_and_after_a_stream_there_is_no_such_group():
    _, p, y = drawn(n=20)
    for learned, groups, apart in (
        (-1, {"unseen"}, set()),
        (0, {"new", "unseen"}, {"unseen"}),
        (1, {"old", "new"}, set()),
    ):
        metric = StreamMetric(2, learned)
        metric.update(p[:10], y[:10], 0)
        metric.update(p[10:], y[10:], 1)
        result = metric.compute()
        assert result["groups"].keys() == groups and result["told_apart"].keys() == apart


def test_a_rank_without_a_batch_is_joined():
    _, p, y = drawn(n=20)
    metric, idle = StreamMetric(1), StreamMetric(1)
    metric.update(p, y, 0)
    (alone,) = idle.rows
    assert alone.dtype == metric.rows[-1].dtype and alone.shape == (0, metric.rows[-1].shape[1])
    metric.rows.append(alone)
    assert metric.compute()["measures"] == pytest.approx(measured(answers_of(p, y)))
