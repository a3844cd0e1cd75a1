"""Is sensitivity true? What the posterior predicts of leaving an example out, against retraining without it.

    python benchmarks/leave_one_out.py [--left-out 250] [--figures docs/figures]

The digits of scikit-learn, one training example left out at a time. The network is trained to the optimum of
sum_i CE(y_i, f(x_i)) + delta/2 |theta|^2 in float64, then again from there without the example, and the change of that
example's own loss is compared with CE(y, f + v * e) - CE(y, f), by Spearman's rank correlation. v comes from

    diagonal    a `Posterior`: the diagonal of the Gauss-Newton matrix at the optimum, by `function_variance`
    full        the inverse of the whole Gauss-Newton matrix: what is lost by the diagonal, and what by first order
    full V      the same, with the covariances between classes: CE(y, f + V e)

The examples left out are drawn at random. The second part trains an MLP by IVON and notes, after each epoch, the mean
LOO-NLL of the training examples under its posterior, and the NLL of the test set.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from bayesdual.ivon import IVON
from bayesdual.posterior import Posterior, leave_one_out_nll, residual, sensitivities
from bayesdual.scenarios import digits
from bayesdual.stream import TensorData, normalise

TOLERANCE = 1e-8  # of the norm of the gradient at an optimum
SEARCH_TOLERANCE = 1e-4  # where L-BFGS hands over: its line search sees no progress much below
ROUNDS = 100  # of L-BFGS, of 50 steps each


def load() -> tuple[TensorData, TensorData]:
    """Training and test digits, normalised and flattened, in float64."""
    raw = digits()
    parts = []
    for x, y in ((raw.train_x, raw.train_y), (raw.test_x, raw.test_y)):
        x = normalise(x, raw.mean, raw.std).flatten(1).double()
        parts.append(TensorData(x, y, torch.zeros_like(y), torch.arange(len(y))))
    return parts[0], parts[1]


# ------------------------------------------------------------------------------------------- the Gauss-Newton matrix


def flat(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def jacobians(model: nn.Module, x: Tensor) -> Tensor:
    """J of each example, shape (B, C, P)."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    one = lambda weights, example: functional_call(model, weights, (example[None],))[0]  # noqa: E731
    parts = vmap(jacrev(one), (None, 0))(parameters, x)
    return torch.cat([parts[name].flatten(2) for name in parameters], 2)


@torch.no_grad()
def gauss_newton(model: nn.Module, x: Tensor, decay: float, chunk: int = 100) -> Tensor:
    """sum_i J_i^T (diag p_i - p_i p_i^T) J_i + decay I, shape (P, P)."""
    total = decay * torch.eye(len(flat(model)), dtype=x.dtype)
    for part in x.split(chunk):
        p = model(part).softmax(1)
        j = jacobians(model, part)
        root = p.sqrt()[:, :, None] * (j - (p[:, :, None] * j).sum(1, keepdim=True))  # the matrix is root^T root
        root = root.flatten(0, 1)
        total += root.T @ root
    return total


def diagonal_posterior(model: nn.Module, matrix: Tensor) -> Posterior:
    """The Laplace posterior of the diagonal alone."""
    precision, place = {}, 0
    for name, p in model.named_parameters():
        precision[name] = matrix.diagonal()[place : place + p.numel()].view_as(p)
        place += p.numel()
    return Posterior({name: p.detach() for name, p in model.named_parameters()}, precision)


def full_covariance(model: nn.Module, matrix: Tensor, x: Tensor) -> Tensor:
    """J Sigma J^T of each example under the whole matrix, shape (B, C, C)."""
    factor = torch.linalg.cholesky(matrix)
    parts = []
    for part in x.split(50):
        j = jacobians(model, part)
        solved = torch.linalg.solve_triangular(factor, j.flatten(0, 1).T, upper=False).T.view_as(j)
        parts.append(solved @ solved.mT)
    return torch.cat(parts)


# ----------------------------------------------------------------------------------------------------- optimisation


def objective(model: nn.Module, x: Tensor, y: Tensor, decay: float) -> Callable[[Tensor], Tensor]:
    """The training objective as a function of all weights in one vector."""
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]
    sizes = [p.numel() for p in model.parameters()]

    def value(theta: Tensor) -> Tensor:
        parts = [part.view(shape) for part, shape in zip(theta.split(sizes), shapes, strict=True)]
        f = functional_call(model, dict(zip(names, parts, strict=True)), (x,))
        return F.cross_entropy(f, y, reduction="sum") + decay / 2 * theta.square().sum()

    return value


