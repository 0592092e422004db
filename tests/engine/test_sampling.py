"""Each filter on logits worked out by hand."""

import math

import mlx.core as mx
import pytest

from mlx_smolvlm import GenerationOptions
from mlx_smolvlm.engine.sampling import Sampler, adjusted, choose, filter_logits

PROBABILITIES = [0.5, 0.3, 0.15, 0.05]
LOGITS = mx.log(mx.array([PROBABILITIES]))


def make_sampler(options: GenerationOptions, prompt_ids: list[int], vocab_size: int):
    """What chooses the tokens of one answer."""
    sampler = Sampler(options, prompt_ids, vocab_size)
    return lambda logits: choose(logits, [sampler])


def kept(options: GenerationOptions) -> list[int]:
    return [i for i, logit in enumerate(filter_logits(LOGITS, options)[0].tolist()) if logit > -math.inf]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (GenerationOptions(), [0, 1, 2, 3]),
        (GenerationOptions(top_k=2), [0, 1]),
        (GenerationOptions(top_k=9), [0, 1, 2, 3]),
        (GenerationOptions(top_p=0.4), [0]),  # the likeliest always stays
        (GenerationOptions(top_p=0.7), [0, 1]),  # 0.5 does not reach 0.7, 0.8 does
        (GenerationOptions(top_p=0.81), [0, 1, 2]),
        (GenerationOptions(min_p=0.25), [0, 1, 2]),  # at least 0.125
        (GenerationOptions(min_p=1.0), [0]),
        (GenerationOptions(top_k=3, min_p=0.5), [0, 1]),
    ],
)
def test_filters_keep_what_they_should(options, expected):
    assert kept(options) == expected


def test_top_p_finds_the_likeliest_wherever_they_stand():
    shuffled = mx.log(mx.array([[0.05, 0.5, 0.15, 0.3]]))
    result = filter_logits(shuffled, GenerationOptions(top_p=0.7))[0].tolist()
    assert [i for i, logit in enumerate(result) if logit > -math.inf] == [1, 3]


def test_greedy_takes_the_likeliest():
    assert make_sampler(GenerationOptions(), [0], 4)(LOGITS).tolist() == [0]


def test_sampling_follows_the_distribution():
    sample = make_sampler(GenerationOptions(temperature=1.0, seed=7), [0], 4)
    counts = [0] * 4
    for _ in range(1000):
        counts[sample(LOGITS).item()] += 1
    for count, probability in zip(counts, PROBABILITIES, strict=True):  # five standard deviations
        assert abs(count / 1000 - probability) < 5 * math.sqrt(probability * (1 - probability) / 1000)


def test_a_seed_fixes_the_choices_and_leaves_the_global_state_alone():
    def draw(seed):
        sample = make_sampler(GenerationOptions(temperature=1.5, seed=seed), [0], 4)
        return [sample(LOGITS).item() for _ in range(30)]

    mx.random.seed(3)
    first = draw(11)
    after = mx.random.uniform().item()
    mx.random.seed(3)
    assert mx.random.uniform().item() == after
    assert draw(11) == first
    assert draw(12) != first


def test_repetition_penalty_counts_prompt_and_answer_and_lowers_negative_logits_too():
    sample = make_sampler(GenerationOptions(repetition_penalty=2.0), prompt_ids=[0], vocab_size=3)
    logits = mx.array([[3.0, 2.0, 1.8]])
    assert sample(logits).tolist() == [1]  # token 0 was in the prompt: 1.5
    assert sample(logits).tolist() == [2]  # token 1 was just chosen: 1.0
    assert make_sampler(GenerationOptions(repetition_penalty=2.0), [0], 2)(mx.array([[-1.0, -1.5]])).tolist() == [1]


@pytest.mark.parametrize("temperature", [0, 5e-324, 10**20, 1e300])
@pytest.mark.parametrize("penalty", [5e-324, 10**20, 10**300, 1e300])
def test_the_most_extreme_numbers_leave_finite_logits(temperature, penalty):
    """float32 holds no 1e300, and MLX takes no integer of more than 64 bits."""
    options = GenerationOptions(temperature=temperature, repetition_penalty=penalty, seed=0)
    logits = mx.array([[-900.0, 0.0, 1e-30, 900.0]])
    assert mx.isfinite(adjusted(logits, options, seen=mx.ones((1, 4), mx.bool_))).all().item()
    assert make_sampler(options, [0, 1, 2, 3], 4)(logits).item() in range(4)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("seed", -1),
    ],
)
def test_options_out_of_range_are_refused_by_name(option, value):
    with pytest.raises(ValueError, match=f"^{option} is"):
        GenerationOptions(**{option: value})


def test_samplers_of_one_and_of_several_answers_share_their_arithmetic():
    """Of one row and of several with other options, step by step, against draws by hand."""
    options = GenerationOptions(temperature=1.0, seed=7)
    single, shared = Sampler(options, [], 50), Sampler(options, [], 50)
    others = [Sampler(GenerationOptions(), [], 50), Sampler(GenerationOptions(temperature=2, top_k=3, seed=1), [], 50)]
    logits, key = mx.random.normal((3, 50), key=mx.random.key(1)), mx.random.key(7)
    for _ in range(3):
        key, now = mx.random.split(key)
        expected = mx.random.categorical(logits[1:2], key=now).item()
        assert choose(logits[1:2], [single]).item() == expected
        first, second, third = choose(logits, [others[0], shared, others[1]]).tolist()
        assert (first, second) == (mx.argmax(logits[0]).item(), expected)
        assert third in mx.argsort(-logits[2])[:3].tolist()
