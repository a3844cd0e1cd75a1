"""Coded images: small, true to what a class is on the average, and refused where they are damaged."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesdual.memory.codec import CosineCodec, coefficients, cosines, pixels


def images(n=60, shape=(1, 12, 10), seed=0):
    """Smooth images of three classes: low frequencies around a mean, and a little noise."""
    generator = torch.Generator().manual_seed(seed)
    c = torch.zeros(n, *shape)
    c[..., :4, :4] = 60 * torch.randn(n, shape[0], 4, 4, generator=generator)
    y = torch.arange(n) % 3
    x = pixels(c) + 120 + 20 * y.view(-1, 1, 1, 1) + 4 * torch.randn(n, *shape, generator=generator)
    return x.round().clamp(0, 255).to(torch.uint8), y, torch.rand(n, generator=generator) + 0.1


def test_the_transform_is_orthonormal_and_starts_with_the_mean():
    d = cosines(9)
    torch.testing.assert_close(d @ d.T, torch.eye(9), atol=1e-6, rtol=0)
    torch.testing.assert_close(d[0], torch.full((9,), 1 / 3))
    x = torch.randn(2, 3, 5, 9)
    torch.testing.assert_close(pixels(coefficients(x)), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(1, 12, 10), (3, 8, 8)])
def test_a_fine_step_gives_the_images_back_and_a_coarse_one_few_bytes(shape):
    x, y, w = images(shape=shape)
    fine, coarse = CosineCodec(1.0).encode(x, y, w), CosineCodec(40.0).encode(x, y, w)
    back = CosineCodec.decode(fine, y)
    assert back.dtype == torch.uint8 and back.shape == x.shape
    assert (back.int() - x.int()).abs().max() <= 3
    error = (CosineCodec.decode(coarse, y).float() - x.float()).square().mean().sqrt()
    assert len(coarse) < len(fine) / 2 and len(coarse) < x.numel() / 4 and error < 12


def test_the_mean_of_each_class_is_kept_by_weight():
    x, y, w = images(240)
    w = w**3  # far from equal
    back = CosineCodec.decode(CosineCodec(80.0).encode(x, y, w), y)
    assert (back.float() - x.float()).abs().mean() > 4  # single images are not
    for k in range(3):
        share = (w * (y == k) / w[y == k].sum()).view(-1, 1, 1, 1)
        assert ((back.float() - x.float()) * share).sum(0).square().mean().sqrt() < 1.5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from([0.5, 3.0, 30.0, 500.0]))
def test_any_image_comes_back_within_a_step(seed, n, step):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, 2, 4, 3), generator=generator).to(torch.uint8)
    y = torch.randint(0, 3, (n,), generator=generator)
    back = CosineCodec.decode(CosineCodec(step).encode(x, y, torch.ones(n)), y)
    # each of 12 coefficients is off by less than step / 2 + dead zone, and by the rounding of the class's mean
    assert (back.float() - x.float()).square().sum((2, 3)).max() < 12 * (0.65 * step + 8 + 2) ** 2


def test_damage_and_other_inputs_are_refused():
    x, y, w = images()
    code = CosineCodec(20.0).encode(x, y, w)
    for bad in (b"", code[:-1], code[:40], code[:50] + bytes([code[50] ^ 1]) + code[51:]):
        with pytest.raises(ValueError, match="damaged"):
            CosineCodec.decode(bad, y)
    with pytest.raises(ValueError, match="damaged"):
        CosineCodec.decode(code, y[1:])
    with pytest.raises(ValueError, match="no images in uint8"):
        CosineCodec(20.0).encode(x.float(), y, w)
    with pytest.raises(ValueError, match="positive"):
        CosineCodec(0)
