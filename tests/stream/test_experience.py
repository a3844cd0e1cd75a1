"""What a learner is given: inputs as networks take them."""

import pytest
import torch

from bayesdual.stream import normalise


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4), (2, 3)])
def test_images_are_normalised_channel_by_channel_whatever_their_shape(shape):
    x = torch.full(shape, 51, dtype=torch.uint8)
    y = normalise(x, (0.1, 0.2, 0.7), (1.0, 2.0, 5.0))
    assert y.dtype == torch.float32 and y.shape == x.shape
    for channel, value in enumerate((0.1, 0.0, -0.1)):
        assert torch.allclose(y[:, channel], torch.tensor(value), atol=1e-7)
    assert (x == 51).all()  # it was a copy


def test_what_is_used_as_it_is_stays_as_it_is():
    x = torch.full((2, 1, 3), 7, dtype=torch.uint8)
    assert normalise(x, (), ()) is x  # tokens, say
    assert normalise(x.float(), (0.5,), (0.5,)).tolist() == x.tolist()  # normalised by the stream
