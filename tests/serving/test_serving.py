"""A run is served as it predicted: by itself, without Lightning, and as files for others."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml

from bayesdual.models import MLP
from bayesdual.prediction import prediction_by
from bayesdual.serving import export, load
from bayesdual.tensor_files import read_tensors
from tests.learner.test_more import data, fit, made
from tests.streams import blobs

CONFIG = {
    "model": {
        "network": {
            "class_path": "bayesdual.models.MLP",
            "init_args": {"in_features": 16, "hidden": [32], "n_classes": 6},
        }
    }
}
NAMES = ("one", "two", "three", "four", "five", "six")


def named(stream):
    return SimpleNamespace(**vars(stream), class_names=NAMES)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A run directory, and what its learner says of raw test images."""
    folder = tmp_path_factory.mktemp("run")
    model = fit(made(None, lambda: MLP(16, (32,), 6)), data(named(blobs()), epochs=4), folder / "checkpoints")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    x = torch.cat([e.tensors().x for e in blobs().test_stream])
    return folder, model, x


def of_run(model, x, prediction="mean"):
    model.eval()
    posterior = model.posterior() if prediction == "weight_samples" else model.algorithm.posterior
    with torch.no_grad():
        return prediction_by(prediction)(
            model.network, model, posterior, x, torch.zeros(len(x), dtype=torch.int64)
        ).probabilities


@pytest.mark.parametrize("prediction", ["mean", "linearised", "samples", "weight_samples"])
def test_raw_images_get_the_probabilities_of_the_run(served, prediction):
    folder, model, x = served
    predictor = load(folder, prediction=prediction)
    p = predictor.predict_proba(x)
    assert torch.equal(p, of_run(model, x, prediction))
    assert torch.equal(predictor.predict_proba(x.numpy()), p)
    assert predictor.predict(x) == [NAMES[k] for k in p.argmax(1).tolist()]
    assert predictor.predict_proba(x[:0]).shape == (0, 6)


def test_a_checkpoint_alone_is_served_with_the_network_given(served, tmp_path):
    folder, model, x = served
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes((folder / "checkpoints/experience_3.ckpt").read_bytes())
    assert torch.equal(load(alone, MLP(16, (32,), 6)).predict_proba(x), of_run(model, x))
    with pytest.raises(ValueError, match="no config.yaml of a run says which network .* give load the network"):
        load(alone)
    with pytest.raises(ValueError, match="alone.ckpt is of another network .* give load the network"):
        load(alone, MLP(16, (8,), 6))


def test_serving_takes_no_lightning_and_less_than_three_seconds(served):
    code = (
        "import sys, time, torch; from bayesdual import load\n"
        f"p = load({str(served[0])!r}).predict_proba(torch.zeros(1, 1, 4, 4, dtype=torch.uint8))\n"
        "assert p.shape == (1, 6)\n"
        "bad = {'lightning', 'avalanche', 'torchmetrics', 'jsonargparse', 'matplotlib'} & set(sys.modules)\n"
        "assert not bad, bad\n"
        "print(time.process_time())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 3


def test_a_head_that_has_grown_is_served(served, tmp_path):
    first = SimpleNamespace(**{k: v[:2] for k, v in vars(blobs()).items()})
    third = SimpleNamespace(**{k: v[2:] for k, v in vars(blobs()).items()})
    model = fit(made(None, lambda: MLP(16, (32,), 4)), data(first, epochs=1))
    fit(model, data(third, epochs=1), tmp_path)
    predictor = load(tmp_path / "last.ckpt", MLP(16, (32,), 4), prediction="linearised")
    x = served[2]
    assert torch.equal(predictor.predict_proba(x), of_run(model, x, "linearised")) and predictor.n_classes == 6
    assert predictor.predict(x[:1])[0] in range(6)


def test_task_labels_are_needed_and_mask(tmp_path):
    fit(made(None, lambda: MLP(16, (32,), 6)), data(blobs(task_labels=True), epochs=1), tmp_path)
    predictor = load(tmp_path / "last.ckpt", MLP(16, (32,), 6))
    x = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    p = predictor.predict_proba(x, [0, 2])
    assert p[0, 2:].max() == 0 and p[1, :4].max() == 0
    assert torch.equal(predictor.predict_proba(x, 2)[1], p[1])
    for tasks, complaint in ((None, "give tasks"), ([0], "1 task labels for 2"), (7, "task 7 has not been learned")):
        with pytest.raises(ValueError, match=complaint):
            predictor.predict_proba(x, tasks)
    with pytest.raises(ValueError, match="this stream has task labels: export .safetensors"):
        export(predictor, tmp_path / "model.pt2")
    export(predictor, tmp_path / "model.safetensors")
    assert json.loads((tmp_path / "model.json").read_text())["tasks"] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("x", "complaint"),
    [
        (
            torch.zeros(2, 1, 4, 4),
            r"the inputs are float32 of shape \(2, 1, 4, 4\): give uint8 of shape \(N, 1, 4, 4\)",
        ),
        (torch.zeros(2, 16, dtype=torch.uint8), r"uint8 of shape \(2, 16\): give uint8 of shape \(N, 1, 4, 4\)"),
    ],
)
def test_inputs_that_were_not_learned_are_refused(served, x, complaint):
    with pytest.raises(ValueError, match=complaint):
        load(served[0]).predict_proba(x)
    with pytest.raises(ValueError, match="has no task labels: leave them out"):
        load(served[0]).predict_proba(served[2], 0)


