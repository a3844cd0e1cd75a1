"""What ``predict`` writes: a row an example, classes by number and, where they have names, by name."""

import csv

import torch

from bayesdual.cli.predictions import write_predictions


def rows_of(tmp_path, classes):
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    outputs = [
        [{"probabilities": p[:1], "y": torch.tensor([1]), "epistemic": None}],
        [{"probabilities": p[1:], "y": torch.tensor([0]), "epistemic": None}],
    ]
    write_predictions(tmp_path / "a.csv", outputs, classes)
    with open(tmp_path / "a.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_classes_with_names_are_called_by_them_and_others_by_number(tmp_path):
    first, second = rows_of(tmp_path, ("ant, red", "bee"))
    assert (first["label"], first["prediction"], first["label_name"], first["prediction_name"]) == (
        "1",
        "0",
        "bee",
        "ant, red",
    )
    assert (second["label_name"], second["prediction_name"], second["probability"]) == ("ant, red", "2", "0.700000")
    assert "label_name" not in rows_of(tmp_path, ())[0]
