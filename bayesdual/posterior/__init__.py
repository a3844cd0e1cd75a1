"""The posterior over the weights, and what it says of functions and of examples."""

from bayesdual.posterior.checks import HasVariance
from bayesdual.posterior.function_variance import (
    directional_variance,
    function_covariance,
    function_variance,
    function_variance_mc,
)
from bayesdual.posterior.gaussian import HasPrecision, Posterior
from bayesdual.posterior.ggn import draw_pairs, ggn_diagonal, squared_gradients
from bayesdual.posterior.last_layer import last_layer_variance, watching_last_linear
from bayesdual.posterior.sensitivity import (
    Sensitivities,
    curvature,
    leave_one_out_logits,
    leave_one_out_nll,
    leverage,
    memory_perturbation,
    residual,
    sensitivities,
)
from bayesdual.posterior.survey import SCORING_BATCH, Scored, score_examples

__all__ = [
    "HasPrecision",
    "HasVariance",
    "Posterior",
    "SCORING_BATCH",
    "Scored",
    "Sensitivities",
    "curvature",
    "directional_variance",
    "draw_pairs",
    "function_covariance",
    "function_variance",
    "function_variance_mc",
    "ggn_diagonal",
    "last_layer_variance",
    "leave_one_out_logits",
    "leave_one_out_nll",
    "leverage",
    "memory_perturbation",
    "residual",
    "score_examples",
    "sensitivities",
    "squared_gradients",
    "watching_last_linear",
]
