"""A tiny encoder and its texts, made once."""

import pytest

from tests.texts import save_data, save_encoder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """The folder of an encoder."""
    return save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder with both datasets."""
    return save_data(tmp_path_factory.mktemp("data"))
