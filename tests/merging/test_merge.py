"""Merging: the limits of the equations, joint optima of quadratic losses, and what is refused."""

import itertools

import pytest
import torch
from torch import nn

from bayesdual.merging import METHODS, merge
from bayesdual.models import MLP, ResNet18
from bayesdual.posterior import KroneckerFactors, Posterior, ggn_diagonal, kronecker_curvature

OUT, D, T = 3, 5, 3  # outputs and inputs of a layer with a bias, and models
KINDS = ["diagonal", "kronecker"]
EXACT = {"rtol": 1e-6, "atol": 1e-6}
UNDAMPED = {"damping": 0.0, "off_diagonal": 1.0, "tolerance": 1e-12}


def tensors(seed, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: scale * torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    return {"layer.weight": draw(OUT, D), "layer.bias": draw(OUT)}


def positive(n, g):
    root = torch.randn(n, n + 2, generator=g, dtype=torch.float64)
    return root @ root.T


def curvature(kind, seed):
    """A curvature of the tensors above, and the matrix (OUT (D + 1), OUT (D + 1)) that it stands for."""
    g = torch.Generator().manual_seed(100 + seed)
    if kind == "diagonal":
        h = torch.rand(OUT, D + 1, generator=g, dtype=torch.float64) + 0.1
        return {"layer.weight": h[:, :-1], "layer.bias": h[:, -1]}, h.flatten().diag()
    a, outputs = positive(D + 1, g), positive(OUT, g)
    return {"layer.weight": KroneckerFactors(a, outputs, "layer.bias")}, torch.kron(outputs, a)


def vector(model):
    return torch.cat([model["layer.weight"], model["layer.bias"][:, None]], 1).flatten()


def problem(kind):
    base, models = tensors(0), [tensors(t) for t in range(1, T + 1)]
    return base, models, [curvature(kind, t) for t in range(T + 1)]


def close(merged, expected):
    torch.testing.assert_close(vector(merged), vector(expected) if isinstance(expected, dict) else expected, **EXACT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damping", [0.0, 1.0])
def test_one_task_with_alpha_1_gives_its_own_weights(kind, damping):
    base, models, h = problem(kind)
    how = {"base_curvature": h[0][0], "curvatures": [h[1][0]], "prior_precision": 0.3, "damping": damping}
    close(merge(base, models[:1], scales=[7.0], **how), models[0])


@pytest.mark.parametrize("alpha", [1.0, 0.4])
@pytest.mark.parametrize("kind", KINDS)
def test_without_curvature_of_the_tasks_it_is_task_arithmetic(kind, alpha):
    base, models, h = problem(kind)
    expected = merge(base, models, method="task_arithmetic", alpha=alpha)
    close(
        merge(
            base, models, scales=[0, 0, 1e-12], curvatures=[p for p, _ in h[1:]], base_curvature=h[0][0], alpha=alpha
        ),
        expected,
    )
    for delta in (0.0, 0.5):
        zero = [{name: 0 * v for name, v in base.items()}] * T
        if kind == "kronecker":
            none = torch.zeros(D + 1, D + 1, dtype=torch.float64)
            zero = [{"layer.weight": KroneckerFactors(none, torch.eye(OUT).double(), "layer.bias")}] * T
        close(merge(base, models, curvatures=zero, alpha=alpha, prior_precision=delta), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_base_it_is_the_average_weighted_by_curvature(kind):
    base, models, h = problem(kind)
    scales = [1.0, 2.0, 0.5]
    given = [p for p, _ in h[1:]]
    merged = merge(base, models, scales=scales, curvatures=given, **UNDAMPED)
    left = sum(s * m for s, (_, m) in zip(scales, h[1:], strict=True))
    right = sum(s * m @ vector(model) for s, (_, m), model in zip(scales, h[1:], models, strict=True))
    close(merged, torch.linalg.solve(left, right))
    if kind == "diagonal":
        close(merge(base, models, method="fisher", scales=scales, curvatures=given), merged)


@pytest.mark.parametrize("alpha", [1.0, 0.6])
@pytest.mark.parametrize("kind", KINDS)
def test_quadratic_losses_are_merged_to_their_joint_optimum(kind, alpha):
    """Experts: argmin s_t l_t + q; joint: argmin alpha sum_t s_t l_t + q; q = 1/2 |theta - theta_0|^2, for the base."""
    base, centres, h = problem(kind)
    scales, s0, delta = [1.0, 2.0, 0.5], 0.7, 0.2
    eye = torch.eye(OUT * (D + 1), dtype=torch.float64)
    prior = s0 * h[0][1] + delta * eye
    origin = vector(base)

    def optimum(weights):
        left = prior + sum(w * m for w, (_, m) in zip(weights, h[1:], strict=True))
        right = prior @ origin + sum(w * m @ vector(c) for w, (_, m), c in zip(weights, h[1:], centres, strict=True))
        return torch.linalg.solve(left, right)

    experts = []
    for t in range(T):
        matrix = optimum([s * (i == t) for i, s in enumerate(scales)]).view(OUT, D + 1)
        experts.append({"layer.weight": matrix[:, :-1], "layer.bias": matrix[:, -1]})
    how = {"curvatures": [p for p, _ in h[1:]], "base_curvature": h[0][0], "base_scale": s0, "prior_precision": delta}
    merged = merge(base, experts, scales=scales, alpha=alpha, **UNDAMPED, **how)
    close(merged, optimum([alpha * s for s in scales]))


def test_regmean_is_gradient_matching_with_the_inputs_alone():
    base, models, h = problem("kronecker")
    factors = [p["layer.weight"] for p, _ in h[1:]]
    given = [{"layer.weight": f} for f in factors]
    one = [{"layer.weight": KroneckerFactors(f.inputs, torch.eye(OUT).double(), f.bias)} for f in factors]
    expected = merge(base, models, curvatures=one, **UNDAMPED)
    torch.testing.assert_close(
        vector(merge(base, models, method="regmean", curvatures=given, off_diagonal=1.0)),
        vector(expected),
        rtol=1e-5,
        atol=1e-5,
    )
    assert (vector(merge(base, models, method="regmean", curvatures=given)) - vector(expected)).abs().max() > 1e-2
    large = [{"layer.weight": KroneckerFactors(f.inputs / f.outputs.trace(), f.outputs, f.bias)} for f in factors]
    limit = merge(base, models, curvatures=large, **{**UNDAMPED, "damping": 1e9})
    torch.testing.assert_close(vector(limit), vector(expected), rtol=1e-5, atol=1e-5)


def test_inputs_that_no_model_has_are_averaged_by_regmean():
    base, models, h = problem("kronecker")
    seen = torch.ones(D + 1).double()
    seen[2] = 0
    factors = [
        {
            "layer.weight": KroneckerFactors(
                seen.diag() * h[t][0]["layer.weight"].inputs * seen, torch.eye(OUT).double(), "layer.bias"
            )
        }
        for t in range(1, T + 1)
    ]
    merged = merge(base, models, method="regmean", curvatures=factors, alpha=0.5)
    mean = sum(m["layer.weight"][:, 2] for m in models) / T
    torch.testing.assert_close(merged["layer.weight"][:, 2], base["layer.weight"][:, 2] / 2 + mean / 2, **EXACT)


def test_simple_methods_are_their_equations():
    base, models = (
        {"w": torch.tensor([1.0, 2, 3, 4])},
        [{"w": torch.tensor([2.0, 2, 0, 4.5])}, {"w": torch.tensor([0.5, 4, 2, 4])}],
    )
    assert merge(base, models, method="average", scales=[3, 1])["w"].tolist() == [1.625, 2.5, 0.5, 4.375]
    assert merge(base, models, method="task_arithmetic", alpha=0.5)["w"].tolist() == [1.25, 3, 1, 4.25]
    # changes [1, 0, -3, .5] and [-.5, 2, -1, 0]; the largest half of each: [1, 0, -3, 0] and [0, 2, -1, 0]
    assert merge(base, models, method="ties", density=0.5)["w"].tolist() == [2, 4, 1, 4]
    assert merge(base, models, method="ties", density=1.0, alpha=0.5)["w"].tolist() == [1.5, 3, 2, 4.25]
    fisher = merge(
        base,
        models,
        method="fisher",
        curvatures=[{"w": torch.tensor([1.0, 0, 0, 1])}, {"w": torch.tensor([3.0, 0, 1, 0])}],
    )
    assert fisher["w"].tolist() == [0.875, 3, 2, 4.5]


@pytest.mark.parametrize("method", METHODS)
def test_alpha_0_is_the_base_and_equal_models_are_themselves(method):
    base, models, h = problem("kronecker" if method in ("regmean", "gradient_matching") else "diagonal")
    given = {} if method in ("average", "task_arithmetic", "ties") else {"curvatures": [p for p, _ in h[1:]]}
    close(merge(base, models, method=method, alpha=0.0, **given), base)
    same = merge(base, [base] * T, method=method, **given)
    close(same, base)


def test_what_is_given_comes_back():
    torch.manual_seed(0)
    base = MLP(6, [4], 3).to(torch.bfloat16)
    models = [MLP(6, [4], 3).to(torch.bfloat16) for _ in range(2)]
    before = {name: v.clone() for name, v in base.state_dict().items()}
    merged = merge(base, models, method="average")
    assert isinstance(merged, MLP) and not merged.training
    exact = merge({"w": torch.zeros(1)}, [{"w": torch.tensor([1.0])}], method="average")
    assert type(exact) is dict
    for name, value in merged.state_dict().items():
        mean = (models[0].state_dict()[name].float() + models[1].state_dict()[name].float()) / 2
        assert value.dtype == torch.bfloat16 and torch.equal(value, mean.to(torch.bfloat16))
        assert torch.equal(base.state_dict()[name], before[name])


def test_a_network_and_its_measured_curvature():
    """Copies of a base, moved: what the curvature of one says is free is taken from the other."""
    torch.manual_seed(0)
    base = MLP(6, [4], 3)
    x = torch.randn(50, 1, 6)
    w = torch.ones(50)
    moved = [
        merge(
            base.state_dict(),
            [{n: v + 0.01 * torch.randn_like(v) for n, v in base.state_dict().items()}],
            method="average",
        )
        for _ in range(2)
    ]
    for measure in (ggn_diagonal, kronecker_curvature):
        h = measure(base, x, w, generator=torch.Generator().manual_seed(0))
        merged = merge(base.state_dict(), moved, curvatures=[h, h], prior_precision=1e-3)
        mean = merge(base.state_dict(), moved, method="average")
        assert all((merged[n] - mean[n]).abs().max() < 0.02 for n in mean)


def test_posteriors_are_merged_to_a_posterior_that_can_be_merged_again():
    base, models, h = problem("diagonal")
    posteriors = [Posterior(m, p, 0.5) for m, (p, _) in zip([base, *models], h, strict=True)]
    merged = merge(posteriors[0], posteriors[1:], scales=[1, 2, 1], alpha=0.5)
    expected = merge(
        base,
        models,
        scales=[1, 2, 1],
        alpha=0.5,
        curvatures=[p for p, _ in h[1:]],
        base_curvature=h[0][0],
        prior_precision=0.5,
    )
    close(merged.mean, expected)
    assert merged.prior_precision == 0.5
    total = 0.5 * (h[1][0]["layer.bias"] + 2 * h[2][0]["layer.bias"] + h[3][0]["layer.bias"]) + h[0][0]["layer.bias"]
    torch.testing.assert_close(merged.curvature["layer.bias"], total)
    assert isinstance(merge(posteriors[0], [merged, merged]), Posterior)


def test_frozen_parameters_need_no_curvature():
    base, models = (
        {"w": torch.zeros(2), "frozen": torch.ones(2)},
        [{"w": torch.ones(2) * t, "frozen": torch.ones(2)} for t in (1, 2)],
    )
    merged = merge(base, models, curvatures=[{"w": torch.ones(2)}] * 2)
    assert merged["frozen"].tolist() == [1, 1] and merged["w"].tolist() == [1.5, 1.5]


# ---- Statistics and heads ----------------------------------------------------------------------------------


def test_statistics_of_batch_norms_are_those_of_all_data():
    torch.manual_seed(0)
    parts = [torch.randn(n, 3, 2, 2) * n + n for n in (4, 8)]
    models = []
    for part in parts:
        norm = nn.BatchNorm2d(3, momentum=None)
        norm(part)
        norm.running_var.copy_(part.transpose(0, 1).flatten(1).var(1, unbiased=False))
        models.append(nn.Sequential(norm))
    models[1][0].num_batches_tracked += 4
    merged = merge(nn.Sequential(nn.BatchNorm2d(3)), models, method="average", scales=[4, 8], alpha=0.3)
    every = torch.cat(parts).transpose(0, 1).flatten(1)
    torch.testing.assert_close(merged[0].running_mean, every.mean(1))
    torch.testing.assert_close(merged[0].running_var, every.var(1, unbiased=False))
    assert merged[0].num_batches_tracked == 5


def test_a_resnet_is_merged():
    torch.manual_seed(0)
    base, models = ResNet18(width=2), [ResNet18(width=2) for _ in range(2)]
    merged = merge(base, models, method="ties")
    assert merged(torch.randn(2, 3, 32, 32)).isfinite().all()


def head(values, body=0.0):
    return {
        "body": torch.full((2,), body),
        "head.weight": torch.tensor(values)[:, None],
        "head.bias": torch.tensor(values),
    }


def test_heads_of_different_classes_are_joined():
    base, models = head([0.0, 0.0]), [head([1.0, 2.0], 1.0), head([4.0, 6.0, 8.0], 3.0)]
    grown = merge(base, models, method="average", scales=[1, 3])
    assert grown["head.bias"].tolist() == [3.25, 5, 8] and grown["body"].tolist() == [2.5, 2.5]
    listed = merge(base, models, method="average", classes=[[0, 3], [1, 2, 3]])
    assert listed["head.weight"].flatten().tolist() == [1, 4, 6, 5]
    apart = merge(
        head([0.5] * 4), [head([1.0, 2.0]), head([3.0, 4.0])], method="task_arithmetic", classes=[[3, 1], [0, 2]]
    )
    assert apart["head.bias"].tolist() == [3, 2, 4, 1]
    same = merge(head([0.0, 0.0]), [head([1.0, 2.0]), head([3.0, 4.0])], method="average", classes=[[0, 1], [2, 3]])
    assert same["head.bias"].tolist() == [1, 2, 3, 4] and same["body"].tolist() == [0, 0]
    ours = [
        Posterior({k: v.clone() for k, v in m.items()}, {k: torch.ones_like(v) for k, v in m.items()}, 1.0)
        for m in (base, *models)
    ]
    merged = merge(ours[0], ours[1:], classes=[[0, 3], [1, 2, 3]])
    assert merged.curvature["head.bias"].tolist() == [2, 2, 1, 2]


# ---- What is refused ---------------------------------------------------------------------------------------


def small(**more):
    return {"w": torch.zeros(2, 3), **more}


IDENTITY = KroneckerFactors(torch.eye(3), torch.eye(2))
NAN = {"w": torch.full((2, 3), torch.nan)}
CASES = {
    "models\\[0\\] has no 'b', which base has": (small(b=torch.zeros(1)), [small()], {}),
    "base has no 'b' and 1 more, which models\\[0\\] has": (small(), [small(b=torch.zeros(1), c=torch.zeros(1))], {}),
    "'w' has shape \\(2, 4\\) in models\\[0\\] and \\(2, 3\\) in base": (small(), [{"w": torch.zeros(2, 4)}], {}),
    "models\\[1\\] has a number in 'w' that is not finite": (small(), [small(), NAN], {}),
    "is not a method of merging: choose average, task_arithmetic": (small(), [small()], {"method": "mean"}),
    "'density' is not an option of average: it has no options": (small(), [small()], {"density": 0.5}),
    "its options are density": (small(), [small()], {"method": "ties", "densty": 0.5}),
    "density is 0": (small(), [small()], {"method": "ties", "density": 0}),
    "off_diagonal is 2": (
        small(),
        [small()],
        {"method": "regmean", "off_diagonal": 2, "curvatures": [{"w": IDENTITY}]},
    ),
    "there is no model to merge": (small(), [], {}),
    "alpha is 1.5": (small(), [small()], {"alpha": 1.5}),
    "alpha is nan": (small(), [small()], {"alpha": float("nan")}),
    "scales is \\(-1.0,\\)": (small(), [small()], {"scales": [-1]}),
    "the scales are all 0": (small(), [small()], {"scales": [0]}),
    "scales are given of 2 models, but there are 1": (small(), [small()], {"scales": [1, 1]}),
    "curvatures are given of 2 models, but there are 1": (small(), [small()], {"curvatures": [{}, {}]}),
    "classes are given of 2 models, but there are 1": (small(), [small()], {"classes": [[0], [1]]}),
    "classes \\[0, 0\\] are given for a head of 2 rows": (small(), [small()], {"classes": [[0, 0]]}),
    "no model has class 2, and there is a larger": (small(), [small()], {"classes": [[0, 3]]}),
}
ONE = {"w": torch.ones(2, 3)}
BAD_CURVATURES = {
    "models\\[0\\] has no curvature of 'w': measure it": ({}, {}),
    "models\\[0\\] has a curvature of 'w' that is negative": ({"w": -torch.ones(2, 3)}, {}),
    "models\\[0\\] has a curvature of 'w' that is negative or not finite": (NAN, {}),
    "base has a curvature of 'w' that is negative": (ONE, {"w": -torch.ones(2, 3)}),
    "a curvature of 'w' of shape \\(3,\\), but the parameter has shape \\(2, 3\\)": ({"w": torch.ones(3)}, {}),
    "factors of 'w' of shapes \\(2, 2\\) and \\(2, 2\\), but": (
        {"w": KroneckerFactors(torch.eye(2), torch.eye(2))},
        {},
    ),
    "curvature of 'w' that is negative": ({"w": KroneckerFactors(-torch.eye(3), torch.eye(2))}, {}),
}


@pytest.mark.parametrize("sentence", CASES)
def test_what_does_not_fit_is_refused_in_a_sentence(sentence):
    base, models, how = CASES[sentence]
    with pytest.raises(ValueError, match=sentence):
        merge(base, models, **{"method": "average", **how})


@pytest.mark.parametrize("sentence", BAD_CURVATURES)
def test_curvatures_that_cannot_be_are_refused(sentence):
    h, h0 = BAD_CURVATURES[sentence]
    with pytest.raises(ValueError, match=sentence):
        merge(
            small(),
            [ONE, ONE],
            curvatures=[h, ONE if "w" in h and not isinstance(h["w"], KroneckerFactors) else h],
            base_curvature=h0,
        )


def test_curvatures_of_two_kinds_are_refused():
    factors = {"w": IDENTITY}
    with pytest.raises(ValueError, match="models\\[1\\] has no Kronecker factors of 'w'"):
        merge(small(), [ONE, ONE], curvatures=[factors, ONE])
    with pytest.raises(ValueError, match="a diagonal of 'w' and no Kronecker factors"):
        merge(small(), [ONE], curvatures=[factors], base_curvature=ONE)
    for name, value in itertools.product(
        ("prior_precision", "damping", "tolerance", "off_diagonal"), (-1.0, float("nan"))
    ):
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            merge(small(), [ONE], curvatures=[factors], **{name: value})


def test_regmean_without_factors_is_refused():
    with pytest.raises(ValueError, match="regmean needs Kronecker factors"):
        merge(small(), [ONE], method="regmean", curvatures=[ONE])


def test_kinds_are_not_mixed():
    with pytest.raises(TypeError, match="base and models are dict, MLP"):
        merge(small(), [MLP(3)])
    posterior = Posterior(small(), ONE)
    with pytest.raises(ValueError, match="posteriors bring their own curvature"):
        merge(posterior, [posterior], curvatures=[ONE])


def test_a_base_that_is_not_the_base_is_refused():
    torch.manual_seed(0)
    base, other = MLP(6), MLP(6)
    models = [{n: v + 0.01 * torch.randn_like(v) for n, v in base.state_dict().items()} for _ in range(2)]
    merge(base.state_dict(), models, method="average")
    with pytest.raises(ValueError, match="it is not what they were trained from; give the base that was"):
        merge(other.state_dict(), models, method="average")
