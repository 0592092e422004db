"""Shared fixtures: tiny checkpoints of every geometry, and the reference's answers on them."""

import gc
import signal
from pathlib import Path

import mlx.core as mx
import pytest
from support.checkpoints import write_checkpoint

import mlx_smolvlm
from mlx_smolvlm.model.layers import streams


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run tests that take minutes")
    parser.addoption("--network", action="store_true", help="run tests that need the internet")
    parser.addoption("--gpu", action="store_true", help="compute on the GPU, where sums may differ from the goldens'")
    parser.addoption("--in-process", action="store_true", help="leave out files that start processes of their own")


def pytest_configure():
    """Ctrl-C works in the tests and in what they start, also where a shell started pytest in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests share what they make, so they run in one process."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


def pytest_collection_finish():
    """What is loaded by now stays: the collections that tests ask for need not walk over it each time."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config, items):
    for mark in ("slow", "network"):
        if not config.getoption(f"--{mark}"):
            for item in items:
                if mark in item.keywords:
                    item.add_marker(pytest.mark.skip(reason=f"{mark}: run with --{mark}"))
    if config.getoption("--in-process"):  # other processes compute on the machine's default device
        for item in items:
            if hasattr(item.module, "subprocess"):
                item.add_marker(pytest.mark.skip(reason="starts processes: run without --in-process"))


@pytest.fixture(scope="session", autouse=True)
def device(pytestconfig):
    """The goldens are float32 on a CPU; GPUs may compute float32 products more coarsely."""
    streams._worker().submit(str).result()  # once begun it stays, and tests count threads
    mx.set_default_device(mx.gpu if pytestconfig.getoption("--gpu") else mx.cpu)


@pytest.fixture(autouse=True)
def state_folder(tmp_path_factory, monkeypatch):
    """What commands keep between runs stays out of the user's folder, and out of the next test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A function from a checkpoint's name to its folder, written once."""
    root, folders = tmp_path_factory.mktemp("checkpoints"), {}

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = write_checkpoint(name, root / name)
        return folders[name]

    return folder


@pytest.fixture(scope="session")
def loaded(checkpoint):
    """A function from a checkpoint's name to its (model, processor) in float32, loaded once."""
    pairs = {}

    def pair(name: str, fuse: bool = True):
        if (name, fuse) not in pairs:
            pairs[name, fuse] = mlx_smolvlm.load(checkpoint(name), dtype="float32", fuse=fuse)
        return pairs[name, fuse]

    return pair


@pytest.fixture(scope="session")
def pair(loaded):
    """A tiny model and its processor, in float32."""
    return loaded("smolvlm_256m")


@pytest.fixture(scope="session")
def demo():
    """The demo model and its processor, in float32: small, but it sees, and its heads can have a quantized cache."""
    return mlx_smolvlm.load(mlx_smolvlm.DEMO_MODEL, dtype="float32")


@pytest.fixture(scope="session")
def trained_checkpoint() -> Path:
    """The demo model in full precision: small, but its weights and activations are those of a trained network."""
    return Path(__file__).parent.parent / "examples" / "demo_model" / "checkpoint"


@pytest.fixture(scope="session")
def trained(trained_checkpoint):
    """The trained checkpoint's (model, processor) in float32, unfused; tests leave its weights as they are."""
    return mlx_smolvlm.load(trained_checkpoint, dtype="float32", fuse=False)
