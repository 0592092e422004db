"""What the tests of measuring and calibrating share."""

import pytest

from mlx_smolvlm.convert import calibration, quality_command, synthetic_samples


@pytest.fixture
def out(tmp_path):
    """Where to convert to: a name that is free."""
    return tmp_path / "out"


@pytest.fixture
def few_samples(monkeypatch):
    """Two pictures and two texts of the built-in samples: enough for what does not depend on how many there are."""
    original = synthetic_samples.built_in_samples
    monkeypatch.setattr(quality_command, "MINI_ROWS", 2)
    monkeypatch.setattr(calibration, "built_in_samples", lambda seed, *_: original(seed, 2, 2))
