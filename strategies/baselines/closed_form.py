"""Baselines in closed form: classifiers of the inputs themselves that learn a stream in one pass, without a network.

Each keeps sums over all examples, so that neither the order of the data nor its division into experiences matters, and
nothing is forgotten. x are inputs as networks take them (normalised), flattened, of D numbers; C is the number of
classes, n_c that of the examples of class c seen so far, and N that of all examples.

    nearest class mean      mu_c = sum_{i in c} x_i / n_c                          score_c = -1/2 |x - mu_c|^2

    streaming LDA           Sigma = sum_i (x_i - mu_{y_i}) (x_i - mu_{y_i})^T / N
    (Hayes & Kanan 2020)    W = Lambda mu,   Lambda = ((1 - e) Sigma + e I)^-1     score_c = w_c x - 1/2 w_c mu_c

    low-rank LDA            the same with B^T B + diag(v) in place of Sigma and coded means (bayesdual.memory)

    quantised replay        logistic regression on examples in a few bits a number, as many as fit, or all
                            W = argmin mean of CE + ridge_lambda / 2 |W|^2         score_c = w_c x + b_c

    ridge regression on     phi = relu(R x),   R ~ N(0, 1/D), fixed
    random features         S = sum_i phi_i phi_i^T,   B = sum_i phi_i onehot(y_i)^T
    (RanPAC, ACIL)          W = (S + lambda I)^-1 B                                score_c = w_c phi

Probabilities are the softmax of scores. Those of LDA and of nearest means are log-densities of Gaussians with one
covariance (Lambda^-1, I), so that it is Bayes' rule with classes equally likely; those of ridge regression approximate
one-hot labels, so that it is far from sure (at C = 10 never surer than .23 of a score of 1 among zeros), which its NLL
and ECE show.

Sums are kept in float32, as they are counted; what is solved is solved in float64.

Sources: Hayes & Kanan, Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis, CVPR workshops 2020
(its covariance is updated example by example; here it is the pooled covariance that the updates approach); McDonnell et
al., RanPAC, NeurIPS 2023; Zhuang et al., ACIL, NeurIPS 2022.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from bayesdual.memory import LowRankSpread, bytes_of_vectors, decode_vectors, encode_vectors, fair_shares

UNSEEN = -1e4  # the score of a class without examples: softmax gives it 0, and stays finite
CHUNK = 2048  # examples whose random features are held at a time
FLOAT = 4  # bytes

Scores = Callable[[Tensor], Tensor]
"""Inputs (B, D) to scores (B, C)."""


class ClosedForm(ABC):
    """A classifier that is made of sums over examples."""

    @abstractmethod
    def add(self, x: Tensor, y: Tensor) -> None:
        """Takes examples into the sums.

        Args:
            x: Inputs, shape (n, D), float32.
            y: Their labels, shape (n,), int64.
        """

    @abstractmethod
    def classifier(self) -> Scores:
        """The classifier of all examples so far."""

    @abstractmethod
    def memory_bytes(self) -> dict[str, int]:
        """The bytes of what is carried to the next examples, by part; a symmetric matrix is its triangle."""


class ClassMeans:
    """Running means of the inputs of each class.

    Attributes:
        means: Shape (C, D); 0 for a class without examples.
        counts: Examples of each class, shape (C,).
    """

    def __init__(self, n_inputs: int, n_classes: int) -> None:
        self.means = torch.zeros(n_classes, n_inputs)
        self.counts = torch.zeros(n_classes)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Takes examples in.

        Returns:
            What they add to the scatter within classes, as rows r with sum r r^T = the growth of sum_i (x_i - mu_{y_i})
            (x_i - mu_{y_i})^T: deviations from the means of the new examples and, weighted, of these from the old
            (Chan, Golub & LeVeque 1983), shape (n + C, D).
        """
        new = torch.zeros_like(self.counts).index_add_(0, y, torch.ones(len(y)))
        new_means = torch.zeros_like(self.means).index_add_(0, y, x) / new.clamp_min(1)[:, None]
        total = (self.counts + new).clamp_min(1)
        moved = new_means - self.means
        between = moved * (self.counts * new / total).sqrt()[:, None]
        self.means += moved * (new / total)[:, None]
        self.counts += new
        return torch.cat([x - new_means[y], between])

    def memory_bytes(self) -> dict[str, int]:
        """Bytes of the means and counts."""
        return {"means": self.means.nbytes, "counts": self.counts.nbytes}


