"""Downloads from the Hub: given up when nothing is heard, and not while bytes come."""

import threading
import time

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from mlx_smolvlm.api import hub


@pytest.fixture
def silence(monkeypatch):
    """Half a second is long."""
    monkeypatch.setattr(hub, "SILENCE_S", 0.5)
    monkeypatch.setattr(hub, "_POLL_S", 0.02)


@pytest.mark.usefixtures("silence")
@pytest.mark.parametrize("is_cached", [False, True])
def test_a_hub_that_never_answers_is_given_up(monkeypatch, tmp_path, is_cached):
    """Then what was downloaded before is used, or the message says what to do."""
    over = threading.Event()

    def snapshot_download(*_, local_files_only=False, **__):
        if not local_files_only:
            over.wait(30)
        if not is_cached:
            raise LocalEntryNotFoundError("offline")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    start = time.monotonic()
    try:
        if is_cached:
            assert hub.download("owner/name", None) == tmp_path
        else:
            step = r"`hf download owner/name --local-dir FOLDER` and pass FOLDER"
            with pytest.raises(ConnectionError, match=f"the Hub has not answered for 0.5 s; try again, .*{step}"):
                hub.download("owner/name", None)
    finally:
        over.set()
    assert time.monotonic() - start < 5


@pytest.mark.usefixtures("silence")
def test_a_slow_download_goes_on_as_long_as_bytes_come(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "SILENCE_S", 1.5)

    def snapshot_download(*_, tqdm_class, **__):
        bar = tqdm_class(total=10, disable=True)
        for _ in range(8):
            time.sleep(0.2)
            bar.update(1)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert hub.download("owner/name", None) == tmp_path


def test_a_hub_that_cannot_be_reached_says_what_to_do_elsewhere(monkeypatch):
    def snapshot_download(*_, **__):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(ConnectionError, match=r"the Hub cannot be reached .*hf download owner/name --local-dir FOLDER"):
        hub.download("owner/name", None)
