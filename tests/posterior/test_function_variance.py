"""Function variance against vmap(jacrev) in double precision, and what it must refuse or leave alone."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from bayesdual.posterior import (
    backward,
    directional_variance,
    function_covariance,
    function_variance,
    function_variance_mc,
    layer_rules,
)


@dataclass
class Variances:
    variance: dict[str, Tensor]


def random_posterior(model: nn.Module, scale: float = 1.0) -> Variances:
    return Variances({name: scale * (torch.rand_like(p) + 0.1) for name, p in model.named_parameters()})


def reference(model: nn.Module, inputs: Tensor, posterior: Variances) -> Tensor:
    """J Sigma J^T (B, C, C) by vmap(jacrev)."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def logits(parameters: dict[str, Tensor], example: Tensor) -> Tensor:
        return functional_call(model, parameters, (example[None],))[0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jacobian = vmap(jacrev(logits), (None, 0))(parameters, inputs)
    terms = []
    for name, variance in posterior.variance.items():
        rows = jacobian[name].flatten(2) if jacobian[name].dim() > 2 else jacobian[name].unsqueeze(-1)
        terms.append((rows * variance.flatten()) @ rows.mT)
    return sum(terms)


def check(model: nn.Module, inputs: Tensor, expected: Tensor | None = None, **options) -> None:
    """All three exact functions against the reference, to 1e-9 relative."""
    model = model.double()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    posterior = random_posterior(model)
    expected = reference(model, inputs, posterior) if expected is None else expected
    diagonal = expected.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(function_variance(model, inputs, posterior, **options), diagonal, rtol=1e-9, atol=1e-300)
    scale = (diagonal.unsqueeze(1) * diagonal.unsqueeze(2)).sqrt()
    covariance = function_covariance(model, inputs, posterior, **options)
    assert ((covariance - expected).abs() <= 1e-9 * scale).all()
    e = torch.randn_like(diagonal)
    along = directional_variance(model, inputs, posterior, e, **options)
    assert ((along - torch.einsum("bc,bcd,bd->b", e, expected, e)).abs() <= 1e-9 * (e**2 * diagonal).sum(1)).all()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def fallbacks(monkeypatch) -> list[int]:
    """Collects the number of parameters that no rule accounted for, per chunk."""
    found: list[int] = []
    explain = backward.explain

    def spy(*args):
        layers, others = explain(*args)
        found.append(len(others))
        return layers, others

    monkeypatch.setattr(backward, "explain", spy)
    return found


# ---- Models ------------------------------------------------------------------------------------------------


def mlp(width: int = 7, classes: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, width), nn.ReLU(inplace=True), nn.Linear(width, 5), nn.Tanh(), nn.Linear(5, classes)
    )


def lenet() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 20), nn.ReLU(), nn.Linear(20, 10)),
    )


class Block(nn.Module):
    def __init__(self, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(fan_out, fan_out, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(fan_out) for _ in range(3))
        self.short = nn.Conv2d(fan_in, fan_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.first(x)), inplace=True)
        y = self.norms[1](self.second(y))
        y += self.norms[2](self.short(x))
        return F.relu(y, inplace=True)


def resnet() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        Block(4, 6, 1),
        Block(6, 8, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean, -0.5, 0.5)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
    return model.eval()


class Transformer(nn.Module):
    def __init__(self, batch_first: bool = True, **options) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.tokens = nn.Embedding(11, 8, padding_idx=0)
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=batch_first, **options)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        if not self.batch_first:
            x = x.transpose(0, 1)
        x = self.encoder(x, src_key_padding_mask=None)
        return self.head(x.mean(1 if self.batch_first else 0))


