"""Vectors in few bits: how exact they are, that coding them again loses nothing more, and damage."""

import pytest
import torch

from bayesdual.memory import bytes_of_vectors, decode_vectors, encode_vectors


def vectors(n=40, d=67):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 9, n)[:, None]


@pytest.mark.parametrize(("bits", "error"), [(1, 0.4), (2, 0.13), (4, 0.015), (8, 1e-4)])
def test_more_bits_lose_less_and_what_is_coded_again_loses_nothing(bits, error):
    x = vectors()
    code = encode_vectors(x, bits)
    back = decode_vectors(code)
    assert len(code) == bytes_of_vectors((40, 67), bits) < 40 * (67 * bits / 8 + 3) + 14
    relative = (back - x).square().sum(1) / x.square().sum(1)
    assert 0 < relative.max() < 1.5 * error and relative.mean() < error
    assert torch.equal(decode_vectors(encode_vectors(back, bits)), back)


def test_few_large_numbers_are_cut_short_for_the_many_small_ones(monkeypatch):
    x = torch.randn(1, 4000, generator=torch.Generator().manual_seed(1))
    cut = (decode_vectors(encode_vectors(x)) - x).square().mean()
    monkeypatch.setattr("bayesdual.memory.levels.SHARES", (1.0,))
    assert cut < 0.7 * (decode_vectors(encode_vectors(x)) - x).square().mean()


def test_vectors_of_zeros_and_no_vectors_come_back():
    assert decode_vectors(encode_vectors(torch.zeros(2, 70))).abs().max() == 0
    assert decode_vectors(encode_vectors(torch.zeros(0, 70))).shape == (0, 70)


def test_damage_is_noticed():
    code = bytearray(encode_vectors(vectors()))
    for wrong in (code[:5], code[:-1], bytes([3]) + code[1:], code[:20] + bytes([code[20] ^ 1]) + code[21:]):
        with pytest.raises(ValueError, match="coded vectors of a memory are damaged"):
            decode_vectors(bytes(wrong))
    with pytest.raises(ValueError, match="bits is 3: give 1, 2, 4 or 8"):
        encode_vectors(vectors(), 3)
