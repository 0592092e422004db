"""Quantized and rotating caches against attention over everything, and what they cost."""

import mlx.core as mx
import numpy as np
import pytest
from support.golden_cases import golden_cases

from mlx_smolvlm import DEMO_MODEL, GenerationOptions, PromptCache, stream_generate
from mlx_smolvlm.model.caches.batch_cache import BatchCache
from mlx_smolvlm.model.caches.kv_cache import KVCache
from mlx_smolvlm.model.caches.quantized import QuantizedKVCache
from mlx_smolvlm.model.caches.rotating import KEEP, RotatingKVCache
from mlx_smolvlm.model.config import TextConfig
from mlx_smolvlm.model.language import LanguageModel

TOKENS, HEADS, KV_HEADS, HEAD_DIM = 40, 4, 2, 32
QUERIES = mx.random.normal((1, HEADS, TOKENS, HEAD_DIM), key=mx.random.key(0))
KEYS_VALUES = mx.random.normal((1, 2 * KV_HEADS, TOKENS, HEAD_DIM), key=mx.random.key(1))


def attended(cache: KVCache, portion: int) -> mx.array:
    """Attention of all tokens, read some at a time."""
    parts = [
        cache.attend(QUERIES[:, :, i : i + portion], KEYS_VALUES[:, :, i : i + portion], 0.2)
        for i in range(0, TOKENS, portion)
    ]
    return mx.concatenate(parts, axis=2)


def at_once(window: int | None = None, keys_values: mx.array = KEYS_VALUES) -> mx.array:
    """The same by one masked attention: the past, within a window and the first KEEP tokens."""
    place = np.arange(TOKENS)
    visible = place <= place[:, None]
    if window is not None:
        visible &= (place < KEEP) | (place > place[:, None] - window)
    keys, values = mx.split(keys_values, 2, axis=1)
    return mx.fast.scaled_dot_product_attention(QUERIES, keys, values, scale=0.2, mask=mx.array(visible))


@pytest.mark.parametrize("portion", [1, 7, 40])
def test_the_plain_cache_sees_the_past(portion):
    assert mx.abs(attended(KVCache(), portion) - at_once()).max().item() < 1e-5


@pytest.mark.parametrize("size", [5, 6, 10, 39, 40, 50])
@pytest.mark.parametrize("portion", [1, 3, 7, 12, 40])
def test_a_rotating_cache_sees_its_window_in_whatever_portions_it_reads(size, portion):
    cache = RotatingKVCache(size)
    assert mx.abs(attended(cache, portion) - at_once(size - KEEP)).max().item() < 1e-5
    assert cache.offset == TOKENS


def test_a_rotating_cache_has_room_for_its_window_however_it_grew():
    """A buffer that holds less grows first: MLX does not check where it writes."""
    count = 359
    queries, keys_values = (mx.random.normal((1, 2, count, 8), key=mx.random.key(number)) for number in (2, 3))
    cache, parts = RotatingKVCache(300), []
    for start, end in ((0, 200), (200, 350), (350, 358), (358, 359)):
        parts.append(cache.attend(queries[:, :, start:end], keys_values[:, :, start:end], 0.3))
        mx.eval(cache.state)
        assert cache.buffer.shape[2] >= min(300, end)
    place = np.arange(count)
    visible = (place <= place[:, None]) & ((place < KEEP) | (place > place[:, None] - (300 - KEEP)))
    keys, values = mx.split(keys_values, 2, axis=1)
    expected = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.3, mask=mx.array(visible))
    assert mx.abs(mx.concatenate(parts, axis=2) - expected).max().item() < 1e-5


@pytest.mark.parametrize("start", [0, 15])
@pytest.mark.parametrize("portion", [1, 7, 12, 40])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantized_cache_sees_the_past_rounded_once_it_has_begun(start, portion, bits):
    seen = attended(QuantizedKVCache(bits, 32, start), portion)
    rounded = at_once(keys_values=mx.dequantize(*mx.quantize(KEYS_VALUES, 32, bits), 32, bits))
    begun = start // portion * portion  # the portion that takes it past `start` is the first
    assert mx.abs(seen - rounded)[:, :, begun:].max().item() < 1e-5
    if begun:
        assert mx.abs(seen - at_once())[:, :, :begun].max().item() < 1e-5


@pytest.mark.parametrize("cache", [KVCache(), QuantizedKVCache(8, 32, 0), QuantizedKVCache(8, 32, 20)])
def test_what_is_trimmed_is_forgotten(cache):
    expected = attended(cache, 8)
    for length in (30, 8, 0):
        assert cache.trim(length)
        rest = cache.attend(QUERIES[:, :, length:], KEYS_VALUES[:, :, length:], 0.2)
        assert cache.offset == TOKENS
        assert mx.abs(rest - expected[:, :, length:]).max().item() < 0.05  # those before `start` are rounded now


def test_a_rotating_cache_goes_back_only_while_it_holds_everything():
    cache = RotatingKVCache(20)
    cache.attend(QUERIES[:, :, :20], KEYS_VALUES[:, :, :20], 0.2)
    assert cache.trim(10)
    cache.attend(QUERIES[:, :, 10:], KEYS_VALUES[:, :, 10:], 0.2)
    assert not cache.trim(39)
    assert cache.offset == TOKENS
    assert cache.trim(0)
    assert mx.abs(attended(cache, 7) - at_once(20 - KEEP)).max().item() < 1e-5


def test_a_growing_buffer_is_copied_seldom():
    cache, sizes = KVCache(), set()
    for _ in range(4000):
        cache.append(mx.zeros((1, 2, 1, 4)))
        sizes.add(cache.buffer.shape[2])
        mx.eval(cache.state)
    assert len(sizes) <= 12
    assert max(sizes) < 1.3 * 4000


