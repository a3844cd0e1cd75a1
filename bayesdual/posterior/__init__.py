"""The posterior over the weights, and what it says of functions and of examples."""

from bayesdual.posterior.checks import HasVariance
from bayesdual.posterior.evidence import ClassBlocks, evidence_precision, log_evidence
from bayesdual.posterior.function_variance import (
    directional_variance,
    function_covariance,
    function_variance,
    function_variance_mc,
)
from bayesdual.posterior.gaussian import POSTERIOR_FORMATS, UNMARKED, HasPrecision, Posterior
from bayesdual.posterior.ggn import draw_pairs, exact_ggn_diagonal, ggn_diagonal, squared_gradients
from bayesdual.posterior.kronecker import (
    Curvature,
    KroneckerFactors,
    kronecker_curvature,
    load_curvature,
    save_curvature,
)
from bayesdual.posterior.last_layer import LastLayerPosterior, check_size, last_layer_variance, watching_last_linear
from bayesdual.posterior.past import PRIOR_PRECISION, posterior_of_past
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
from bayesdual.posterior.stand_ins import StandIns, drawn_examples, joined
from bayesdual.posterior.survey import SCORING_BATCH, Scored, score_examples

__all__ = [
    "ClassBlocks",
    "Curvature",
    "HasPrecision",
    "HasVariance",
    "KroneckerFactors",
    "LastLayerPosterior",
    "POSTERIOR_FORMATS",
    "PRIOR_PRECISION",
    "Posterior",
    "SCORING_BATCH",
    "Scored",
    "Sensitivities",
    "StandIns",
    "UNMARKED",
    "check_size",
    "curvature",
    "directional_variance",
    "draw_pairs",
    "drawn_examples",
    "evidence_precision",
    "exact_ggn_diagonal",
    "function_covariance",
    "function_variance",
    "function_variance_mc",
    "ggn_diagonal",
    "joined",
    "kronecker_curvature",
    "load_curvature",
    "last_layer_variance",
    "log_evidence",
    "leave_one_out_logits",
    "leave_one_out_nll",
    "leverage",
    "memory_perturbation",
    "posterior_of_past",
    "residual",
    "save_curvature",
    "score_examples",
    "sensitivities",
    "squared_gradients",
    "watching_last_linear",
]
