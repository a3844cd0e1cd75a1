"""The posterior object: what it holds, where it comes from, and its file."""

import pytest
import torch
from lightning import LightningModule, Trainer
from safetensors.torch import save_file
from torch import nn
from torch.func import functional_call
from torch.utils.data import DataLoader

from bayesdual.ivon import IVON
from bayesdual.posterior import UNMARKED, LastLayerPosterior, Posterior

MLP_OF_5 = nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2))


def trained(steps=3, **settings):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    module[0].bias.requires_grad_(False)
    optimizer = IVON(module.parameters(), lr=0.1, ess=50, weight_decay=0.01, **settings)
    x = torch.randn(16, 4)
    for _ in range(steps):
        optimizer.step(lambda: (optimizer.zero_grad(), module(x).square().mean().backward()))
    return module.eval(), optimizer, x


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_comes_from_an_optimizer():
    module, optimizer, _ = trained()
    posterior = Posterior.from_optimizer(module, optimizer)
    assert same(posterior.mean, {n: p.detach() for n, p in module.named_parameters()})
    hess = optimizer.state[module[3].weight]["hess"]
    torch.testing.assert_close(posterior.precision["3.weight"], 50 * (hess + 0.01))
    torch.testing.assert_close(posterior.variance["3.weight"] * posterior.precision["3.weight"], torch.ones(3, 8))
    assert "0.bias" not in posterior.precision and "0.bias" in posterior.mean
    optimizer.step(lambda: (optimizer.zero_grad(), module(torch.ones(2, 4)).sum().backward()))
    assert not torch.equal(posterior.mean["3.weight"], module[3].weight)  # it was a copy


def test_of_an_optimizer_there_is_one_if_it_learns_precisions():
    module, optimizer, _ = trained()
    assert same(Posterior.of(module, optimizer).precision, Posterior.from_optimizer(module, optimizer).precision)
    assert Posterior.of(module, torch.optim.Adam(module.parameters())) is None

    class Other(torch.optim.SGD):
        def precision(self):
            return {module[3].bias: torch.full((3,), 7.0)}

    assert Posterior.of(module, Other(module.parameters())).precision["3.bias"].tolist() == [7.0] * 3


def test_of_an_untrained_network_is_the_start():
    module, optimizer, _ = trained(steps=0, hess_init=0.3)
    precision = Posterior.from_optimizer(module, optimizer).precision
    torch.testing.assert_close(precision["3.bias"], torch.full((3,), 50 * 0.31))
    assert not optimizer.state


def test_is_refused_while_the_parameters_hold_a_sample():
    module, optimizer, _ = trained()
    with optimizer.sampled_params(), pytest.raises(RuntimeError, match="hold a sample"):
        Posterior.from_optimizer(module, optimizer)


def test_samples_have_its_mean_and_variance():
    posterior = Posterior({"w": torch.tensor([1.0, -2.0]), "b": torch.ones(1)}, {"w": torch.tensor([4.0, 100.0])})
    generator = torch.Generator().manual_seed(0)
    draws = [posterior.sample(generator) for _ in range(4000)]
    w = torch.stack([d["w"] for d in draws])
    torch.testing.assert_close(w.mean(0), posterior.mean["w"], atol=0.03, rtol=0)
    torch.testing.assert_close(w.var(0), posterior.variance["w"], atol=0, rtol=0.1)
    assert all(torch.equal(d["b"], torch.ones(1)) for d in draws)