class NearestClassMean(ClosedForm):
    """Nearest class mean: the class whose mean is nearest to the input."""

    def __init__(self, n_inputs: int, n_classes: int) -> None:
        self._classes = ClassMeans(n_inputs, n_classes)

    def add(self, x: Tensor, y: Tensor) -> None:
        self._classes.add(x, y)

    def classifier(self) -> Scores:
        means = self._classes.means.double()
        return _linear(means.T, -means.square().sum(1) / 2, self._classes.counts)  # without |x|^2, the same for all

    def memory_bytes(self) -> dict[str, int]:
        return self._classes.memory_bytes()


class StreamingLDA(ClosedForm):
    """Streaming LDA (Hayes & Kanan, 2020): running class means and one covariance, drawn to I by ``shrinkage``."""

    def __init__(self, n_inputs: int, n_classes: int, shrinkage: float = 1e-2) -> None:
        self._classes = ClassMeans(n_inputs, n_classes)
        self._scatter = torch.zeros(n_inputs, n_inputs)
        self._shrinkage = shrinkage

    def add(self, x: Tensor, y: Tensor) -> None:
        rows = self._classes.add(x, y)
        self._scatter += rows.T @ rows

    def classifier(self) -> Scores:
        covariance = self._scatter.double() / self._classes.counts.sum()
        return _discriminant(self._classes.means, covariance, self._classes.counts, self._shrinkage)

    def memory_bytes(self) -> dict[str, int]:
        return self._classes.memory_bytes() | {"covariance": FLOAT * _triangle(len(self._scatter))}