def gradient_of(value: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    theta = theta.detach().requires_grad_()
    return torch.autograd.grad(value(theta), theta)[0]


def search(value: Callable[[Tensor], Tensor], start: Tensor, factor: Tensor) -> Tensor:
    """L-BFGS, in the coordinates z = factor^T (theta - start): the identity for the plain method."""
    z = torch.zeros_like(start, requires_grad=True)

    def weights() -> Tensor:
        return start + torch.linalg.solve_triangular(factor.T, z[:, None], upper=True)[:, 0]

    def closure() -> Tensor:
        z.grad = None
        result = value(weights())
        result.backward()
        return result

    for _ in range(ROUNDS):
        torch.optim.LBFGS(
            [z], max_iter=50, tolerance_grad=SEARCH_TOLERANCE / 10, tolerance_change=0, line_search_fn="strong_wolfe"
        ).step(closure)
        if gradient_of(value, weights()).norm() < SEARCH_TOLERANCE:
            break
    return weights().detach()


def polish(value: Callable[[Tensor], Tensor], theta: Tensor, factor: Tensor) -> tuple[Tensor, float]:
    """theta <- theta - (factor factor^T)^-1 gradient while the gradient shrinks; also the norm of the last one."""
    gradient = gradient_of(value, theta)
    while gradient.norm() > TOLERANCE:
        new = theta - torch.cholesky_solve(gradient[:, None], factor)[:, 0]
        new_gradient = gradient_of(value, new)
        if new_gradient.norm() > 0.99 * gradient.norm():
            break
        theta, gradient = new, new_gradient
    return theta, float(gradient.norm())


# ------------------------------------------------------------------------------------------------------ leaving out


def leave_one_out(name: str, model: nn.Module, data: TensorData, arguments: argparse.Namespace, decay: float) -> dict:
    """Retrains without one example at a time; returns changes of its loss, predicted (by kind) and actual."""
    began = time.perf_counter()
    everything = objective(model, data.x, data.y, decay)
    optimum = search(everything, flat(model), torch.eye(len(flat(model)), dtype=data.x.dtype))
    factor = torch.linalg.cholesky(torch.autograd.functional.hessian(everything, optimum))
    optimum, start = polish(everything, optimum, factor)
    nn.utils.vector_to_parameters(optimum, model.parameters())
    matrix = gauss_newton(model, data.x, decay)
    posterior = diagonal_posterior(model, matrix)
    known = sensitivities(model, data, posterior)
    by_diagonal = known.loo_nll - known.nll
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[: arguments.left_out]
    x, y = data.x[rows], data.y[rows]
    f = model(x).detach()
    covariance = full_covariance(model, matrix, x)
    moved = f + (covariance @ residual(f.softmax(1), y).unsqueeze(2)).squeeze(2)
    predicted = {
        "diagonal": by_diagonal[rows],
        "full": leave_one_out_nll(f, y, covariance.diagonal(dim1=1, dim2=2)) - known.nll[rows],
        "full V": F.cross_entropy(moved, y, reduction="none") - known.nll[rows],
    }
    training_nll = float(known.nll.mean())
    print(f"{name}: {len(optimum)} parameters, {len(data)} examples, decay {decay}, training NLL {training_nll:.4f}")
    print(f"  norm of the gradient {start:.1e}, optimum in {time.perf_counter() - began:.0f} s", flush=True)

    actual, worst = torch.zeros(len(rows), dtype=torch.float64), 0.0
    for place, row in enumerate(rows.tolist()):
        kept = torch.arange(len(data)) != row
        without = objective(model, data.x[kept], data.y[kept], decay)
        theta, norm = polish(without, search(without, optimum, factor), factor)
        worst = max(worst, norm)
        nn.utils.vector_to_parameters(theta, model.parameters())
        with torch.no_grad():
            actual[place] = F.cross_entropy(model(data.x[row : row + 1]), data.y[row : row + 1]) - known.nll[row]
        if (place + 1) % 50 == 0:
            print(f"  {place + 1}/{len(rows)}  {time.perf_counter() - began:.0f} s", flush=True)
    seconds = time.perf_counter() - began
    for kind, change in predicted.items():
        rho, r = spearmanr(change, actual).statistic, correlation(change, actual)
        print(
            f"  {kind:9s} Spearman {rho:.3f}   Pearson {r:.3f}"
            f"   median predicted / actual {float((change / actual).median()):.2f}"
        )
    print(
        f"  n {len(rows)}, {seconds:.0f} s, worst norm of a gradient {worst:.1e}, actual change from {actual.min():.1e}"
        f" to {actual.max():.1e}\n",
        flush=True,
    )
    return {"actual": actual, **predicted}


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def scatter(results: dict[str, dict], path: Path) -> None:
    figure, axes = plt.subplots(1, len(results), figsize=(5 * len(results), 4.5), squeeze=False)
    for axis, (name, result) in zip(axes[0], results.items(), strict=True):
        for kind in ("full V", "diagonal"):
            rho = spearmanr(result[kind], result["actual"]).statistic
            axis.loglog(result["actual"], result[kind], ".", ms=4, alpha=0.6, label=f"{kind}: Spearman {rho:.3f}")
        low, high = float(result["actual"].clamp_min(1e-12).min()), float(result["actual"].max())
        axis.plot([low, high], [low, high], "k--", lw=0.8, label="as predicted")
        axis.set(title=name, xlabel="change of its loss, retrained without it", ylabel="predicted by the posterior")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


# ---------------------------------------------------------------------------------------------- during training


def during_training(train: TensorData, test: TensorData, arguments: argparse.Namespace) -> Tensor:
    """Training NLL, its LOO-NLL and test NLL after each epoch of IVON, shape (3, epochs).

    Training examples that are not trained on join the test set.
    """
    torch.manual_seed(0)
    n = min(arguments.training_examples, len(train))
    order = torch.randperm(len(train))
    x, y = train.x[order[:n]].float(), train.y[order[:n]]
    test_x = torch.cat([train.x[order[n:]], test.x]).float()
    test_y = torch.cat([train.y[order[n:]], test.y])
    data = TensorData(x, y, torch.zeros_like(y), torch.arange(n))
    epochs = arguments.epochs
    model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
    # A Hessian that forgets its start within the run, so that the posterior is the data's.
    optimizer = IVON(model.parameters(), lr=0.1, ess=len(x), hess_init=0.1, weight_decay=1e-3, betas=(0.9, 0.999))
    began, curves = time.perf_counter(), []
    for epoch in range(epochs):
        for rows in torch.randperm(len(x)).split(50):

            def closure(rows: Tensor = rows) -> Tensor:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x[rows]), y[rows])
                loss.backward()
                return loss

            optimizer.step(closure)
        known = sensitivities(model, data, Posterior.from_optimizer(model, optimizer))
        with torch.no_grad():
            test_nll = F.cross_entropy(model(test_x), test_y)
        curves.append([float(known.nll.mean()), float(known.loo_nll.mean()), float(test_nll)])
        if epoch % max(1, epochs // 10) == 0 or epoch == epochs - 1:
            print(
                "  epoch {:3d}   training NLL {:.4f}   LOO-NLL {:.4f}   test NLL {:.4f}".format(epoch + 1, *curves[-1])
            )
    result = torch.tensor(curves, dtype=torch.float64).T
    train_nll, loo, test_nll = result
    print(
        f"  over epochs, Pearson correlation with the test NLL: LOO-NLL {correlation(loo, test_nll):.3f}, "
        f"training NLL {correlation(train_nll, test_nll):.3f}"
    )
    print(
        f"  mean distance from the test NLL: LOO-NLL {(loo - test_nll).abs().mean():.4f}, "
        f"training NLL {(train_nll - test_nll).abs().mean():.4f}   ({time.perf_counter() - began:.0f} s)"
    )
    return result


def plot_training(curves: Tensor, path: Path) -> None:
    figure, axis = plt.subplots(figsize=(5.5, 4))
    for curve, name in zip(curves, ("training NLL", "LOO-NLL of the training set", "test NLL"), strict=True):
        axis.semilogy(range(1, len(curve) + 1), curve, label=name)
    axis.set(xlabel="epoch of IVON", ylabel="nats per example", title="Digits, MLP 64-100-10")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--left-out", type=int, default=250, help="number of examples left out, one at a time")
    parser.add_argument("--decay", type=float, default=1.0, help="delta, the precision of the prior of each weight")
    parser.add_argument("--hidden", type=int, default=16, help="hidden units of the MLP")
    parser.add_argument("--training-examples", type=int, default=1438, help="examples that IVON is trained on")
    parser.add_argument("--epochs", type=int, default=60, help="epochs of IVON")
    parser.add_argument("--only", choices=["logistic", "mlp", "training"], help="one part")
    parser.add_argument("--figures", type=Path, help="folder for the figures; none are written without it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train, test = load()
    makers: dict[str, Callable[[], nn.Module]] = {
        "logistic": lambda: nn.Linear(64, 10),
        "mlp": lambda: nn.Sequential(nn.Linear(64, arguments.hidden), nn.Tanh(), nn.Linear(arguments.hidden, 10)),
    }
    results = {}
    for name, make in makers.items():
        if arguments.only in (None, name):
            torch.manual_seed(0)
            results[name] = leave_one_out(name, make().double(), train, arguments, arguments.decay)
    if arguments.figures:
        arguments.figures.mkdir(parents=True, exist_ok=True)
        if results:
            scatter(results, arguments.figures / "loo_scatter.png")
    if arguments.only in (None, "training"):
        print("IVON, during training")
        curves = during_training(train, test, arguments)
        if arguments.figures:
            plot_training(curves, arguments.figures / "loo_training.png")


if __name__ == "__main__":
    main()
