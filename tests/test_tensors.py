"""Tensors that have grown."""

import pytest
import torch

from bayesdual.tensors import corner, fits, grow, grow_into_

OLD = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def test_the_old_one_stands_in_the_corner():
    grown = grow(OLD, torch.empty(3, 4, dtype=torch.float64), 9.0)
    expected = torch.tensor([[1, 2, 9, 9], [3, 4, 9, 9], [9, 9, 9, 9]], dtype=torch.float64)
    assert grown.dtype == torch.float64 and torch.equal(grown, expected)
    assert torch.equal(grow(None, OLD, 7.0), torch.full((2, 2), 7.0))
    assert torch.equal(corner(grown, OLD.shape), OLD.double())


def test_what_has_not_grown_is_copied():
    copy = grow(OLD, OLD, 9.0)
    assert torch.equal(copy, OLD) and copy.data_ptr() != OLD.data_ptr()


def test_a_corner_is_a_view_with_a_gradient():
    tensor = torch.zeros(3, 4, requires_grad=True)
    corner(tensor, (2, 1)).sum().backward()
    assert tensor.grad.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    corner(tensor.detach(), (1, 1)).fill_(5.0)
    assert tensor[0, 0] == 5


def test_the_order_in_memory_is_that_of_the_new_one():
    like = torch.empty(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert grow(torch.ones(2, 2, 4, 5), like, 0.0).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("new", [(1, 2), (2, 1), (2,), (2, 2, 2)], ids=str)
def test_what_shrinks_is_refused(new):
    tensor = torch.full(new, 3.0)
    assert not fits(OLD.shape, tensor)
    message = rf"shape \(2, 2\) does not fit shape \({new[0]},.*: a parameter can grow, but not shrink"
    for refused in (lambda: corner(tensor, OLD.shape), lambda: grow_into_(tensor, OLD, 0.0)):
        with pytest.raises(ValueError, match=message):
            refused()
    assert bool((tensor == 3).all())