def answer(pair, prompt, **options) -> list[int]:
    return [step.token_id for step in stream_generate(*pair, prompt, max_tokens=12, **options)]


def test_answers_with_an_8_bit_cache_are_those_without(demo):
    images = [str(DEMO_MODEL.parent / "picture.png")]
    expected = answer(demo, "What shape is it?", images=images)
    assert answer(demo, "What shape is it?", images=images, kv_bits=8, kv_group_size=32) == expected
    assert answer(demo, "What shape is it?", images=images, max_kv_size=500) == expected


@pytest.mark.parametrize("options", [{"kv_bits": 8, "kv_group_size": 32}, {"max_kv_size": 60}, {"max_kv_size": 20}])
def test_follow_up_questions_with_a_prompt_cache_answer_as_without(demo, options):
    cache = PromptCache()
    messages = [{"role": "user", "content": "Name a colour and a shape, and count the circles."}]
    for question in ("And a small one?", "Where is it?"):
        first = answer(demo, messages, prompt_cache=cache, **options)
        assert first == answer(demo, messages, **options)
        said = demo[1].decode(first, skip_special_tokens=True)
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": question}]


def test_a_prompt_cache_keeps_to_its_options(demo):
    cache = PromptCache()
    answer(demo, "Hello.", prompt_cache=cache)
    with pytest.raises(ValueError, match="begun with"):
        answer(demo, "Hello.", prompt_cache=cache, max_kv_size=100)


def test_drafts_with_a_quantized_cache(demo):
    options = {"kv_bits": 8, "kv_group_size": 32}
    for question in ("What shape is it?", "Red red red red red red red"):
        assert answer(demo, question, prompt_lookup_tokens=5, **options) == answer(demo, question, **options)


def peak_of_reading(model: LanguageModel, options: GenerationOptions, num_tokens: int, chunk: int) -> int:
    """Bytes at most beyond the weights."""
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    cache = model.make_cache(options)
    for start in range(0, num_tokens, chunk):
        model(model.embed_tokens(mx.arange(start, min(start + chunk, num_tokens)) % 500)[None], cache)
        mx.eval([layer.state for layer in cache])
    return mx.get_peak_memory() - before


def test_memory_of_an_8k_prompt_is_bounded_by_chunks_and_by_the_cache():
    model = LanguageModel(TextConfig(512, 32, 32, 2, 1, 1, 32, 8192, 1e-5, 1e5), False)
    model.fuse()
    mx.eval(model.parameters())
    plain = peak_of_reading(model, GenerationOptions(), 8192, 256)
    keys_values = 2 * 8192 * 2 * 32 * 4  # layers, tokens, key and value, head_dim, bytes
    scores = 256 * 8192 * 4  # tokens of a chunk, tokens seen, bytes
    assert plain < 1.6 * keys_values + 4 * scores
    assert peak_of_reading(model, GenerationOptions(max_kv_size=512), 8192, 256) < plain / 4


def test_a_quantized_cache_takes_the_memory_of_its_bits():
    held = {}
    for bits in (None, 8, 4):
        cache = KVCache() if bits is None else QuantizedKVCache(bits, 32, 0)
        cache.attend(mx.zeros((1, 4, 4096, 32)), mx.zeros((1, 4, 4096, 32)), 1.0)
        held[bits] = sum(array.nbytes for array in cache.state)
    assert held[8] < 0.32 * held[None]  # of float32, scales and biases included
    assert held[4] < 0.2 * held[None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kv_bits": 3}, "kv_bits is 3"),
        ({"kv_bits": 8, "kv_group_size": 48}, "kv_group_size is 48"),
        ({"kv_bits": 8}, "does not divide this model's head_dim, 16; leave out kv_bits"),
        ({"quantized_kv_start": -1}, "quantized_kv_start is -1"),
        ({"max_kv_size": 4}, "max_kv_size is 4"),
        ({"max_kv_size": 100, "kv_bits": 8}, "cannot be combined"),
    ],
)
def test_options_that_cannot_be_met_are_refused(loaded, options, message):
    with pytest.raises(ValueError, match=message):
        stream_generate(*loaded("smolvlm_256m"), "Hello.", **options)


def test_a_group_size_that_would_fit_is_named(demo):
    with pytest.raises(ValueError, match="head_dim, 32; use 32"):
        stream_generate(*demo, "Hello.", kv_bits=8)


def test_the_golden_answer_holds_with_a_rotating_cache_that_is_long_enough(loaded):
    case = golden_cases("smolvlm_256m")["text"]
    steps = stream_generate(*loaded("smolvlm_256m"), case["messages"], max_tokens=32, max_kv_size=1000)
    assert [step.token_id for step in steps] == case["generated_ids"]


def test_what_a_row_held_before_does_not_spoil_the_next_answer():
    class Config:
        num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim = 1, 2, 1, 4

    def held(value, length):
        cache = KVCache()
        cache.append(mx.full((1, 2, length, 4), value))
        return [cache]

    cache = BatchCache(Config, 4)
    cache.arrange([], 2)
    cache.put(0, held(mx.nan, 9))
    cache.put(0, held(1.0, 3))
    cache.put(1, held(2.0, 9))
    cache.begin_step()
    out = cache.layers[0].attend(mx.ones((1, 2, 2, 4)), mx.ones((1, 2, 2, 4)), 1.0)
    assert np.isfinite(np.array(out)).all()
    assert np.allclose(np.array(out[0, :, 0]), 1.0)
    cache.end_step([1])
    assert cache.lengths.tolist() == [0, 10]
