"""What of IVON is public, and what it needs."""

import subprocess
import sys

import pytest

import bayesdual.ivon

WITHOUT = """
import sys
for name in {missing}:
    sys.modules[name] = None  # an import of it fails, as if it were not installed
from torch import nn
from bayesdual.ivon import IVON, IVONByRule, ivon_settings
model = nn.Linear(3, 2)
for optimizer in (IVON(model.parameters(), **ivon_settings(8, 10, 10)), IVONByRule().make(model.parameters(), 10, 10)):
    optimizer.step(lambda: model.weight.sum().backward())
    print(optimizer.state[model.weight]["step"])
    optimizer.zero_grad()
try:
    from bayesdual.ivon import IVONCallback
except ImportError as error:
    print(error)
"""
NOT_NEEDED = (
    "avalanche", "filelock", "jsonargparse", "lightning", "matplotlib", "omegaconf", "rich", "safetensors", "scipy",
    "sklearn", "tensorboard", "torchmetrics", "torchvision", "yaml",
)  # fmt: skip


def test_the_optimizer_needs_torch_and_numpy_only():
    program = WITHOUT.format(missing=NOT_NEEDED)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    callback = (
        "bayesdual.ivon.IVONCallback needs lightning, which is not installed: pip install 'bayesdual[lightning]'."
    )
    assert done.stdout.splitlines() == ["1", "1", callback], done.stderr


def test_names():
    assert bayesdual.ivon.__all__ == [
        "IVON",
        "IVONByMatrix",
        "IVONByRule",
        "IVONCallback",
        "from_ivon_opt",
        "ivon_by_matrix",
        "ivon_settings",
        "sample_in_forward",
    ]
    assert all(hasattr(bayesdual.ivon, name) for name in bayesdual.ivon.__all__)
    with pytest.raises(AttributeError, match="bayesdual.ivon has no 'standard_normal_'"):
        bayesdual.ivon.standard_normal_  # noqa: B018
