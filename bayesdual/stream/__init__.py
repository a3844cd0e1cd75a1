"""What a stream of experiences looks like to a learner."""

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
from bayesdual.stream.loaders import Labelled, TensorLoader

__all__ = [
    "Batch",
    "DatasetData",
    "ExperienceData",
    "Labelled",
    "Predict",
    "TensorData",
    "TensorLoader",
    "classes_of",
    "experience_data",
    "normalise",
    "standardise",
    "task_classes",
]
