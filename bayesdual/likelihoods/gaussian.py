"""A number with Gaussian noise; f is in units of where the first experience's targets lie, y~ = (y - m) / s.

    A(f) = f^2 / 2     mu = f     link f     lambda = 1 / phi,  phi = (sigma / s)^2     predicted N(m + s f, sigma^2)
    loss (y~ - f)^2 / (2 phi), which in the unit of what is learned is (y~ - f)^2 / 8, whatever the noise

A network begins near 0, so that targets of any scale need no preparation. m and s are the mean and the standard
deviation of the first experience's targets, unless they are given.

The noise sigma is given, or estimated: its square is the mean squared residual of all examples learned, each as it was
when its experience ended. NLL, the scores of examples and the posterior of all data have it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from bayesdual.likelihoods.one_output import OneOutput, check_outputs, numbers
from bayesdual.measures import SCORES

FLATNESS = 4.0  # phi in the unit of what is learned
LEAST = 1e-6  # of the noise, as a share of s


class Gaussian(OneOutput):
    """Numbers, by the squared error; see the equations above.

    Args:
        noise: sigma, in the units of the targets; None: estimated.
        location: m; None: that of the first experience's targets.
        scale: s; None: likewise.
        score: What forgetting and transfer are measured in: ``rmse``, ``mae``, ``nll`` or ``r2``.

    Raises:
        ValueError: An argument is out of its range.
    """

    name = "gaussian"
    temperature: float | None = None  # it cancels

    def __init__(
        self,
        noise: float | None = None,
        location: float | None = None,
        scale: float | None = None,
        score: str = "rmse",
    ) -> None:
        for key, value in (("noise", noise), ("scale", scale)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"the gaussian likelihood's {key} is {value}: give a positive number, or None.")
        self.score = score_named(score)
        self._given = noise
        self._location, self._scale = location, scale
        self._squares: dict[int, tuple[int, float]] = {}  # examples and mean squared residual, by experience

    @property
    def noise(self) -> float:
        """sigma: as given, or as estimated so far; s before an experience has been learned."""
        if self._given is not None:
            return self._given
        if not self._squares:
            return self.scale
        examples = sum(n for n, _ in self._squares.values())
        square = sum(n * value for n, value in self._squares.values()) / examples
        return max(math.sqrt(square), LEAST * self.scale)

    @property
    def location(self) -> float:
        return 0.0 if self._location is None else self._location

    @property
    def scale(self) -> float:
        return 1.0 if self._scale is None else self._scale

    def targets(self, given: Any, name: str) -> Tensor:
        return numbers(given, name)

    def look_at(self, y: Tensor) -> None:
        exact = y.double()
        if self._location is None:
            self._location = float(exact.mean())
        if self._scale is None:
            spread = float(exact.std(correction=0))
            self._scale = spread if spread > 0 else 1.0

    @torch.no_grad()
    def learned(self, f: Tensor, y: Tensor, examples: int, experience: int) -> None:
        square = (self.predicted(f).squeeze(1) - y).double().square().mean()
        self._squares[experience] = examples, float(square)

    def natural(self, y: Tensor) -> Tensor:
        return ((y - self.location) / self.scale)[:, None]

    def partition(self, f: Tensor) -> Tensor:
        return f.square() / 2

    def mean(self, f: Tensor) -> Tensor:
        return f

    def link(self, mean: Tensor) -> Tensor:
        return mean

    def variance(self, f: Tensor) -> Tensor:
        return torch.ones_like(f)

    def loss(self, f: Tensor, y: Tensor) -> Tensor:
        check_outputs(f)
        return (f - self.natural(y).to(f)).square().squeeze(1) / (2 * FLATNESS)

    def soft_loss(self, f: Tensor, old: Tensor, temperature: float) -> Tensor:
        return ((f - old) / temperature).square().squeeze(1) / (2 * FLATNESS)

    def predicted(self, f: Tensor) -> Tensor:
        return self.location + self.scale * f

    def curvature(self, f: Tensor) -> Tensor:
        return torch.full_like(f, 1 / self._phi)

    def residual(self, f: Tensor, y: Tensor) -> Tensor:
        return (f - self.natural(y)) / self._phi

    def drawn_factor(self, f: Tensor, generator: Generator) -> Tensor:
        return torch.full_like(f, FLATNESS**-0.5)

    def nll(self, predicted: Tensor, y: Tensor) -> Tensor:
        z = (y.double() - predicted.squeeze(1).double()) / self.noise
        return 0.5 * z.square() + math.log(self.noise) + 0.5 * math.log(2 * math.pi)

    def state_dict(self) -> dict[str, Any]:
        squares = [[experience, *seen] for experience, seen in self._squares.items()]
        return {"noise": self._given, "location": self._location, "scale": self._scale, "squares": squares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` gave.

        Raises:
            ValueError: The noise was given there and is another here, or estimated.
        """
        if state["noise"] != self._given:
            raise ValueError(
                f"the checkpoint was made with the gaussian likelihood's noise {state['noise']}, and it is "
                f"{self._given}: give the same."
            )
        self._location, self._scale = state["location"], state["scale"]
        self._squares = {experience: (n, square) for experience, n, square in state["squares"]}

    @property
    def _phi(self) -> float:
        return (self.noise / self.scale) ** 2


def score_named(name: str) -> Any:
    """A score of numbers.

    Raises:
        ValueError: There is none of that name.
    """
    known = [key for key in SCORES if key != "accuracy"]
    if name not in known:
        raise ValueError(f"score is {name!r}: give one of {', '.join(known)}.")
    return SCORES[name]
