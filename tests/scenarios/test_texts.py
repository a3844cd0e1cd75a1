"""Benchmarks of texts, from small files of the formats in which they are distributed."""

import json

import pytest
import torch

from bayesdual.scenarios import SplitBANKING77, SplitCLINC150, banking77, clinc150
from tests.texts import INTENTS, rows, save_data, save_encoder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return save_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    pytest.importorskip("transformers")
    pytest.importorskip("peft")
    return save_encoder(tmp_path_factory.mktemp("encoder"))


def test_the_files_are_read_as_they_are(root):
    texts = clinc150(root)
    assert [list(row) for row in texts.train] == rows(12) and [list(row) for row in texts.test] == rows(4, 14)
    assert texts.out_of_scope == ["you today"]
    texts = banking77(root)
    assert [list(row) for row in texts.train] == rows(6) and [list(row) for row in texts.test] == rows(2, 6)


def test_files_that_are_missing_or_damaged_are_one_sentence(tmp_path):
    for read, sentence in (
        (clinc150, "no clinc150.json or data_full.json in"),
        (banking77, "no banking77_train.csv or"),
    ):
        with pytest.raises(FileNotFoundError, match=f"{sentence} .*: put it there"):
            read(tmp_path)
    for content in ("{", '{"train": []}', '{"train": [["a", 3]], "test": [], "oos_test": []}', "[]"):
        (tmp_path / "data_full.json").write_text(content)
        with pytest.raises(ValueError, match="data_full.json is damaged, or not CLINC150"):
            clinc150(tmp_path)
    (tmp_path / "banking77_train.csv").write_text("text,label\na,b\n")
    with pytest.raises(ValueError, match="banking77_train.csv is damaged, or not BANKING77"):
        banking77(tmp_path)


@pytest.mark.parametrize("make", [SplitCLINC150, SplitBANKING77])
def test_experiences_hold_token_ids_of_their_intents(make, root, encoder):
    from bayesdual.lora import read_tokenizer

    benchmark = make(encoder, 2, length=8, root=root, validation=0.25)
    tokenizer, texts = (
        read_tokenizer(encoder),
        {"SplitCLINC150": clinc150, "SplitBANKING77": banking77}[make.__name__](root),
    )
    assert benchmark.class_names == INTENTS and benchmark.n_classes_per_exp == [2, 2]
    for stream, source in (
        (benchmark.train_stream, texts.train),
        (benchmark.valid_stream, texts.train),
        (benchmark.test_stream, texts.test),
    ):
        for e, experience in enumerate(stream):
            data = experience.tensors()
            assert data.x.dtype == torch.int16 and data.x.shape[1] == 8 and not data.mean
            assert set(data.y.tolist()) == {2 * e, 2 * e + 1}
            for x, y, i in zip(data.x, data.y, data.index, strict=True):
                assert tokenizer.decode(x.tolist(), skip_special_tokens=True) == source[int(i)].text
                assert INTENTS[int(y)] == source[int(i)].label
            x, y, _ = experience.dataset[0]
            assert torch.equal(torch.as_tensor(x), data.x[0]) and y == data.y[0]


def test_texts_that_are_cut_are_counted(root, encoder):
    with pytest.warns(UserWarning, match="64 of the 64 texts of CLINC150 are longer than 4 tokens, and were cut"):
        SplitCLINC150(encoder, 2, length=4, root=root)
    with pytest.raises(ValueError, match="length is 13, but .* its model takes 12"):
        SplitCLINC150(encoder, 2, length=13, root=root)


def test_test_texts_of_a_class_that_is_not_learned_are_refused(tmp_path, encoder):
    content = {"train": rows(2), "test": [["hello", "zzz"]], "oos_test": []}
    (tmp_path / "clinc150.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="CLINC150 has test texts of the class 'zzz', and no training texts"):
        SplitCLINC150(encoder, 2, length=8, root=tmp_path)