# ---- Exact, and by the rules -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (mlp(), torch.randn(4, 12)),
        (lenet(), torch.randn(3, 1, 28, 28)),
        (resnet(), torch.randn(3, 3, 8, 8)),
        (Transformer().eval(), torch.randint(11, (4, 5))),
        (Transformer(norm_first=True, activation="gelu").eval(), torch.randint(11, (5, 5))),
        (Transformer(batch_first=False).eval(), torch.randint(11, (5, 5))),  # as many tokens as examples
    ],
    ids=["mlp", "lenet", "resnet", "transformer", "norm first", "sequence first"],
)
def test_equals_vmap_jacrev_without_fallback(model, inputs, fallbacks):
    check(model, inputs)
    assert set(fallbacks) == {0}


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_convolution(data):
    axes = data.draw(st.integers(1, 3))
    groups = data.draw(st.integers(1, 3))
    ints = lambda low, high: data.draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes))  # noqa: E731
    stride, padding = ints(1, 3), data.draw(st.sampled_from(["same", "valid", ints(0, 2)]))
    if padding == "same":
        stride = [1] * axes
    layer = getattr(nn, f"Conv{axes}d")(
        *(groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 2)), ints(1, 3)),
        stride=stride,
        padding=padding if isinstance(padding, str) else tuple(padding),
        dilation=ints(1, 2),
        groups=groups,
        bias=data.draw(st.booleans()),
        padding_mode=data.draw(st.sampled_from(["zeros", "circular"])) if padding == [1] * axes else "zeros",
    )
    inputs = torch.randn(data.draw(st.integers(1, 3)), layer.in_channels, *ints(5, 6))
    model = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.LazyLinear(2))
    try:
        model(inputs)
    except RuntimeError:  # a kernel larger than the image
        assume(False)
    check(model, inputs)


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 5),
    positions=st.lists(st.integers(1, 4), max_size=2),
    width=st.integers(1, 6),
    classes=st.integers(1, 4),
    biased=st.booleans(),
    memory_limit=st.sampled_from([1, 20_000_000, 2**30]),
)
def test_any_linear_shape_and_memory_limit(batch, positions, width, classes, biased, memory_limit):
    model = nn.Sequential(
        nn.Linear(3, width, bias=biased),
        nn.LayerNorm(width, bias=biased),
        nn.Tanh(),
        nn.Flatten(),
        nn.LazyLinear(classes),
    )
    inputs = torch.randn(batch, *positions, 3)
    model(inputs)
    check(model, inputs, memory_limit=memory_limit)


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, affine=False),
        nn.GroupNorm(2, 4),
        nn.LayerNorm((4, 3, 3)),
        nn.LayerNorm([3, 3], bias=False),
        nn.RMSNorm(3),
    ],
)
def test_norms(norm, fallbacks):
    check(
        nn.Sequential(nn.Conv2d(2, 4, 3), norm, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(36, 3)).eval(),
        torch.randn(3, 2, 5, 5),
    )
    assert set(fallbacks) == {0}


class Attention(nn.Module):
    """Cross attention with masks, as few use it."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True, **options)
        keys = options.get("kdim", 6)
        self.query, self.key = nn.Linear(4, 6), nn.Linear(4, keys)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.zeros(len(x), 5, dtype=torch.bool)
        mask[:, 3] = True
        causal = torch.ones(2, 5).triu(1).bool()
        out, weights = self.attention(
            self.query(x[:, :2]), k := self.key(x), k, key_padding_mask=mask, attn_mask=causal
        )
        return out.sum(1) + weights.sum((1, 2), keepdim=True)[:, 0]


@pytest.mark.parametrize(
    ("options", "by_fallback"),
    [({}, 0), ({"bias": False}, 0), ({"kdim": 4, "vdim": 4}, 0), ({"add_bias_kv": True, "add_zero_attn": True}, 2)],
)
def test_multihead_attention(options, by_fallback, fallbacks):
    check(Attention(**options).eval(), torch.randn(3, 5, 4))
    assert set(fallbacks) == {by_fallback}


# ---- Exact, and by the fallback ----------------------------------------------------------------------------


class Tied(nn.Module):
    """Embedding and output share their weight, which no module says."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(6, 4), nn.Linear(4, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.mix(self.embed(tokens)).tanh().mean(1) @ self.embed.weight.T


class TiedModules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.b(self.a(x).tanh()).tanh())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(self.layer(x).tanh()).tanh())


class Custom(nn.Module):
    """A leaf of its own parameters, one used for all examples alike, and one not used at all."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift, self.unused = (nn.Parameter(torch.randn(4)) for _ in range(3))
        self.positions, self.out = nn.Embedding(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x * self.scale.exp() + self.shift + self.positions(torch.arange(4)).sum(0))


class Folded(nn.Module):
    """Positions folded into the batch, and in the wrong order for whoever unfolds them naively."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(2, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, (2, 2)).transpose(0, 1)
        return self.out(self.layer(x.flatten(0, 1)).tanh().unflatten(0, (2, -1)).sum(0))


