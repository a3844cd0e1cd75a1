"""IVON in Hugging Face's Trainer and in accelerate, with a tiny model made here."""

import warnings

import numpy as np
import pytest
import torch

from bayesdual.ivon import IVON, sample_in_forward

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from bayesdual.integrations.transformers import IVONCallback, predict_over_samples  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
SETTINGS = {"lr": 0.05, "ess": 32, "betas": (0.9, 0.9), "seed": 0}


class Means(transformers.TrainerCallback):
    """The weights at the end of steps and at evaluations."""

    def __init__(self):
        self.steps, self.evaluations = [], []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.steps.append(weights(model))

    def on_prediction_step(self, args, state, control, model=None, **kwargs):
        self.evaluations.append(weights(model))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def classifier():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=8, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def examples(n=32):
    tokens = torch.randint(30, (n, 6), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "labels": row.sum() % 3} for row in tokens]


def trainer(folder, *callbacks, ivon=SETTINGS, **settings):
    settings = {
        "per_device_train_batch_size": 8, "max_steps": 4, "report_to": [], "disable_tqdm": True, "use_cpu": True,
        "save_strategy": "no", "logging_strategy": "no", "lr_scheduler_type": "linear", "weight_decay": 1e-4,
        "max_grad_norm": 1.0, **settings,
    }  # fmt: skip
    return transformers.Trainer(
        model=classifier(),
        args=transformers.TrainingArguments(str(folder), **settings),
        train_dataset=examples(),
        eval_dataset=examples(8),
        optimizer_cls_and_kwargs=(IVON, dict(ivon)),
        callbacks=[*callbacks],
    )


def test_trains_at_samples_and_evaluates_at_the_mean(tmp_path):
    means = Means()
    one = trainer(tmp_path, IVONCallback(), means, eval_strategy="steps", eval_steps=1)
    start = weights(one.model)
    seen = []
    one.model.bert.register_forward_pre_hook(lambda m, a: seen.append(weights(one.model)) if m.training else None)
    one.train()
    assert len(seen) == len(means.steps) == 4
    assert all(not torch.equal(s, m) for s, m in zip(seen, [start, *means.steps], strict=False))
    assert all(any(torch.equal(e, m) for m in means.steps) for e in means.evaluations) and means.evaluations
    assert not one.model._forward_pre_hooks and torch.equal(weights(one.model), means.steps[-1])
    assert {s["step"] for s in one.optimizer.state.values()} == {4}


def test_accumulated_batches_are_one_batch(tmp_path):
    """With clipping, and a batch on each side of the same examples."""
    results = []
    for size, accumulated in ((16, 1), (4, 4)):
        one = trainer(
            tmp_path, IVONCallback(), per_device_train_batch_size=size, gradient_accumulation_steps=accumulated,
            max_grad_norm=0.01,
        )  # fmt: skip
        one.train()
        results.append(weights(one.model))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    free = trainer(tmp_path, IVONCallback(), per_device_train_batch_size=16, max_grad_norm=0.0)
    free.train()
    assert not torch.allclose(weights(free.model), results[0], rtol=1e-4, atol=1e-5)


def test_resumes_to_the_bit(tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 2}
    whole = trainer(tmp_path / "whole", IVONCallback(), **saved)
    whole.train()
    resumed = trainer(tmp_path / "resumed", IVONCallback(), ivon={**SETTINGS, "seed": 99}, **saved)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert torch.equal(weights(whole.model), weights(resumed.model))
    for ours, theirs in zip(whole.optimizer.state.values(), resumed.optimizer.state.values(), strict=True):
        assert ours["step"] == theirs["step"] == 4 and torch.equal(ours["hess"], theirs["hess"])


def test_predictions_averaged_over_samples(tmp_path):
    one = trainer(tmp_path, IVONCallback(), ivon={**SETTINGS, "ess": 4})
    one.train()
    mean = weights(one.model)
    probabilities = predict_over_samples(one, examples(8), samples=3)
    assert probabilities.shape == (8, 3) and np.allclose(probabilities.sum(1), 1)
    at_mean = torch.as_tensor(one.predict(examples(8)).predictions).double().softmax(-1).numpy()
    assert not np.allclose(probabilities, at_mean, atol=1e-3) and torch.equal(weights(one.model), mean)
    with pytest.raises(ValueError, match="samples is 0"):
        predict_over_samples(one, examples(8), samples=0)


def test_what_does_not_fit_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="sample_in_forward"):
        trainer(tmp_path).train()
    with pytest.raises(ValueError, match="mc_samples=2"):
        trainer(tmp_path, IVONCallback(), ivon={**SETTINGS, "mc_samples": 2}).train()
    adam = trainer(tmp_path, IVONCallback())
    adam.optimizer_cls_and_kwargs = (torch.optim.AdamW, {"lr": 0.1})
    with pytest.raises(ValueError, match="the Trainer's optimizer is AdamW: give it optimizer_cls_and_kwargs"):
        adam.train()
    with pytest.warns(UserWarning, match="IVON's ess is 1e\\+06, but there are 32 training examples"):
        trainer(tmp_path, IVONCallback(), ivon={**SETTINGS, "ess": 1e6}, max_steps=1).train()


def test_accelerate():
    from accelerate import Accelerator

    results = []
    for size, accumulated in ((8, 1), (4, 2)):
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulated)
        model = classifier()
        optimizer = IVON(model.parameters(), **SETTINGS)
        loader = torch.utils.data.DataLoader(examples(), size)
        model, wrapped, loader = accelerator.prepare(model, optimizer, loader)
        with sample_in_forward(model, optimizer):
            for batch in loader:
                with accelerator.accumulate(model):
                    accelerator.backward(model(**batch).loss)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), 0.1)
                    wrapped.step()
                    wrapped.zero_grad()
        results.append(weights(model))
        assert {s["step"] for s in optimizer.state.values()} == {4}
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


def test_the_page_does_what_it_says(tmp_path, monkeypatch):
    from tests.docs.pages import REPOSITORY, blocks

    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "page"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for block in blocks(REPOSITORY / "docs/howto/transformers.md"):
            if block.language in ("python", "{.python"):  # the second is not run by tests/docs
                exec(block.text, names)
    assert names["probabilities"].shape[1] == 3
