"""In a notebook a run is one bar, which is drawn again, and the matrix a table; IPython is asked for nothing else."""

import re
import sys
from types import ModuleType

import pytest
import torch
from lightning import Trainer

from bayesdual.algorithm import BayesDual
from bayesdual.inspection import RunReport, StreamProgress
from bayesdual.inspection.notebook import NotebookBar, matrix_html
from bayesdual.learner import Learner, StreamDataModule
from bayesdual.models import MLP
from tests.streams import blobs

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def cell(monkeypatch):
    """The output of a cell: a list of displays, each a list of what it showed in turn."""
    shown = []

    class HTML(str):
        pass

    class Handle:
        def __init__(self, first):
            self.turns = [first]
            shown.append(self.turns)

        def update(self, html):
            self.turns.append(html)

    def display(what, display_id=None, **_):
        return Handle(what if display_id else str(what._repr_mimebundle_([], [])["text/html"]))

    inside, module = ModuleType("IPython.display"), ModuleType("IPython")
    module.version_info = (9, 0)  # which matplotlib asks for
    inside.HTML, inside.display, module.display, module.get_ipython = HTML, display, inside, lambda: None
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", inside)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    return shown


def test_one_bar_for_the_stream_and_the_matrix_as_a_table(cell, tmp_path):
    torch.manual_seed(0)
    learner = Learner(MLP(16, [16], 6), BayesDual(memory_size=12))
    trainer = Trainer(
        accelerator="cpu",
        callbacks=[RunReport(tmp_path), StreamProgress()],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(learner, datamodule=StreamDataModule(blobs(), epochs=1, batch_size=16))
    (bar,) = [turns for turns in cell if str(turns[0]).startswith("<progress")]
    assert "experience 2/3, epoch 1/1 33%" in "".join(map(str, bar)) and bar[-1].endswith("100%")
    (table,) = [turns[0] for turns in cell if str(turns[0]).startswith("<table")]
    assert str(table) == matrix_html(learner.history.accuracy)
    text = "".join(str(turns[0]) for turns in cell)
    assert "MLP, 374 parameters" in text and "experience 3/3 learned" in text and "kept " in text


def test_the_table_has_every_value_to_the_last_digit_and_leaves_what_was_not_learned_empty():
    html = matrix_html([[1 / 3, 0.5], [0.1 + 0.2, 1.0]])
    values = [float(found) for found in re.findall(r'title="([^"]+)"', html)]
    assert values == [1 / 3, 1 / 3, 0.1 + 0.2, 1.0, 0.65]
    assert html.count("></td>") == 1 and html.startswith("<table><caption>accuracy on each experience (columns)")
    assert "means of 4, every 4th row</caption>" in matrix_html([[0.5] * 40] * 40)


def test_a_bar_says_how_long_it_takes_and_shows_nothing_where_it_is_switched_off(cell, monkeypatch):
    bar = NotebookBar()
    now = [100.0]
    monkeypatch.setattr("bayesdual.inspection.notebook.time.monotonic", lambda: now[0])
    bar.add_task("", total=10)
    bar.start()
    bar.update(0, "a <b>", completed=4)  # a run that goes on
    now[0] = 130.0
    bar.advance(0, 2)
    assert cell[0][-1] == '<progress value="6" max="10"></progress> a &lt;b&gt; 60%, 1:00 left'
    off = NotebookBar()
    off.disable = True
    off.add_task("", total=1)
    off.start()
    off.stop()
    assert len(cell) == 1
