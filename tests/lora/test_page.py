"""The recipes of docs/lora.md and docs/howto/finetune.md, run with a tiny encoder."""

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("peft")

from peft import PeftModel
from transformers import AutoModel

from tests.docs.pages import REPOSITORY, blocks
from tests.texts import save_encoder

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(("page", "needs"), [("docs/lora.md", "lora"), ("docs/howto/finetune.md", "extras lora")])
def test_the_recipes_learn_in_both_trainers(page, needs, tmp_path, monkeypatch, capsys):
    pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    save_encoder(tmp_path / "models" / "all-MiniLM-L6-v2")
    names = {"__name__": "page"}
    (block,) = [b for b in blocks(REPOSITORY / page) if b.language == "{.python" and needs in b.options["not_run"]]
    exec(compile("\n" * block.line + block.text, page, "exec"), names)
    assert len(names["algorithm"].memory) == 8 and {e for _, e in names["algorithm"].memory.counts} == {0, 1}
    PeftModel.from_pretrained(AutoModel.from_pretrained("models/all-MiniLM-L6-v2"), "run/adapter")
    assert json.loads(Path("run/adapter/adapter_config.json").read_text())["r"] == 8
