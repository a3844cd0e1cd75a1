"""IVON in TRL's SFTTrainer: the recipe of docs/howto/finetune.md, as it is and with nothing remembered."""

import pytest

pytest.importorskip("transformers")
pytest.importorskip("trl")

from bayesdual.integrations.transformers import inner_optimizer
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