def test_prediction_is_the_average_over_samples():
    module, optimizer, x = trained()
    posterior = Posterior.from_optimizer(module, optimizer)
    before = {n: v.clone() for n, v in module.state_dict().items()}
    predicted = posterior.predict(module, x, samples=5, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    each = [functional_call(module, posterior.sample(generator), (x,)).softmax(-1) for _ in range(5)]
    torch.testing.assert_close(predicted, torch.stack(each).mean(0))
    assert not predicted.requires_grad and same(before, module.state_dict())
    certain = Posterior(posterior.mean, {n: torch.full_like(v, 1e12) for n, v in posterior.precision.items()})
    torch.testing.assert_close(certain.predict(module, x), module(x).softmax(-1), rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="samples is 0"):
        posterior.predict(module, x, samples=0)


def test_saves_and_loads(tmp_path):
    module, optimizer, _ = trained()
    posterior = Posterior.from_optimizer(module, optimizer)
    posterior.save(tmp_path / "posterior.safetensors")
    loaded = Posterior.load(tmp_path / "posterior.safetensors")
    assert same(posterior.mean, loaded.mean) and same(posterior.precision, loaded.precision)
    assert [p.name for p in tmp_path.iterdir()] == ["posterior.safetensors"]


def of_all_data():
    """One with curvature apart from the prior, and a last layer."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    curvature = {"0.weight": torch.full((3, 4), 1e-6), "2.weight": torch.tensor([[0.0, 9.0, 90.0], [1.0, 2.0, 3.0]])}
    last = LastLayerPosterior("2", torch.randn(5, 4), torch.rand(5, 2), torch.rand(5), 2.0)
    return Posterior({n: p.detach() for n, p in module.named_parameters()}, curvature, 8.0, last), module


@pytest.mark.parametrize("way", ["file", "state"])
def test_curvature_prior_and_last_layer_are_kept_apart_to_the_bit(tmp_path, way):
    posterior, module = of_all_data()
    if way == "file":
        posterior.save(tmp_path / "posterior.safetensors")
        loaded = Posterior.load(tmp_path / "posterior.safetensors", module)
    else:
        torch.save(posterior.state_dict(), tmp_path / "state.pt")
        loaded = Posterior.from_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert same(posterior.mean, loaded.mean) and same(posterior.curvature, loaded.curvature)
    assert loaded.prior_precision == 8 and torch.equal(loaded.precision["2.weight"][0], torch.tensor([8.0, 17, 98]))
    ours, theirs = posterior.last_layer, loaded.last_layer
    assert theirs.name == "2" and theirs.prior_precision == 2
    assert torch.equal(ours.precision(), theirs.precision())


def test_files_of_before_hold_precisions(tmp_path):
    tensors = {"mean/w": torch.ones(2), "precision/w": torch.tensor([4.0, 100.0])}
    save_file(tensors, tmp_path / "old.safetensors", {"format": "bayesdual-posterior-1"})
    posterior = Posterior.load(tmp_path / "old.safetensors")
    assert posterior.precision["w"].tolist() == [4, 100] and posterior.prior_precision == 0
    assert posterior.last_layer is None


def test_the_posterior_of_another_network_is_refused_in_a_sentence(tmp_path):
    posterior, _ = of_all_data()
    posterior.save(tmp_path / "p.safetensors")
    of_another = (
        (nn.Linear(4, 2), r"0.bias has shape \(3,\) there and None in the network"),
        (MLP_OF_5, r"0.weight has shape \(3, 4\)"),
    )
    for other, message in of_another:
        with pytest.raises(ValueError, match=f"p.safetensors is of another network: {message}"):
            Posterior.load(tmp_path / "p.safetensors", other)


def test_summary_says_where_the_data_have_left_a_mark():
    posterior, _ = of_all_data()
    lines = posterior.summary().splitlines()
    assert len(lines) == 3 and lines[0].split()[:2] == ["parameter", "shape"]
    assert lines[1].split() == ["0.weight", "3", "x", "4", "3.54e-01", "3.54e-01", "3.54e-01", "0%"]
    assert lines[2].split()[-3:] == ["1.01e-01", "3.54e-01", "33%"]  # above 16: 17 and 98
    assert posterior.knows_data and posterior.marked() == {"0.weight": 0.0, "2.weight": pytest.approx(2 / 6)}
    empty = Posterior(posterior.mean, {"0.weight": torch.full((3, 4), 1e-6)}, 8.0)
    assert not empty.knows_data and empty.summary().endswith(UNMARKED)
    unknown = Posterior(posterior.mean, {"0.weight": torch.ones(3, 4)})
    assert unknown.knows_data and "%" not in unknown.summary()


class Module(LightningModule):
    def __init__(self, optimizer=IVON):
        super().__init__()
        self.network = nn.Linear(4, 2)
        self.make = optimizer

    def training_step(self, batch, batch_idx):
        return self.network(batch).square().mean()

    def configure_optimizers(self):
        return self.make(self.parameters(), lr=0.1, **({"ess": 8} if self.make is IVON else {}))


def checkpoint(path, optimizer=IVON):
    module = Module(optimizer)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(torch.randn(8, 4), batch_size=4))
    trainer.save_checkpoint(path)
    return module, trainer.optimizers[0]


@pytest.mark.filterwarnings("ignore")
def test_comes_from_a_checkpoint(tmp_path):
    module, optimizer = checkpoint(tmp_path / "a.ckpt")
    expected = Posterior.from_optimizer(module.network, optimizer)
    posterior = Posterior.from_checkpoint(tmp_path / "a.ckpt", nn.Linear(4, 2))
    assert same(posterior.mean, expected.mean)
    torch.testing.assert_close(posterior.precision, expected.precision)
    for other in (nn.Linear(4, 3), nn.Linear(4, 2, bias=False), nn.Sequential(nn.Linear(4, 2))):
        with pytest.raises(ValueError, match="of another network"):
            Posterior.from_checkpoint(tmp_path / "a.ckpt", other)
    checkpoint(tmp_path / "b.ckpt", torch.optim.AdamW)
    with pytest.raises(ValueError, match="not trained with bayesdual's IVON"):
        Posterior.from_checkpoint(tmp_path / "b.ckpt", nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ({"v": torch.ones(2)}, "'v' has no mean of its shape"),
        ({"w": torch.ones(3)}, r"no mean of its shape \(3,\)"),
        ({"w": torch.tensor([1.0, 0.0])}, "not positive everywhere"),
        ({"w": torch.tensor([1.0, float("nan")])}, "not positive everywhere"),
    ],
)
def test_what_is_no_precision_is_refused(precision, message):
    with pytest.raises(ValueError, match=message):
        Posterior({"w": torch.ones(2)}, precision)


def test_what_is_no_posterior_file_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"w": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="not a posterior file"):
        Posterior.load(path)
    save_file({"w": torch.ones(2)}, path, {"format": "bayesdual-posterior-1"})
    with pytest.raises(ValueError, match="it has a tensor 'w'"):
        Posterior.load(path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match="not a posterior file, or is damaged"):
        Posterior.load(path)
    with pytest.raises(FileNotFoundError):
        Posterior.load(tmp_path / "none.safetensors")


def test_the_log_determinant_is_that_of_the_precision():
    posterior, _ = of_all_data()
    whole = torch.cat([value.flatten() for value in posterior.precision.values()]).double()
    assert posterior.log_determinant == pytest.approx(float(torch.logdet(torch.diag(whole))))
