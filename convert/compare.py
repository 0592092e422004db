"""Measures how far one checkpoint's answers are from another's."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..api.finding import find_checkpoint
from ..api.loading import load, open_checkpoint
from ..model.config import ModelConfig, read_model_config
from ..model.smolvlm import SmolVLM
from ..processor.processor import Processor
from .calibration_data import Sample, ScoredSample, answer_logits, score_samples
from .probes import probed
from .source_checkpoint import open_source

KL_PERCENTILE = 99


@dataclass(frozen=True)
class CheckpointFacts:
    """`size_bytes` of the tensors; `bits_per_weight` is that over the weights of the model."""

    name: str
    size_bytes: int
    bits_per_weight: float


@dataclass
class Comparison:
    """A candidate measured against a reference, on the tokens of answers, each given the true tokens before it.

    Attributes:
        reference, candidate: the two checkpoints.
        num_samples: prompts with answers.
        kl: Kullback-Leibler divergence of the candidate from the reference in nats, one list per sample, one number
            per token of its answer.
        agrees: whether both find the same token most likely, in the same order.
        reference_nll, candidate_nll: negative logarithm of the answer's tokens' probabilities, likewise.
        layer_errors: path of each layer -> Euclidean norm of the difference of the two models' outputs over that of the
            reference's, both given the reference's input to that layer, so that errors do not add up along the way.
    """

    reference: CheckpointFacts
    candidate: CheckpointFacts
    kl: list[list[float]] = field(default_factory=list)
    agrees: list[list[bool]] = field(default_factory=list)
    reference_nll: list[float] = field(default_factory=list)
    candidate_nll: list[float] = field(default_factory=list)
    layer_errors: dict[str, float] = field(default_factory=dict)

    def add(self, a: mx.array, b: mx.array, sample: ScoredSample) -> None:
        """Add one sample; `a` and `b` are the reference's and the candidate's logits, see `answer_logits`.

        Raises:
            ValueError: logits that are not finite.
        """
        log_a, log_b = (logits - mx.logsumexp(logits, axis=-1, keepdims=True) for logits in (a, b))
        kl = (mx.exp(log_a) * (log_a - log_b)).sum(axis=-1)
        agrees = a.argmax(axis=-1) == b.argmax(axis=-1)
        answer = mx.array(sample.answer_ids)[:, None]
        nll = [-mx.take_along_axis(log, answer, axis=-1)[:, 0] for log in (log_a, log_b)]
        mx.eval(kl, agrees, nll)
        if not mx.isfinite(kl).all().item():
            raise ValueError(f"{sample.name}: the answers' probabilities are not finite; the weights are damaged")
        self.kl.append(np.array(mx.maximum(kl, 0)).tolist())  # rounding may leave it just below
        self.agrees.append(np.array(agrees).tolist())
        self.reference_nll += np.array(nll[0]).tolist()
        self.candidate_nll += np.array(nll[1]).tolist()

    @property
    def kl_by_position(self) -> list[float]:
        """Mean divergence of the first, second, ... token of the answers that are so long."""
        longest = max(map(len, self.kl))
        return [float(np.mean([kl[i] for kl in self.kl if len(kl) > i])) for i in range(longest)]

    @property
    def greedy_agreement(self) -> float:
        """Of each answer, the share before the two models first choose different tokens; mean over the samples.

        Where the answer is the reference's own greedy one, that is what the candidate, answering greedily, repeats.
        """
        return float(np.mean([_agreed_share(agrees) for agrees in self.agrees]))

    @property
    def worst_layers(self) -> list[tuple[str, float]]:
        """Layers with their errors, the largest first."""
        return sorted(self.layer_errors.items(), key=lambda item: -item[1])

    def summary(self) -> dict[str, Any]:
        """The comparison in numbers and short texts; agreements are shares from 0 to 1."""
        kl = np.concatenate(self.kl)
        worst, error = self.worst_layers[0]
        return {
            "reference": self.reference.name,
            "candidate": self.candidate.name,
            "size_bytes": self.candidate.size_bytes,
            "reference_size_bytes": self.reference.size_bytes,
            "bits_per_weight": self.candidate.bits_per_weight,
            "reference_bits_per_weight": self.reference.bits_per_weight,
            "perplexity": float(np.exp(np.mean(self.candidate_nll))),
            "reference_perplexity": float(np.exp(np.mean(self.reference_nll))),
            "kl_mean": float(kl.mean()),
            f"kl_p{KL_PERCENTILE}": float(np.percentile(kl, KL_PERCENTILE)),
            "top_1_agreement": float(np.concatenate(self.agrees).mean()),
            "greedy_agreement": self.greedy_agreement,
            "worst_layer": worst,
            "worst_layer_error": error,
            "num_samples": len(self.kl),
            "num_answer_tokens": len(kl),
        }


def compare_checkpoints(
    reference: str | Path, candidate: str | Path, samples: Sequence[Sample], *, dtype: str = "float32"
) -> Comparison:
    """Measure a candidate against a reference: two folders or Hub ids, of any precision.

    Both models are in memory at once, in `dtype` where they are not quantized, and the logits of one sample at a time.
    Samples without an answer take the reference's greedy one.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: checkpoints of different geometries or vocabularies, or samples that cannot be read.
    """
    folders = [find_checkpoint(path) for path in (reference, candidate)]
    _check_alike(*folders)
    facts = [_facts(path, folder) for path, folder in zip((reference, candidate), folders, strict=True)]
    model, processor = load(folders[0], dtype=dtype, fuse=False)
    scored = score_samples(model, processor, samples)
    other, other_processor = load(folders[1], dtype=dtype, fuse=False)
    _check_same_vocabulary(processor, other_processor, *folders)
    return compare_models(model, other, scored, *facts)


def compare_models(
    reference: SmolVLM,
    candidate: SmolVLM,
    samples: Sequence[ScoredSample],
    reference_facts: CheckpointFacts,
    candidate_facts: CheckpointFacts,
) -> Comparison:
    """`compare_checkpoints` for loaded models and prepared samples."""
    comparison = Comparison(reference_facts, candidate_facts)
    errors = _LayerErrors(candidate)
    for sample in samples:
        with probed(reference, errors.observe):
            a = answer_logits(reference, sample)
            mx.eval(a)
        with probed(candidate, _unchanged):  # so that both add up in the same order
            comparison.add(a, answer_logits(candidate, sample), sample)
    comparison.layer_errors = errors.relative()
    return comparison


def _agreed_share(agrees: list[bool]) -> float:
    return (agrees.index(False) if False in agrees else len(agrees)) / len(agrees)


def _unchanged(path: str, layer: nn.Module, method: str, x: mx.array, y: mx.array) -> mx.array:
    return y


class _LayerErrors:
    """Runs the candidate's layers on the reference's inputs; squared norms add up over calls."""

    def __init__(self, candidate: SmolVLM):
        self._layers = dict(candidate.named_modules())
        self._squares: dict[str, list[float]] = {}

    def observe(self, path: str, layer: nn.Module, method: str, x: mx.array, y: mx.array) -> mx.array:
        """A call of the reference's layer, see `probed`."""
        if path in self._layers:
            difference = getattr(self._layers[path], method)(x).astype(mx.float32) - y.astype(mx.float32)
            squares = [mx.square(difference).sum(), mx.square(y.astype(mx.float32)).sum()]
            mx.eval(squares, y)  # at once: nothing of a whole pass is held
            # Tied embeddings are called in two ways, with outputs of different scale: counted apart, the worse wins.
            sums = self._squares.setdefault(f"{path} {method}", [0.0, 0.0])
            for i, square in enumerate(squares):
                sums[i] += float(square.item())  # type: ignore[arg-type]
        return y

    def relative(self) -> dict[str, float]:
        """Path -> error, in the order of the calls."""
        errors: dict[str, float] = {}
        for key, (difference, size) in self._squares.items():
            path = key.split()[0]
            errors[path] = max(errors.get(path, 0.0), (difference / size) ** 0.5 if size else float(difference > 0))
        return errors


