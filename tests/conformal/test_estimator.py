"""The regressor is an estimator by scikit-learn's own tests; the module trains, calibrates and is restored."""

import numpy as np
import pytest
import torch
from lightning import Trainer
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch.utils.data import DataLoader, TensorDataset

from bayesdual.conformal import BinnedRegression, ConformalRegressor, covered, published_loss
from bayesdual.models import MLP


@parametrize_with_checks([ConformalRegressor("split", epochs=20, folds=2, samples=1, random_state=0)])
def test_it_is_an_estimator(estimator, check):
    check(estimator)


def loaders(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(300, 1, generator=generator)
    y = 100 + 20 * x[:, 0] + torch.randn(300, generator=generator)
    return y, DataLoader(TensorDataset(x, y), batch_size=32)


@pytest.mark.parametrize("adam", [False, True], ids=["IVON", "Adam"])
def test_lightning_trains_calibrates_and_restores(tmp_path, adam):
    torch.manual_seed(0)
    y, train = loaders(0)
    optimizer = (lambda params: torch.optim.Adam(params, 0.01)) if adam else None
    module = BinnedRegression(MLP(1, (32,), 20), y, bins=20, optimizer=optimizer)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=20, enable_checkpointing=False, **quiet)
    trainer.fit(module, train, loaders(1)[1])
    assert float(trainer.callback_metrics["valid_loss"]) < 2.5  # log 20 is 3.0
    with pytest.raises(ValueError, match="there are 0 calibration examples, but alpha 0.1 needs at least 9"):
        module.predict_set(torch.rand(3, 1))
    module.calibrate(loaders(1)[1])
    unseen, test = loaders(2)
    sets = module.predict_set(test.dataset.tensors[0])
    assert np.mean(covered(sets, unseen)) == pytest.approx(0.9, abs=0.06)
    assert torch.cat(trainer.predict(module, test)).sub(unseen).abs().mean() < 2.5
    trainer.save_checkpoint(tmp_path / "module.ckpt")
    again = BinnedRegression(MLP(1, (32,), 20), y, bins=20)
    again.load_state_dict(torch.load(tmp_path / "module.ckpt", weights_only=True)["state_dict"])
    assert again.predict_set(test.dataset.tensors[0]) == sets


def test_the_module_refuses_targets_that_cannot_be():
    for y, sentence in ((torch.ones(9), "the target is constant"), (torch.tensor([1.0, torch.nan]), "1 of 2 targets")):
        with pytest.raises(ValueError, match=sentence):
            BinnedRegression(MLP(1, (4,), 20), y, loss=published_loss)
