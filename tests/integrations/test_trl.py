"""IVON in TRL's SFTTrainer: the recipe of docs/howto/finetune.md, as it is and with nothing remembered."""

import copy

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("trl")

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from bayesdual.integrations.transformers import IVONCallback, inner_optimizer
from bayesdual.ivon import IVON
from tests.docs.pages import REPOSITORY, blocks

pytestmark = pytest.mark.filterwarnings("ignore")
PAGE = REPOSITORY / "docs" / "howto" / "finetune.md"


def learned(remembered=True):
    """What the blocks of the page leave."""
    names = {"__name__": "page"}
    for block in blocks(PAGE):
        if "needs trl" in block.options.get("not_run", ""):
            text = block.text if remembered else block.text.replace("old is not None", "False")
            exec(compile("\n" * block.line + text, "docs/howto/finetune.md", "exec"), names)
    return names


def test_the_recipe_learns_both_languages_and_keeps_the_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names, naive = learned(), learned(remembered=False)
    (english, unknown), (kept, german) = names["losses"]
    assert english < 1 < unknown and german < 1 and kept < 2
    assert naive["losses"][0] == names["losses"][0] and naive["losses"][1][0] > 2 * kept
    optimizer = inner_optimizer(names["trainer"].optimizer)
    assert {state["step"] for state in optimizer.state.values()} == {40} and not names["model"]._forward_pre_hooks
    assert optimizer.state_dict()["param_groups"][0]["draws"] == 40, "a sample a step, at which both are learned"
    assert len(names["memory"]) == 8 and not names["old"].training


def test_resumes_to_the_bit(tmp_path, monkeypatch):
    """The second experience of the recipe's model, in SFTTrainer without what remembers."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    exec(next(block.text for block in blocks(PAGE) if "needs trl" in block.options.get("not_run", "")), names)
    texts = Dataset.from_list([{"text": text} for text in names["domains"]["German"]])

    def train(folder, seed, resume=None):
        args = SFTConfig(
            folder, per_device_train_batch_size=2, max_steps=6, max_length=16, save_steps=3, report_to=[], bf16=False,
            gradient_checkpointing=False, disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        one = SFTTrainer(
            copy.deepcopy(names["model"]), args, train_dataset=texts, processing_class=names["tokenizer"],
            optimizer_cls_and_kwargs=(IVON, {"lr": 0.1, "ess": 8, "betas": (0.9, 0.9), "seed": seed}),
            callbacks=[IVONCallback()],
        )  # fmt: skip
        one.train(resume_from_checkpoint=resume)
        return one

    whole = train("whole", 0)
    resumed = train("resumed", 99, resume="whole/checkpoint-3")
    assert all(map(torch.equal, whole.model.parameters(), resumed.model.parameters()))
    assert not torch.equal(whole.model.lm_head.weight, names["model"].lm_head.weight)
    for ours, theirs in zip(whole.optimizer.state.values(), resumed.optimizer.state.values(), strict=True):
        assert ours["step"] == theirs["step"] == 6 and torch.equal(ours["hess"], theirs["hess"])
