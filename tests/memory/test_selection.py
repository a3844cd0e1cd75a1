"""Selections: what they choose, in which order, and how they stand in for a class."""

import pytest
import torch

from bayesdual.memory import Candidates, selection
from bayesdual.memory.clusters import nearest_to_centres, one_of_each_cluster

ALL = [selection.random_selection, selection.herding, selection.coverage, selection.dual_coverage]
ALL += [selection.score_sampling, selection.top_score]


def candidates(n=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Candidates(
        features=torch.randn(n, 5, generator=generator),
        logits=torch.randn(n, 3, generator=generator),
        scores=torch.rand(n, generator=generator),
    )


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("select", ALL, ids=lambda f: f.__name__)
def test_contract(select):
    """As many as asked for, none twice, positive weights, and the same again with the same seed."""
    rows, weights = select(candidates(), 10, seeded())
    assert len(rows) == len(weights) == len(rows.unique()) == 10
    assert (weights > 0).all() and rows.min() >= 0 and rows.max() < 60
    assert torch.equal(rows, select(candidates(), 10, seeded())[0])
    assert len(select(candidates(4), 10, seeded())[0]) == 4


def test_herding_follows_the_mean_better_than_chance():
    c = candidates(500)
    features = torch.nn.functional.normalize(c.features, dim=1)

    def gap(rows):
        return (features[rows].mean(0) - features.mean(0)).norm()

    ours = gap(selection.herding(c, 20, seeded())[0])
    random = torch.stack([gap(selection.random_selection(c, 20, seeded(s))[0]) for s in range(20)])
    assert ours < random.min()


def test_coverage_takes_one_of_each_cluster():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    noise = 0.1 * torch.randn(400, 2, generator=seeded())
    cluster = torch.arange(400) % 4
    c = Candidates(centres[cluster] + noise, torch.zeros(400, 2), torch.ones(400))
    hits = [len(cluster[selection.coverage(c, 4, seeded(s))[0]].unique()) for s in range(20)]
    chance = [len(cluster[selection.random_selection(c, 4, seeded(s))[0]].unique()) for s in range(20)]
    assert sum(hits) > sum(chance) + 8  # k-means may merge two clusters; four random examples mostly miss one


def test_many_clusters_are_found_in_parts_and_cover_as_well_and_all_are_taken_where_there_is_room():
    x = torch.randn(3000, 4, generator=seeded())
    rows, _ = one_of_each_cluster(x, 800, seeded())
    assert len(rows.unique()) == 800

    def gap(rows):
        return float(torch.cdist(x, x[rows]).min(1).values.square().mean())

    chance = [gap(torch.randperm(3000, generator=seeded(s))[:800]) for s in range(5)]
    assert gap(rows) < 0.95 * min(chance)
    rows, weights = one_of_each_cluster(x[:300], 900, seeded())
    assert sorted(rows.tolist()) == list(range(300)) != rows.tolist() and len(weights) == 300


def test_no_example_is_nearest_to_two_centres():
    x = torch.tensor([[0.0], [1.0], [5.0]])
    centres = torch.tensor([[0.0], [0.0], [0.1]])
    assert nearest_to_centres(x, centres).tolist() == [0, 1, 2]


def test_dual_coverage_has_a_temperature_of_three():
    c = candidates(40)
    source = seeded()
    wanted = one_of_each_cluster(selection.dual_features(c, 3.0, source), 6, source)[0]
    assert torch.equal(selection.dual_coverage(c, 6, seeded())[0], wanted)


def test_dual_features_give_the_curvature_of_the_last_layer():
    """E over projections of <z_i, z_j> is proportional to <sqrt L_i, sqrt L_j> <phi_i, phi_j>."""
    c = candidates(6)
    p = (c.logits / 3).softmax(1)
    root = p.sqrt()[:, :, None] * (torch.eye(3) - p[:, None, :])
    assert torch.allclose(root.transpose(1, 2) @ root, torch.diag_embed(p) - p[:, :, None] * p[:, None, :], atol=1e-6)
    phi = torch.cat([c.features, torch.ones(6, 1)], 1)
    want = (root.flatten(1) @ root.flatten(1).T) * (phi @ phi.T)
    many = [selection.dual_features(c, 3.0, seeded(s)) for s in range(400)]
    got = sum(z @ z.T for z in many) / len(many) / selection.PROJECTIONS * 9
    assert (got - want).norm() / want.norm() < 0.05


def test_top_score_and_score_sampling():
    c = candidates()
    rows, _ = selection.top_score(c, 5, seeded())
    assert torch.equal(rows, c.scores.topk(5).indices)
    estimates = []
    for s in range(300):
        rows, weights = selection.score_sampling(c, 12, seeded(s))
        estimates.append((weights * c.features[rows, 0]).sum() / weights.sum())
    spread = torch.stack(estimates).std() / 300**0.5
    assert abs(torch.stack(estimates).mean() - c.features[:, 0].mean()) < 5 * spread + 0.03


def test_score_sampling_estimates_sums_over_all_without_bias():
    c = candidates()
    sums = []
    for s in range(300):
        rows, weights = selection.score_sampling(c, 12, seeded(s))
        sums.append((weights * c.scores[rows]).sum())  # high scores are drawn more often, and count less
    error = torch.stack(sums).std() / 300**0.5
    assert abs(torch.stack(sums).mean() - c.scores.sum()) < 4 * error < 0.03 * c.scores.sum()


def test_inclusion_probabilities():
    p = selection.inclusion_probabilities(torch.tensor([100.0, 1.0, 1.0, 2.0]), 2)
    assert p.tolist() == pytest.approx([1.0, 0.25, 0.25, 0.5])
    assert selection.inclusion_probabilities(torch.rand(7) + 0.1, 7).tolist() == [1.0] * 7
    rows, weights = selection.score_sampling(candidates(), 60, seeded())
    assert len(rows) == 60 and weights.tolist() == [1.0] * 60
