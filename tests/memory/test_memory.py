"""The memory: fair shares, weights that stand for the past, draws and files."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from bayesdual.memory import (
    IMPOSSIBLE,
    Condensed,
    Condenser,
    Exemplars,
    Memory,
    candidate_rows,
    concatenate,
    fair_shares,
    quotas,
)


def exemplars(y, experience=0, width=4, weights=None):
    y = torch.as_tensor(y)
    n = len(y)
    return Exemplars(
        x=torch.arange(n, dtype=torch.uint8)[:, None],
        y=y,
        tasks=torch.zeros_like(y),
        logits=torch.randn(n, width),
        weights=torch.ones(n) if weights is None else torch.tensor(weights),
        scores=torch.rand(n),
        experience=torch.full_like(y, experience),
        index=torch.arange(n) + 100,
    )


def learn(memory, y, experience):
    """Fills the memory as an experience with labels ``y`` would, keeping the first of each class."""
    y = torch.as_tensor(y)
    plan = memory.plan(y, experience)
    rows = torch.cat([torch.nonzero(y == c).squeeze(1)[:n] for c, n in plan.room.items()])
    memory.take_in(plan, exemplars(y[rows], experience))


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(0, 100))
def test_fair_shares_use_the_budget_and_differ_by_at_most_one(available, budget):
    shares = fair_shares(available, budget)
    assert sum(shares) == min(budget, sum(available))
    assert all(s <= a for s, a in zip(shares, available, strict=True))
    unfilled = [s for s, a in zip(shares, available, strict=True) if s < a]
    assert not unfilled or max(shares) - min(unfilled) <= 1


def test_classes_share_first_and_then_their_experiences():
    result = quotas({(0, 0): 50, (0, 1): 50, (1, 1): 100}, 10)
    assert result == {(0, 0): 3, (0, 1): 2, (1, 1): 5}


def test_what_a_class_cannot_fill_goes_to_the_others():
    assert quotas({(0, 0): 50, (1, 0): 1, (1, 1): 1, (2, 1): 50}, 12) == {(0, 0): 5, (1, 0): 1, (1, 1): 1, (2, 1): 5}


def test_a_small_share_is_not_always_the_first_experience_s():
    result = quotas({(c, e): 9 for c in range(4) for e in range(2)}, 4)
    assert sum(result[c, 0] for c in range(4)) == sum(result[c, 1] for c in range(4)) == 2


def test_budget_is_kept_and_balanced_over_classes_and_weights_sum_to_the_past():
    memory = Memory(10)
    learn(memory, [0] * 30 + [1] * 10, 0)
    assert len(memory) == 10
    learn(memory, [2] * 60, 1)
    learn(memory, [3] * 2, 2)  # a class with fewer examples than its share
    kept = memory.exemplars
    assert len(kept) == 10
    assert [int((kept.y == c).sum()) for c in range(4)] == [3, 3, 2, 2]
    for c, n in enumerate([30, 10, 60, 2]):
        assert kept.weights[kept.y == c].sum() == pytest.approx(n)
    assert memory.examples_seen == 102


@pytest.mark.parametrize("budget", [10, 35])
def test_classes_that_come_again_and_again_keep_their_places_and_all_experiences_have_a_chance(budget):
    memory, entered = Memory(budget), 0
    for experience in range(30):
        learn(memory, list(range(10)) * 5, experience)
        kept = memory.exemplars
        assert len(memory) == min(budget, 50 * (experience + 1))
        assert set(kept.y.tolist()) == set(range(10))
        entered += int((kept.experience == experience).any()) if experience >= 10 else 0
        for c in range(10):  # each class was seen as often
            assert kept.weights[kept.y == c].sum() == pytest.approx(5 * (experience + 1))
    assert entered > 6  # of 20; of 10 places one is for about every third experience
    assert 9 < kept.experience.float().mean() < 20  # neither the old nor the new


def test_kept_experiences_of_a_class_stand_for_those_that_are_not():
    memory = Memory(2)
    learn(memory, [0] * 1000 + [1] * 1000, 0)
    learn(memory, [0] * 10 + [1] * 10, 1)
    assert memory.exemplars.weights.tolist() == [1010, 1010]


def test_trimming_drops_the_least_important():
    memory = Memory(4)
    learn(memory, [0] * 8, 0)
    first = memory.exemplars.index.tolist()
    learn(memory, [1] * 8, 1)
    assert memory.exemplars.index[memory.exemplars.y == 0].tolist() == first[:2]


def test_relative_weights_survive_trimming():
    memory = Memory(2)
    y = torch.zeros(30, dtype=torch.int64)
    memory.take_in(memory.plan(y, 0), exemplars([0, 0], weights=[2.0, 1.0]))
    assert memory.exemplars.weights.tolist() == pytest.approx([20.0, 10.0])


def test_a_budget_below_the_number_of_classes_is_refused_in_a_sentence():
    memory = Memory(2)
    with pytest.raises(ValueError, match="memory_size is 2 but 3 classes"):
        memory.plan(torch.tensor([0, 1, 2]), 0)


def test_a_plan_is_worked_out_once_for_all_that_follow_it():
    memory = Memory(8)
    learn(memory, [0] * 30 + [1] * 10, 0)
    plan = memory.plan(torch.tensor([1] * 20 + [2] * 5), 1)
    assert plan.counts == {(0, 0): 30, (1, 0): 10, (1, 1): 20, (2, 1): 5}
    assert plan.shares == {(0, 0): 3, (1, 0): plan.shares[1, 0], (1, 1): 3 - plan.shares[1, 0], (2, 1): 2}
    assert plan.room == {1: plan.shares[1, 1], 2: 2}
    assert plan.staying(0, 0) == 3 and plan.staying(1, 0) == plan.shares[1, 0] and plan.staying(1, 1) == 0
    assert memory.counts == {(0, 0): 30, (1, 0): 10} and len(memory) == 8  # nothing is taken in yet


def test_of_pieces_of_one_experience_as_many_stay_as_the_newest_leaves_places():
    memory, generator = Memory(6), torch.Generator().manual_seed(0)
    learn(memory, [0] * 20, 0)
    plan = memory.plan(torch.tensor([0] * 20), 0, generator)
    assert 0 < plan.room[0] < 6 and plan.staying(0, 0) == 6 - plan.room[0]


def test_exemplars_without_a_place_are_merged_into_those_that_stay():
    def into_the_first(x, weights, n):
        return Condensed(x[:n], torch.cat([weights[:n].clone()[:-1], weights[n - 1 :].sum()[None]]))

    memory, generator = Memory(6), torch.Generator().manual_seed(0)
    learn(memory, [0] * 20, 0)
    plan = memory.plan(torch.tensor([0] * 20), 0, generator)
    kept, staying = memory.exemplars, plan.staying(0, 0)
    memory.make_room(plan, Condenser(lambda module, dtype: into_the_first, nn.Identity(), None, generator))
    assert len(memory) == staying and torch.equal(memory.exemplars.x, kept.x[:staying])
    assert float(memory.exemplars.weights.sum()) == pytest.approx(20)
    before = memory.exemplars
    memory.make_room(plan, Condenser(None, nn.Identity(), None, generator))  # exemplars stay as they are
    assert memory.exemplars is before


def test_pieces_of_one_experience_count_the_same_whatever_scale_their_weights_have():
    memory, generator = Memory(40), torch.Generator().manual_seed(0)
    for weight in (1.0, 1000.0):
        plan = memory.plan(torch.tensor([0] * 10), 0, generator)
        memory.take_in(plan, exemplars([0] * 10, weights=[weight] * 10), generator)
    assert memory.exemplars.weights.tolist() == pytest.approx([1.0] * 20)


def test_candidates_are_all_examples_of_a_class_or_a_random_part():
    y = torch.arange(3).repeat_interleave(50)
    rows = candidate_rows(y, {0: 3, 1: 0, 2: 30}, 20, torch.Generator().manual_seed(0))
    first, last = rows[:20], rows[20:]
    assert (y[first] == 0).all() and len(first.unique()) == 20 and torch.equal(first, first.sort().values)
    assert first.max() > 30  # not the first ones
    assert (y[last] == 2).all() and len(last.unique()) == 30  # at least as many as there is room for
    assert torch.equal(candidate_rows(y, {1: 1}, 50, torch.Generator()), torch.arange(50, 100))


def test_draws_from_a_memory_smaller_than_the_batch_use_all_of_it_equally():
    memory = Memory(3)
    learn(memory, [0, 1, 2], 0)
    drawn = memory.draw(7, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn.y, minlength=3)
    assert len(drawn) == 7 and counts.min() == 2 and counts.max() == 3


def test_exemplars_are_drawn_as_often_as_they_stand_for_examples_and_so_are_classes():
    memory, generator = Memory(6), torch.Generator().manual_seed(0)
    weights = torch.tensor([1.0, 9.0, 20.0, 7.0, 11.0, 12.0])  # one is drawn at every 5
    new = replace(exemplars([0, 0, 0, 1, 1, 1], weights=weights.tolist()), scores=torch.arange(6.0))
    memory.take_in(memory.plan(torch.tensor([0] * 30 + [1] * 30), 0), new)
    for _ in range(20):
        drawn = memory.draw(12, generator)
        assert torch.bincount(drawn.y).tolist() == [6, 6]
        counts = torch.bincount(drawn.scores.long(), minlength=6)
        assert ((counts - weights / 5).abs() <= 1).all() and (drawn.weights == 1).all()
    orders = {tuple(memory.draw(12, generator).scores.tolist()) for _ in range(20)}
    assert len(orders) == 20


def test_drawing_from_nothing_is_refused():
    with pytest.raises(ValueError, match="empty"):
        Memory(3).draw(1, torch.Generator())


def test_soft_labels_of_a_grown_head_are_padded_with_impossible_classes():
    joined = concatenate([exemplars([0], width=2), exemplars([3], width=4)])
    assert joined.logits.shape == (2, 4)
    assert joined.logits[0, 2:].tolist() == [IMPOSSIBLE] * 2
    assert joined.logits[0].softmax(0)[2:].sum() == 0


def test_files_and_states_give_the_memory_back(tmp_path):
    memory = Memory(5)
    learn(memory, [0] * 4 + [1] * 4, 0)
    memory.save(tmp_path / "m.safetensors")
    for other in (Memory.load(tmp_path / "m.safetensors"), Memory(5)):
        if other.exemplars is None:
            other.load_state_dict(memory.state_dict())
        assert other.counts == memory.counts and other.budget == 5
        for name, tensor in memory.exemplars.tensors().items():
            assert torch.equal(tensor, getattr(other.exemplars, name)), name
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def old_state():
    """A memory as versions before 0.2 saved it: task labels are called ``t``, and there is no spread beside it."""
    tensors = exemplars([0, 1]).tensors()
    tensors["t"] = tensors.pop("tasks") + 3
    return {"budget": 5, "counts": [[0, 0, 7], [1, 0, 9]], "exemplars": tensors}


def test_states_and_files_of_before_are_read(tmp_path):
    state = old_state()
    header = {"format": "bayesdual-memory-1", "memory": json.dumps({k: state[k] for k in ("budget", "counts")})}
    save_file(state["exemplars"], tmp_path / "old.safetensors", header)
    memory = Memory(5)
    memory.load_state_dict(state)
    for old in (memory, Memory.load(tmp_path / "old.safetensors")):
        assert old.exemplars.tasks.tolist() == [3, 3] and old.exemplars.index.tolist() == [100, 101]
        assert old.counts == {(0, 0): 7, (1, 0): 9} and not old.spread


def test_states_and_files_with_other_tensors_are_refused_and_change_nothing(tmp_path):
    state, memory = old_state(), Memory(5)
    learn(memory, [2] * 4, 0)
    del state["exemplars"]["scores"]
    with pytest.raises(ValueError, match="the saved memory lacks a tensor 'scores'"):
        memory.load_state_dict(state)
    assert memory.counts == {(2, 0): 4} and len(memory) == 4
    header = {"format": "bayesdual-memory-1", "memory": json.dumps({k: state[k] for k in ("budget", "counts")})}
    save_file(state["exemplars"], tmp_path / "old.safetensors", header)
    with pytest.raises(ValueError, match="old.safetensors: the saved memory lacks a tensor 'scores'"):
        Memory.load(tmp_path / "old.safetensors")


def test_other_files_and_other_budgets_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"not a memory")
    with pytest.raises(ValueError, match="not a memory file"):
        Memory.load(path)
    with pytest.raises(ValueError, match="memory_size"):
        Memory(3).load_state_dict(Memory(4).state_dict())


def test_an_empty_memory_goes_through_a_file(tmp_path):
    Memory(5).save(tmp_path / "m.safetensors")
    assert len(Memory.load(tmp_path / "m.safetensors")) == 0
