"""Chooses the bits of each layer of the decoder: layers that the answers are sensitive to get more.

Rounding changes a layer's output; how much that changes the answers' probabilities is, to second order, the Fisher
information of the output. Its diagonal is measured here, by sending random vectors whose covariance is that of the
answers' probabilities back through the network.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np

from ..model.smolvlm import SmolVLM
from .blocks import EMBEDDINGS, Block, decoder_block, head_path
from .calibration_data import ScoredSample, embed
from .plan import Plan, part_of
from .probes import get_module, probed
from .quantize import FORMATS, LayerFormat

Costs = dict[str, dict[LayerFormat, float]]
"""Layer path -> format -> expected divergence in nats per answer token if that layer alone is rounded to nearest so."""


def candidate_formats(plan: Plan, fixed_parts: Collection[str] = ()) -> dict[str, list[LayerFormat]]:
    """The decoder's layers that a plan quantizes in affine mode, embeddings and head included unless "embeddings" is
    fixed, with every number of bits that each could have."""
    parts = {"decoder", "embeddings"} - set(fixed_parts)
    return {
        path: [replace(layer_format, bits=bits) for bits in FORMATS["affine"][0]]
        for path, layer_format in plan.items()
        if layer_format and layer_format.mode == "affine" and part_of(path) in parts
    }


def measure_costs(
    model: SmolVLM, samples: Sequence[ScoredSample], formats: Mapping[str, Sequence[LayerFormat]]
) -> Costs:
    """Estimate what each format of each layer would cost, from one backward pass per sample.

    The pass goes block by block from the saved inputs of each, so that it needs memory for one block at a time.
    """
    costs: Costs = {path: dict.fromkeys(choices, 0.0) for path, choices in formats.items()}
    language = model.language_model
    num_tokens = sum(len(sample.answer_ids) for sample in samples)
    for number, sample in enumerate(samples):
        blocks = [(f"language_model.layers.{i}.", decoder_block(language, i)) for i in range(len(language.layers))]
        hidden = [embed(model, sample)]
        for _, block in blocks:
            hidden.append(block(hidden[-1]))
            mx.eval(hidden[-1])

        def head(x: mx.array, first: int = sample.first_scored) -> mx.array:
            return language.logits(language.norm(x)[:, first - 1 : -1])

        cotangent = _random_cotangent(head(hidden[-1]), mx.random.key(number))
        blocks.append((head_path(model.config), head))
        for (under, block), x in zip(reversed(blocks), reversed(hidden), strict=True):
            cotangent, seen = _backward(model, under, block, x, cotangent)
            for path, (inputs, gradient) in seen.items():
                for layer_format in formats.get(path, ()):
                    change = inputs @ _rounding_error(model, path, layer_format).T
                    costs[path][layer_format] += _expected_divergence(change, gradient) / num_tokens
        ids = np.array(sample.input_ids)
        words = mx.array(np.flatnonzero(ids != model.config.image_token_id))
        for layer_format in formats.get(EMBEDDINGS, ()):
            change = _rounding_error(model, EMBEDDINGS, layer_format)[mx.array(ids)[words]]
            costs[EMBEDDINGS][layer_format] += _expected_divergence(change, cotangent[0, words]) / num_tokens
    return costs


def _random_cotangent(logits: mx.array, key: mx.array) -> mx.array:
    """Gaussian with covariance diag(p) - p p^T, which is the Hessian of the divergence in the logits."""
    p = mx.softmax(logits.astype(mx.float32), axis=-1)
    noise = mx.sqrt(p) * mx.random.normal(p.shape, key=key)
    return (noise - p * noise.sum(axis=-1, keepdims=True)).astype(logits.dtype)


def _backward(
    model: SmolVLM, under: str, block: Block, x: mx.array, cotangent: mx.array
) -> tuple[mx.array, dict[str, tuple[mx.array, mx.array]]]:
    """The cotangent of a block's input, and for each layer in it its input and the cotangent of its output."""
    inputs: dict[str, mx.array] = {}
    zeros: list[mx.array] = []

    def record(path: str, layer: object, method: str, x: mx.array, y: mx.array) -> mx.array:
        inputs[path] = x
        zeros.append(mx.zeros_like(y))
        return y

    def shifted(x: mx.array, *shifts: mx.array) -> mx.array:
        remaining = iter(shifts)
        with probed(model, lambda path, layer, method, x, y: y + next(remaining), under):
            return block(x)

    with probed(model, record, under):
        block(x)
    _, (before, *gradients) = mx.vjp(shifted, [x, *zeros], [cotangent])
    mx.eval(before, gradients, inputs)
    return before, dict(zip(inputs, zip(inputs.values(), gradients, strict=True), strict=True))


def _rounding_error(model: SmolVLM, path: str, layer_format: LayerFormat) -> mx.array:
    weight: mx.array = get_module(model, path).weight
    return layer_format.dequantize(layer_format.quantize(weight), weight.dtype) - weight


def _expected_divergence(change: mx.array, gradient: mx.array) -> float:
    product = change.astype(mx.float32) * gradient.astype(mx.float32)
    return 0.5 * float(mx.square(product).sum().item())  # type: ignore[arg-type]


def choose_bits(
    costs: Costs, shapes: Mapping[str, Sequence[int]], target_bpw: float, scale_bits: int = 16
) -> dict[str, LayerFormat]:
    """Formats whose mean bits per weight, scales and biases included, are at most a target, at a low total cost.

    From the fewest bits for each layer, the step that saves most divergence per bit spent is taken again and again.

    Args:
        costs: see `measure_costs`.
        shapes: of each layer's weight.
        target_bpw: mean over these layers.
        scale_bits: of a scale, and of a bias.

    Raises:
        ValueError: a target that no choice meets.
    """
    check_target_bpw(costs, target_bpw, scale_bits)
    room = target_bpw * sum(math.prod(shapes[path]) for path in costs)
    chosen = {path: min(choices, key=lambda choice: choice.bits) for path, choices in costs.items()}
    room -= sum(math.prod(shapes[path]) * _bits_per_weight(choice, scale_bits) for path, choice in chosen.items())
    while True:
        steps = []
        for path, current in chosen.items():
            for choice in costs[path]:
                extra = math.prod(shapes[path]) * (choice.bits - current.bits)
                if 0 < extra <= room:
                    steps.append(((costs[path][current] - costs[path][choice]) / extra, path, choice, extra))
        if not steps:
            return chosen
        _, path, choice, extra = max(steps, key=lambda step: step[0])
        chosen[path] = choice
        room -= extra


def check_target_bpw(formats: Mapping[str, Collection[LayerFormat]], target_bpw: float, scale_bits: int = 16) -> None:
    """Refuse a target, see `choose_bits`, that none or all of the formats of every layer meet.

    Raises:
        ValueError: such a target, or no layer to choose for.
    """
    if not formats:
        raise ValueError("target-bpw has no layer whose bits could be chosen; quantize the decoder in affine mode")
    every = [_bits_per_weight(choice, scale_bits) for choices in formats.values() for choice in choices]
    if not min(every) <= target_bpw <= max(every):
        raise ValueError(
            f"target-bpw is {target_bpw:g}, but these layers can have {min(every):g} to {max(every):g} bits per "
            "weight, scales included"
        )


def _bits_per_weight(layer_format: LayerFormat, scale_bits: int) -> float:
    return layer_format.bits + 2 * scale_bits / layer_format.group_size
