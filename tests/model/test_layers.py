"""What the networks are built of: the same values in fewer kernels, whatever the device."""

import threading

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_smolvlm.model.layers import streams
from mlx_smolvlm.model.layers.activations import gelu_tanh, swiglu
from mlx_smolvlm.model.layers.normalization import normalization
from mlx_smolvlm.model.layers.streams import side_by_side, with_side_streams


def test_gelu_is_the_tanh_approximation_to_the_last_digits():
    x = np.linspace(-12, 12, 4801, dtype=np.float64)
    expected = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    assert np.abs(np.array(gelu_tanh(mx.array(x, mx.float32))) - expected).max() < 1e-6  # float32 has 24 bits


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_gelu_of_values_as_large_as_the_last_siglip_layers_is_finite(dtype):
    assert gelu_tanh(mx.array([-600.0, 600.0], dtype)).tolist() == [0, 600]


def test_swiglu_is_silu_times_up():
    gate, up = mx.random.normal((2, 1, 3, 8), key=mx.random.key(0))
    assert mx.allclose(swiglu(gate, up), nn.silu(gate) * up, atol=1e-6).item()


@pytest.mark.parametrize("num_tokens", [1, 3])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1.5e4])  # the residual stream reaches 15,500
def test_tokens_are_normalized_as_by_the_kernel(num_tokens, dtype, scale):
    layer = nn.RMSNorm(576, eps=1e-5)
    layer.weight = mx.random.normal((576,), key=mx.random.key(1)).astype(dtype)
    x = (scale * mx.random.normal((1, num_tokens, 576), key=mx.random.key(2))).astype(dtype)
    y = normalization(x, 1e-5)(layer, x)
    assert y.dtype == dtype
    assert mx.allclose(y, layer(x), rtol=2e-6, atol=1e-6).item()  # sums in another order


def test_whatever_stands_in_for_a_norm_is_called():
    x = mx.ones((1, 1, 4))
    assert normalization(x, 1e-5)(lambda x: 2 * x, x).tolist() == [[[2, 2, 2, 2]]]


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("cores", [1, 2, 4])
def test_rows_keep_their_order_side_by_side(monkeypatch, num_rows, cores):
    monkeypatch.setattr(streams.os, "cpu_count", lambda: cores)
    streams._streams.cache_clear()
    rows = mx.arange(num_rows * 2).reshape(num_rows, 2)
    assert side_by_side(lambda part: part * 10 + 1, rows).tolist() == (rows * 10 + 1).tolist()
    streams._streams.cache_clear()


def test_other_threads_leave_side_streams_to_one_worker(monkeypatch):
    """MLX keeps a stream's thread for ever, so a short-lived thread makes none."""
    monkeypatch.setattr(streams.os, "cpu_count", lambda: 2)
    streams._streams.cache_clear()
    parts, results = [], []

    def add_one(part):
        parts.append((threading.current_thread().name, part.shape[0]))
        return part + 1

    def work(call):
        results.append(call(lambda: side_by_side(add_one, mx.arange(6).reshape(3, 2)).tolist()))

    def in_worker(function):
        return with_side_streams(function, 3, lambda: None)

    before = mx.default_stream(mx.cpu)
    for call in (lambda function: function(), in_worker, in_worker):
        thread = threading.Thread(target=work, args=[call], name="short")
        thread.start()
        thread.join()
    work(in_worker)
    assert results == [[[1, 2], [3, 4], [5, 6]]] * 4
    assert [rows for _, rows in parts] == [3, 1, 2, 1, 2, 1, 2]
    workers = [name.partition("_0")[0] for name, _ in parts]
    assert workers == ["short", *["side streams of mlx_smolvlm"] * 4, *["MainThread"] * 2]
    assert mx.default_stream(mx.cpu) == before
    streams._streams.cache_clear()


def test_a_wait_for_the_worker_can_be_given_up(monkeypatch):
    monkeypatch.setattr(streams.os, "cpu_count", lambda: 2)
    busy, begun, made = threading.Event(), threading.Event(), []

    def long_work():
        begun.set()
        busy.wait(30)

    def cancelled():
        raise InterruptedError

    def give_up():
        with pytest.raises(InterruptedError):
            with_side_streams(lambda: made.append("for nothing"), 2, cancelled)
        made.append("given up")

    first = threading.Thread(target=with_side_streams, args=(long_work, 2, lambda: None))
    first.start()
    begun.wait(30)
    second = threading.Thread(target=give_up)
    second.start()
    second.join(30)
    busy.set()
    first.join()
    assert made == ["given up"]