class Opaque(torch.autograd.Function):
    """Linear as an operator that neither the recorder nor vmap sees through."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx, delta):
        x, weight = ctx.saved_tensors
        assert delta.sum().item() == delta.sum().item()  # data-dependent: vmap refuses
        return delta @ weight, delta.T @ x


class UsesOpaque(nn.Module):
    def __init__(self, opaque: bool = True) -> None:
        super().__init__()
        self.inner, self.out, self.opaque = nn.Linear(4, 4), nn.Linear(4, 3, bias=False), opaque

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.inner(x).tanh()
        return Opaque.apply(hidden, self.out.weight) if self.opaque else self.out(hidden)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRUCell(2, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.cell(x[:, 2:], self.cell(x[:, :2], x.new_zeros(len(x), 3))))


@pytest.mark.parametrize(
    ("model", "inputs", "by_fallback"),
    [
        (Tied(), torch.randint(6, (4, 3)), 1),
        (TiedModules(), torch.randn(4, 4), 1),
        (Twice(), torch.randn(4, 4), 2),
        (Custom(), torch.randn(4, 4), 3),
        (Folded(), torch.randn(3, 4), 2),
        (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.Tanh()), torch.randn(4, 4), 2),
        (Recurrent(), torch.randn(3, 4), 4),
    ],
    ids=["tied", "tied modules", "twice", "custom", "folded", "weight norm", "recurrent"],
)
@pytest.mark.parametrize("memory_limit", [1, 2**30])
def test_what_no_rule_explains_falls_back(model, inputs, by_fallback, memory_limit, fallbacks):
    check(model, inputs, memory_limit=memory_limit)
    assert set(fallbacks) == {by_fallback}


def test_an_operator_that_vmap_refuses(fallbacks):
    plain, opaque = UsesOpaque(False).double(), UsesOpaque(True).double()
    opaque.load_state_dict(plain.state_dict())
    inputs, posterior = torch.randn(3, 4).double(), random_posterior(plain)
    expected = reference(plain, inputs, posterior)
    torch.testing.assert_close(function_covariance(opaque, inputs, posterior), expected, rtol=1e-9, atol=1e-12)
    assert fallbacks == [1]


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


@pytest.mark.parametrize(
    "model", [Lstm(), nn.Sequential(nn.Flatten(), nn.PReLU(15), nn.Linear(15, 2))], ids=["lstm", "prelu"]
)
def test_where_vmap_of_jacrev_fails_the_reference_is_a_loop(model):
    model, inputs = model.double(), torch.randn(3, 5, 3).double()
    posterior = random_posterior(model)
    expected = torch.zeros(3, 2).double()
    for b in range(3):
        for c in range(2):
            gradients = torch.autograd.grad(model(inputs[b : b + 1])[0, c], list(model.parameters()))
            terms = zip(posterior.variance.values(), gradients, strict=True)
            expected[b, c] = sum((v * g**2).sum() for v, g in terms)
    torch.testing.assert_close(function_variance(model, inputs, posterior), expected, rtol=1e-9, atol=0)


# ---- Contracts ---------------------------------------------------------------------------------------------


def test_parameters_without_variance_are_fixed_and_frozen_ones_with_variance_count():
    model = mlp().double()
    model[1].requires_grad_(False)
    inputs, posterior = torch.randn(3, 12).double(), random_posterior(model)
    del posterior.variance["3.weight"]
    expected = reference(model, inputs, posterior).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(function_variance(model, inputs, posterior), expected, rtol=1e-9, atol=0)


def test_raw_byte_images():
    class Normalising(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, images: Tensor) -> Tensor:
            return self.net(images.to(self.net[1].weight.dtype) / 255)

    model, images = Normalising(), torch.randint(256, (3, 3, 4), dtype=torch.uint8)
    check(model, images)


def state_of(model: nn.Module) -> list:
    tensors = [(p, p.clone(), p.grad, p.requires_grad) for p in model.parameters()]
    hooks = [(m.training, len(m._forward_hooks), len(m._backward_hooks)) for m in model.modules()]
    return [tensors, hooks, {name: b.clone() for name, b in model.named_buffers()}]


@pytest.mark.parametrize("fails", [False, True])
def test_leaves_the_model_as_it_was(fails):
    model = resnet()
    model[0].requires_grad_(False)
    model[-1].weight.grad = torch.ones_like(model[-1].weight)
    posterior, inputs = random_posterior(model), torch.randn(2, 3, 8, 8)
    tensors, hooks, buffers = state_of(model)
    if fails:
        with pytest.raises(ValueError, match="directions has shape"):
            directional_variance(model, inputs, posterior, torch.ones(2, 9))
        with pytest.raises(RuntimeError):  # the wrong number of channels, in the middle of a forward
            function_variance(model, inputs[:, :2], posterior)
    else:
        function_variance(model, inputs, posterior)
        function_variance_mc(model, inputs, posterior, samples=2)
    for p, value, grad, requires_grad in tensors:
        assert torch.equal(p, value) and p.grad is grad and p.requires_grad is requires_grad
    assert torch.equal(model[-1].weight.grad, torch.ones_like(model[-1].weight))
    assert state_of(model)[1] == hooks
    assert all(torch.equal(b, buffers[name]) for name, b in model.named_buffers())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_in_validation(context):
    model, posterior = mlp(), random_posterior(mlp())
    inputs = torch.randn(3, 12)
    expected = function_variance(model, inputs, posterior)
    with context():
        assert torch.equal(function_variance(model, inputs * 1, posterior), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(function_variance(model, inputs, posterior), expected)


def test_a_backward_through_the_same_model_still_works_afterwards():
    model, inputs = mlp(), torch.randn(3, 12)
    loss = model(inputs).sum()
    function_variance(model, inputs, random_posterior(model))
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_half_precision_weights_give_single_precision_variances():
    model, inputs = mlp().bfloat16(), torch.randn(3, 12).bfloat16()
    posterior = random_posterior(model)
    result = function_variance(model, inputs, posterior)
    exact = Variances({name: v.double() for name, v in posterior.variance.items()})
    expected = reference(model.double(), inputs.double(), exact).diagonal(dim1=1, dim2=2)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, rtol=0.05, atol=0)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)),
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)).eval(),
        nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)),
    ],
)
@pytest.mark.parametrize("function", [function_variance, function_covariance, function_variance_mc])
def test_refuses_batch_statistics_and_dropout(model, function):
    with pytest.raises(ValueError, match=r"call model.eval\(\)|no running statistics"):
        function(model, torch.randn(3, 4), random_posterior(model))


class Functional(nn.Module):
    def __init__(self, what) -> None:
        super().__init__()
        self.layer, self.what = nn.Linear(4, 4), what

    def forward(self, x: Tensor) -> Tensor:
        return self.what(self.layer(x))


@pytest.mark.parametrize("what", [F.dropout, lambda x: F.batch_norm(x, None, None, training=True)])
def test_refuses_train_mode_that_no_module_shows(what):
    model = Functional(what)
    with pytest.raises(ValueError, match="is in train mode"):
        function_variance(model, torch.randn(3, 4), random_posterior(model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(other=torch.ones(2)), "no such parameter"),
        (lambda v: v.update({"1.bias": torch.ones(2)}), "has shape"),
        (lambda v: v["1.bias"].fill_(-1), "negative or not finite"),
        (lambda v: v["1.bias"].fill_(float("nan")), "negative or not finite"),
        (lambda v: v.clear(), "no variance"),
    ],
)
def test_refuses_variances_that_do_not_fit(change, message):
    model = mlp()
    posterior = random_posterior(model)
    change(posterior.variance)
    for function in (function_variance, function_variance_mc):
        with pytest.raises(ValueError, match=message):
            function(model, torch.randn(3, 12), posterior)


def test_refuses_what_is_not_a_batch_of_logits():
    model = nn.Sequential(nn.Linear(4, 4), nn.Flatten(0))
    with pytest.raises(ValueError, match=r"logits of shape \(1, C\)"):
        function_variance(model, torch.randn(3, 4), random_posterior(model))
    with pytest.raises(ValueError, match="no example"):
        function_variance(mlp(), torch.randn(0, 12), random_posterior(mlp()))
    detached = Functional(torch.Tensor.detach)
    with pytest.raises(ValueError, match="depend on no parameter"):
        function_variance(detached, torch.randn(3, 4), random_posterior(detached))


def test_monte_carlo_agrees_for_a_linear_model_and_follows_its_generator():
    model, inputs = nn.Linear(6, 3), torch.randn(4, 6)
    posterior = random_posterior(model, 0.1)
    draw = lambda: function_variance_mc(  # noqa: E731
        model, inputs, posterior, samples=2000, generator=torch.Generator().manual_seed(1)
    )
    exact = function_variance(model, inputs, posterior)
    error = (draw() / exact - 1).abs()
    assert error.max() < 4 * (2 / 1999) ** 0.5
    assert torch.equal(draw(), draw())
    with pytest.raises(ValueError, match="at least 2"):
        function_variance_mc(model, inputs, posterior, samples=1)


class LargestTensor(TorchDispatchMode):
    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, (tuple, list)) else [output]:
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return output


@pytest.mark.parametrize("function", [function_variance, function_covariance])
def test_memory_does_not_grow_with_batch_times_classes_times_parameters(function, monkeypatch):
    monkeypatch.setattr(layer_rules, "PIECE", 2**12)
    model = nn.Sequential(
        nn.Conv2d(8, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
    )
    inputs, posterior = torch.randn(16, 8, 6, 6), random_posterior(model)
    with LargestTensor() as largest:
        function(model, inputs, posterior)
    product = len(inputs) * 10 * sum(p.numel() for p in model.parameters())  # over 2 million
    assert largest.numbers < product / 20


def test_memory_limit_bounds_the_gradients_held():
    model, inputs = mlp(width=64, classes=40), torch.randn(64, 12)
    posterior = random_posterior(model)
    whole, limited = LargestTensor(), LargestTensor()
    with whole:
        expected = function_variance(model, inputs, posterior)
    with limited:
        result = function_variance(model, inputs, posterior, memory_limit=4 * 4 * 2**18 + 200_000)
    torch.testing.assert_close(result, expected)
    assert limited.numbers < whole.numbers / 4
