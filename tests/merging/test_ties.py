import pytest
import torch

from bayesdual.merging import merge, streaming
from bayesdual.merging.ties import kth_magnitude


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kth_magnitude_is_that_of_the_whole(dtype):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3000, generator=g, dtype=dtype) * 10.0 ** torch.randint(-40, 30, (3000,), generator=g)
    x[:700] = 0.0
    x[700:1400] = x[1400]  # many alike
    x[5] = -0.0
    for k in (1, 699, 700, 701, 1400, 2000, 2999, 3000):
        assert kth_magnitude(lambda: iter(x.split(64)), k) == float(x.abs().kthvalue(k).values), k


def test_a_parameter_in_parts_is_merged_as_in_one(monkeypatch):
    g = torch.Generator().manual_seed(1)
    base, *models = ({"w": torch.randn(30, 40, generator=g)} for _ in range(4))
    whole = merge(base, models, method="ties", density=0.3)["w"]
    monkeypatch.setattr(streaming, "PART", 64)
    assert torch.equal(merge(base, models, method="ties", density=0.3)["w"], whole)
    kept = [(m["w"] - base["w"]).abs().flatten().topk(360).values.min() for m in models]
    reached = torch.stack([((m["w"] - base["w"]).abs() >= limit) for m, limit in zip(models, kept, strict=True)]).any(0)
    assert torch.equal(whole != base["w"], reached)