class LowRankLDA(ClosedForm):
    """Streaming LDA in few bytes: ``rank`` directions of the covariance and the means, coded in ``bits`` a number."""

    def __init__(self, n_inputs: int, n_classes: int, rank: int = 100, bits: int = 4, shrinkage: float = 1e-2) -> None:
        self._means = torch.zeros(n_classes, n_inputs)
        self._counts = torch.zeros(n_classes)
        self._spread = LowRankSpread(rank, bits)
        self._bits = bits
        self._shrinkage = shrinkage

    def add(self, x: Tensor, y: Tensor) -> None:
        """Takes all examples of a class in at once: a mean that was coded cannot be moved by a few without loss."""
        classes = ClassMeans(x.shape[1], len(self._counts))
        classes.means, classes.counts = self._means.clone(), self._counts
        self._spread.add(classes.add(x, y))
        self._means = decode_vectors(encode_vectors(classes.means, self._bits))
        self._spread.parts()

    def classifier(self) -> Scores:
        covariance = self._spread.through(torch.eye(self._means.shape[1]), float(self._counts.sum())).double()
        return _discriminant(self._means, covariance, self._counts, self._shrinkage)

    def memory_bytes(self) -> dict[str, int]:
        means = bytes_of_vectors(self._means.shape, self._bits)
        return {"means": means, "counts": self._counts.nbytes, "covariance": self._spread.nbytes}

    @staticmethod
    def rank_within(memory_bytes: int, n_inputs: int, n_classes: int, bits: int = 4) -> int:
        """The largest rank within bytes; less than 0 where there is no room for the means."""
        beside = bytes_of_vectors((n_classes, n_inputs), bits) + FLOAT * n_classes + 2 * n_inputs
        header, each = bytes_of_vectors((0, n_inputs), bits), bytes_of_vectors((1, n_inputs), bits)
        return min(n_inputs, (memory_bytes - beside - header) // (each - header))


class QuantisedReplay(ClosedForm):
    """Logistic regression on examples in ``bits`` a number: of each class as many as fit into ``memory_bytes``."""

    def __init__(
        self, n_inputs: int, n_classes: int, seed: int, memory_bytes: int, bits: int = 2, ridge_lambda: float = 1e-2
    ) -> None:
        header, one = bytes_of_vectors((0, n_inputs), bits), bytes_of_vectors((1, n_inputs), bits)
        self._kept = (memory_bytes - header) // (one - header + 1)  # 1 is the label's
        self._x, self._y = torch.zeros(0, n_inputs), torch.zeros(0, dtype=torch.int64)
        self._counts = torch.zeros(n_classes)
        self._generator = torch.Generator().manual_seed(seed)
        self._bits = bits
        self._lambda = ridge_lambda

    def add(self, x: Tensor, y: Tensor) -> None:
        coded = decode_vectors(encode_vectors(x, self._bits))
        order = torch.randperm(len(x), generator=self._generator)
        self._x, self._y = torch.cat([self._x, coded[order]]), torch.cat([self._y, y[order]])
        self._counts += y.bincount(minlength=len(self._counts))
        shares = fair_shares([int(n) for n in self._counts], self._kept)
        rows = torch.cat([torch.nonzero(self._y == c).squeeze(1)[:n] for c, n in enumerate(shares)])
        self._x, self._y = self._x[rows], self._y[rows]

    def classifier(self) -> Scores:
        weights = torch.zeros(self._x.shape[1], len(self._counts), requires_grad=True)
        biases = torch.zeros(len(self._counts), requires_grad=True)
        optimizer = torch.optim.LBFGS([weights, biases], max_iter=60, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(self._x @ weights + biases, self._y) + self._lambda / 2 * weights.square().sum()
            loss.backward()
            return loss

        with torch.enable_grad():
            optimizer.step(closure)  # pyright: ignore[reportArgumentType]
        return _linear(weights.detach(), biases.detach(), self._counts)

    def memory_bytes(self) -> dict[str, int]:
        return {"inputs": bytes_of_vectors(self._x.shape, self._bits), "labels": len(self._y)}


class RandomRidge(ClosedForm):
    """Ridge regression on random ReLU features (RanPAC, 2023; ACIL, 2022), of weight decay ``ridge_lambda``."""

    def __init__(self, n_inputs: int, n_classes: int, seed: int, features: int, ridge_lambda: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._projection = torch.randn(n_inputs, features, generator=generator) * n_inputs**-0.5  # drawn, not carried
        self._gram = torch.zeros(features, features)
        self._sums = torch.zeros(features, n_classes)
        self._lambda = ridge_lambda

    def add(self, x: Tensor, y: Tensor) -> None:
        for part, labels in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
            phi = self._features(part)
            self._gram.addmm_(phi.T, phi)
            self._sums.addmm_(phi.T, F.one_hot(labels, self._sums.shape[1]).to(phi))

    def classifier(self) -> Scores:
        gram = self._gram.double()
        gram.diagonal().add_(self._lambda)
        weights = _solve(gram, self._sums.double()).float()
        return lambda x: self._features(x) @ weights

    def memory_bytes(self) -> dict[str, int]:
        return {"gram": FLOAT * _triangle(len(self._gram)), "sums": self._sums.nbytes}

    @staticmethod
    def features_within(memory_bytes: int, n_classes: int) -> int:
        """The largest number M of features whose M (M + 1) / 2 + M C numbers are within bytes."""
        numbers, linear = memory_bytes // FLOAT, 2 * n_classes + 1  # M^2 + (2 C + 1) M <= 2 numbers
        return (isqrt(linear**2 + 8 * numbers) - linear) // 2

    @staticmethod
    def bytes_of(features: int, n_classes: int) -> int:
        """Bytes of that many features."""
        return FLOAT * (_triangle(features) + features * n_classes)

    def _features(self, x: Tensor) -> Tensor:
        return (x @ self._projection).relu_()


def _discriminant(means: Tensor, covariance: Tensor, counts: Tensor, shrinkage: float) -> Scores:
    """Gaussians of the means (C, D) with one covariance (D, D), which is drawn to I by ``shrinkage``."""
    means, covariance = means.double(), (1 - shrinkage) * covariance
    covariance.diagonal().add_(shrinkage)
    weights = _solve(covariance, means.T)
    return _linear(weights, -(weights.T * means).sum(1) / 2, counts)


def _linear(weights: Tensor, biases: Tensor, counts: Tensor) -> Scores:
    weights, biases = weights.float(), biases.float().masked_fill(counts == 0, UNSEEN)
    return lambda x: x @ weights + biases


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """The solution for a symmetric positive definite matrix.

    Raises:
        FloatingPointError: It is not positive definite, to rounding.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed:
        raise FloatingPointError("the matrix to be inverted is not positive definite: raise shrinkage or ridge_lambda.")
    return torch.cholesky_solve(right, factor)


def _triangle(n: int) -> int:
    return n * (n + 1) // 2