def _facts(path: str | Path, folder: Path) -> CheckpointFacts:
    is_local = Path(path).expanduser().exists()
    name = folder.absolute().name if is_local else str(path)  # a Hub id says more than the folder of its download
    _, tensors = open_checkpoint(folder, read_model_config(folder))
    size_bytes = sum(array.nbytes for array in tensors.values())
    return CheckpointFacts(name, size_bytes, 8 * size_bytes / open_source(folder).num_weights)


def _check_alike(reference: Path, candidate: Path) -> None:
    a, b = (_geometry(read_model_config(folder)) for folder in (reference, candidate))
    for name in a:
        if a[name] != b[name]:
            raise ValueError(
                f"{candidate} has {name} {b[name]} and {reference} {a[name]}; "
                "only checkpoints of one geometry can be compared, such as a model and its conversion"
            )


def _geometry(config: ModelConfig) -> dict[str, int]:
    """The numbers that must be alike for one model's layers to take the other's inputs."""
    text, vision = config.text, config.vision
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return {
        "a vocab_size of": text.vocab_size,
        "a text num_key_value_heads of": text.num_key_value_heads,
        **{f"a text {name} of": getattr(text, name) for name in names},
        **{f"a vision {name} of": getattr(vision, name) for name in (*names, "image_size", "patch_size")},
        "a scale_factor of": config.scale_factor,
    }


def _check_same_vocabulary(a: Processor, b: Processor, reference: Path, candidate: Path) -> None:
    words, others = (processor.tokenizer.get_vocab(with_added_tokens=True) for processor in (a, b))
    different = sorted(word for word in words.keys() | others.keys() if words.get(word) != others.get(word))
    if different:
        raise ValueError(
            f"{candidate} and {reference} number {len(different)} tokens differently, such as {different[0]!r}; "
            "only checkpoints of one vocabulary can be compared"
        )
