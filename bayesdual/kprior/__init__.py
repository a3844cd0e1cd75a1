"""K-priors: what stands in for the loss of past data."""

from bayesdual.kprior.diagonal import DiagonalPrior
from bayesdual.kprior.holding import Holding, PriorName
from bayesdual.kprior.kronecker import KroneckerPrior, factors, leading_eigenvectors
from bayesdual.kprior.natural import NaturalPrior
from bayesdual.kprior.residual import Residual
from bayesdual.kprior.terms import (
    Preconditions,
    TakesLikelihood,
    WeightPrior,
    function_space_loss,
    weight_space_loss,
)

__all__ = [
    "DiagonalPrior",
    "Holding",
    "KroneckerPrior",
    "NaturalPrior",
    "Preconditions",
    "PriorName",
    "Residual",
    "TakesLikelihood",
    "WeightPrior",
    "factors",
    "function_space_loss",
    "leading_eigenvectors",
    "weight_space_loss",
]
