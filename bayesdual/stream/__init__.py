"""What a stream of experiences looks like to a learner."""

from bayesdual.stream.checks import Targets, class_numbers, refuse_not_finite
from bayesdual.stream.experience import (
    Batch,
    DatasetData,
    ExperienceData,
    Predict,
    TensorData,
    classes_of,
    experience_data,
    normalise,
    standardise,
    task_classes,
)
from bayesdual.stream.inputs import Inputs
from bayesdual.stream.loaders import DatasetLoader, TensorLoader, shard, weights_in_mean
from bayesdual.stream.parts import Parted, Parts

__all__ = [
    "Batch",
    "DatasetData",
    "DatasetLoader",
    "ExperienceData",
    "Inputs",
    "Parted",
    "Parts",
    "Predict",
    "Targets",
    "TensorData",
    "TensorLoader",
    "class_numbers",
    "classes_of",
    "experience_data",
    "normalise",
    "refuse_not_finite",
    "shard",
    "standardise",
    "task_classes",
    "weights_in_mean",
]
