"""The recipes of docs/lora.md, run with a tiny encoder."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("peft")

from peft import PeftModel
from transformers import AutoModel

from tests.docs.pages import REPOSITORY, blocks
from tests.texts import save_encoder

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_recipes_learn_in_both_trainers(tmp_path, monkeypatch, capsys):
    pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    save_encoder(tmp_path / "models" / "all-MiniLM-L6-v2")
    names = {"__name__": "page"}
    for block in blocks(REPOSITORY / "docs" / "lora.md"):
        if block.language == "{.python":
            exec(compile("\n" * block.line + block.text, "docs/lora.md", "exec"), names)
            assert len(names["algorithm"].memory) == 8 and {e for _, e in names["algorithm"].memory.counts} == {0, 1}
            PeftModel.from_pretrained(AutoModel.from_pretrained("models/all-MiniLM-L6-v2"), "run/adapter")
            assert json.loads(Path("run/adapter/adapter_config.json").read_text())["r"] == 8
            shutil.rmtree("run")
    assert names["network"] is not names["learner"].network, "both blocks were run"
