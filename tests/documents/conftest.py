"""A tiny model that knows the tags of documents."""

import pytest
from support.document_checkpoint import write_document_checkpoint

import mlx_smolvlm


@pytest.fixture(scope="session")
def document_checkpoint(tmp_path_factory):
    return write_document_checkpoint(tmp_path_factory.mktemp("checkpoints") / "document")


@pytest.fixture(scope="session")
def document_pair(document_checkpoint):
    return mlx_smolvlm.load(document_checkpoint, dtype="float32")