def test_files_that_are_no_runs_are_refused_and_nothing_in_them_is_executed(served, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no .*last.ckpt: give a run directory"):
        load(tmp_path)
    damaged = bytearray((served[0] / "checkpoints/last.ckpt").read_bytes())
    damaged[len(damaged) // 2] ^= 255
    torch.save({"bayesdual": print}, tmp_path / "evil.ckpt")
    (tmp_path / "damaged.ckpt").write_bytes(damaged)
    for name in ("damaged.ckpt", "evil.ckpt"):
        with pytest.raises(ValueError, match=f"{name} is not a checkpoint of bayesdual, or is damaged"):
            load(tmp_path / name, MLP(16, (32,), 6))


def test_a_class_keeps_its_name():
    model = fit(made(None, lambda: MLP(16, (32,), 6)), data(named(blobs(1)), epochs=1))
    other = SimpleNamespace(**vars(blobs(1)), class_names=("one", "zwei"))
    with pytest.raises(ValueError, match="class 1 of data.benchmark is 'zwei', but 'two' was learned as class 1"):
        fit(model, data(other))


def test_exported_programs_and_tensors_say_the_same(served, tmp_path):
    folder, model, x = served
    predictor = load(folder)
    export(predictor, tmp_path / "model.pt2")
    about = {"about.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=about).module()
    for n in (1, 5, len(x)):
        torch.testing.assert_close(program(x[:n]), predictor.predict_proba(x[:n]), rtol=0, atol=1e-6)
    assert json.loads(about["about.json"])["classes"] == list(NAMES)
    export(predictor, tmp_path / "model.safetensors")
    tensors, header = read_tensors(tmp_path / "model.safetensors", "network")
    assert header["format"] == "bayesdual-network-1" and tensors.keys() == model.network.state_dict().keys()
    assert json.loads((tmp_path / "model.json").read_text())["inputs"]["mean"] == [0.4]
    with pytest.raises(ValueError, match="has none of the endings .pt2, .onnx, .safetensors"):
        export(predictor, tmp_path / "model.zip")


def test_onnx_says_the_same(served, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder, _, x = served
    predictor = load(folder)
    export(predictor, tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    for n in (1, 5):
        (p,) = session.run(None, {"x": x[:n].numpy()})
        torch.testing.assert_close(torch.from_numpy(p), predictor.predict_proba(x[:n]), rtol=0, atol=1e-5)


def test_inputs_that_drift_are_told_from_those_that_were_learned(served):
    folder, _, x = served
    predictor = load(folder)
    new = torch.cat([e.tensors().x for e in blobs().train_stream])
    usual, darker = predictor.drift(new), predictor.drift(new // 2)
    assert usual["p"] > 0.05 and not usual["drifts"] and darker["drifts"] and darker["mmd2"] > 10 * usual["mmd2"]
    assert usual["entropy_before"] == pytest.approx(usual["entropy"], abs=0.1) and len(predictor.usual.features) == 240
    saved = torch.load(folder / "checkpoints/experience_1.ckpt", weights_only=True)["bayesdual"]["usual"]
    assert saved["features"].shape == (80, 32)  # of what was learned by then
    with pytest.raises(ValueError, match="give at least two"):
        predictor.drift(x[:1])
