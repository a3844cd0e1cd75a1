"""What targets are: classes, numbers, counts, yes or no; and what loss, K-prior, posterior and measures follow."""

from __future__ import annotations

from typing import Literal

from bayesdual.likelihoods.bernoulli import Bernoulli
from bayesdual.likelihoods.categorical import CATEGORICAL, Categorical
from bayesdual.likelihoods.gaussian import Gaussian
from bayesdual.likelihoods.likelihood import Likelihood
from bayesdual.likelihoods.one_output import OneOutput
from bayesdual.likelihoods.poisson import Poisson

LikelihoodName = Literal["categorical", "gaussian", "poisson", "bernoulli"]
BY_NAME: dict[str, type[Categorical] | type[Gaussian] | type[Poisson] | type[Bernoulli]] = {
    kind.name: kind for kind in (Categorical, Gaussian, Poisson, Bernoulli)
}


def likelihood_by(given: Likelihood | str) -> Likelihood:
    """The likelihood of a name, with its defaults, or the one that is given.

    Raises:
        ValueError: There is none of that name.
    """
    if not isinstance(given, str):
        return given
    if given not in BY_NAME:
        raise ValueError(f"likelihood is {given!r}: give one of {', '.join(BY_NAME)}, or one of your own.")
    return BY_NAME[given]()


__all__ = [
    "BY_NAME",
    "Bernoulli",
    "CATEGORICAL",
    "Categorical",
    "Gaussian",
    "Likelihood",
    "LikelihoodName",
    "OneOutput",
    "Poisson",
    "likelihood_by",
]
