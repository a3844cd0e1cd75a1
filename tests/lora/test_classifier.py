"""The network: what it computes, what of it is learned, and its files, read by PEFT alone."""

import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")

from peft import PeftModel
from transformers import AutoModel

from bayesdual.ivon import IVON
from bayesdual.lora import LoRAClassifier, read_tokenizer, tokens
from bayesdual.posterior import Posterior, exact_ggn_diagonal, function_variance
from tests.texts import save_encoder

TEXTS = ["what rain is", "my account", "hello"]


@pytest.fixture(scope="module")
def network(encoder):
    """With an adapter that does something."""
    torch.manual_seed(0)
    network = LoRAClassifier(encoder, 4, r=2).eval()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return network


@pytest.fixture(scope="module")
def x(encoder):
    return tokens(read_tokenizer(encoder), TEXTS, 8)[0]


def test_padding_changes_nothing(network, x, encoder):
    for length in (5, 12):
        others = tokens(read_tokenizer(encoder), TEXTS, length)[0]
        torch.testing.assert_close(network(others), network(x))
    assert not torch.allclose(network(x)[0], network(x)[1], atol=1e-3)


def test_only_adapter_and_head_are_learned_and_saved(network, encoder):
    names = [name for name, _ in network.named_parameters()]
    assert all("lora_" in name or name.startswith("head.") for name in names)
    assert sum("lora_" in name for name in names) == 2 * 2 * 2  # A and B of query and value in two layers
    assert {*names, "_extra_state"} == network.state_dict().keys()
    optimizer = IVON(network.parameters(), lr=0.1, ess=10)
    assert Posterior.from_optimizer(network, optimizer).mean.keys() == set(names)
    before = AutoModel.from_pretrained(encoder).state_dict()
    held = {
        n.replace("encoder.base_model.model.", "").replace("base_layer.", ""): b for n, b in network.named_buffers()
    }
    assert all(torch.equal(before[name], value) for name, value in held.items() if name in before) and len(held) > 20


def test_training_is_without_the_encoders_dropout(network, x):
    assert torch.equal(network.train()(x), network.eval()(x))


def test_function_variance_and_curvature_of_an_adapter_are_those_of_autograd(network, x):
    variance = {name: torch.rand_like(p) for name, p in network.named_parameters()}
    v = function_variance(network, x, Posterior({n: p.detach() for n, p in network.named_parameters()},
                                                {n: 1 / value for n, value in variance.items()}))  # fmt: skip
    params = dict(network.named_parameters())
    logits = network(x)
    expected = torch.zeros_like(v)
    for i in range(len(x)):
        for c in range(4):
            gradients = torch.autograd.grad(logits[i, c], list(params.values()), retain_graph=True)
            expected[i, c] = sum((variance[n] * g.square()).sum() for n, g in zip(params, gradients, strict=True))
    torch.testing.assert_close(v, expected, rtol=1e-4, atol=1e-4)
    assert exact_ggn_diagonal(network, x).keys() == params.keys()


def test_peft_alone_reads_the_adapter(network, x, encoder, tmp_path):
    network.save_files(tmp_path)
    assert {f.name for f in (tmp_path / "adapter").iterdir()} == {
        "adapter_model.safetensors", "adapter_config.json", "head.safetensors",
    }  # fmt: skip
    theirs = PeftModel.from_pretrained(AutoModel.from_pretrained(encoder), tmp_path / "adapter").eval()
    call = {"input_ids": x.long(), "attention_mask": (x != 0).long()}
    torch.testing.assert_close(theirs(**call).last_hidden_state, network.encoder(**call).last_hidden_state)
    plain = AutoModel.from_pretrained(encoder)(**call).last_hidden_state
    assert not torch.allclose(theirs(**call).last_hidden_state, plain, atol=1e-2)
    assert torch.equal(LoRAClassifier.load(encoder, tmp_path / "adapter").eval()(x), network(x))


def test_an_adapter_of_another_encoder_is_refused(network, encoder, tmp_path):
    other = save_encoder(tmp_path / "other", seed=1)
    network.save_files(tmp_path)
    with pytest.raises(ValueError, match=r"adapter is an adapter of another encoder than that in .*other: give"):
        LoRAClassifier.load(other, tmp_path / "adapter")
    with pytest.raises(ValueError, match=r"checkpoint's adapter is of another encoder"):
        LoRAClassifier(other, 4, r=2).load_state_dict(network.state_dict())
    (tmp_path / "adapter" / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="adapter is damaged"):
        LoRAClassifier.load(encoder, tmp_path / "adapter")
    (tmp_path / "adapter" / "head.safetensors").unlink()
    with pytest.raises(ValueError, match="adapter has no head.safetensors: give the adapter/ of a run"):
        LoRAClassifier.load(encoder, tmp_path / "adapter")


def test_folders_that_lack_something_are_refused_in_a_sentence(encoder, tmp_path):
    with pytest.raises(ValueError, match=r"folder is 'no/such', which is no folder: .* \(nothing is downloaded\)"):
        LoRAClassifier("no/such")
    for left_out, sentence in {
        "config.json": "has no config.json",
        "model.safetensors": "has no model.safetensors",
        "tokenizer_config.json": "has no tokenizer_config.json",
    }.items():
        folder = tmp_path / left_out
        shutil.copytree(encoder, folder)
        (folder / left_out).unlink()
        with pytest.raises(ValueError, match=sentence):
            LoRAClassifier(str(folder))
    folder = tmp_path / "damaged"
    shutil.copytree(encoder, folder)
    (folder / "model.safetensors").write_bytes(b"12345678 no tensors")
    with pytest.raises(ValueError, match="damaged holds no encoder that transformers can read"):
        LoRAClassifier(str(folder))
    assert not list(Path(encoder).glob(".*"))


def test_settings_and_inputs_that_do_not_fit_are_refused(network, encoder, x):
    with pytest.raises(ValueError, match=r"target_modules is \['q_proj'\], .* choose of dense, key, query, value\."):
        LoRAClassifier(encoder, target_modules=["q_proj"])
    with pytest.raises(ValueError, match="r is 0: give a positive number"):
        LoRAClassifier(encoder, r=0)
    with pytest.raises(ValueError, match="texts are 13 tokens long, but the model of .* takes 12"):
        network(torch.ones(1, 13, dtype=torch.int64))
    with pytest.raises(ValueError, match="there is a token id 99, but .* knows 17 tokens"):
        network(torch.full((1, 3), 99))
    with pytest.raises(ValueError, match=r"takes token ids, whole numbers of shape \(N, L\), not torch.float32"):
        network(torch.ones(1, 3))
    with pytest.raises(
        ValueError, match="length is 13, but the tokenizer adds 2 tokens to a text and its model takes 12"
    ):
        tokens(read_tokenizer(encoder), TEXTS, 13)
