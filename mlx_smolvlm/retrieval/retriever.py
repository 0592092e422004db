"""ColSmol: images of pages and queries -> multi-vectors, whose scores tell which page answers a query.

Port of colpali-engine, `models/idefics3/colidefics3/` (`modeling_colidefics3.py`, `processing_colidefics3.py`).
"""

import math
import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from ..engine.feature_cache import FeatureCache
from ..engine.prefill import tiles_per_step
from ..media.images import ImageSource
from ..media.prefetch import mapped_in_threads
from ..model.caches.kv_cache import KVCache
from ..model.caches.packed_rows import PackedRows
from ..model.smolvlm import SmolVLM
from ..options import quoted
from ..processor.messages import IMAGE_MARKER, Several, check_media
from ..processor.processor import Processor
from ..processor.prompt import Inputs, least_tokens
from ..processor.prompt_media import PlannedImage
from .maxsim import check_vectors, maxsim
from .prompt_formats import find_format

PAGES_PER_STEP = 4  # that are read together; some 900 tokens each
QUERIES_PER_STEP = 32
_TOKENS_PER_STEP = 8192
_PROBE = 64  # numbers of each weight that the fingerprint looks at
_PREPARING_THREADS = 3
_FEATURE_BYTES = 32 * 1024**2  # of tiles that come again: margins, empty halves of pages


class Retriever:
    """A ColSmol model, made by `load_retriever`. One thread at a time.

    Attributes:
        prompt_format: "training" or "current".
        vector_size: numbers of each vector, 128 in ColSmol.
        processor: the checkpoint's.
    """

    def __init__(self, model: SmolVLM, processor: Processor, prompt_format: str):
        """`load_retriever` describes the arguments."""
        self.processor = processor
        self.prompt_format = prompt_format
        self._model = model
        self._format = find_format(prompt_format)
        self._features = FeatureCache(_FEATURE_BYTES)
        layer: Any = model.linear
        bias: Any = (layer.base if "base" in layer else layer)["bias"]
        self.vector_size: int = bias.shape[0]

    def __repr__(self) -> str:
        return f"<Retriever: vectors of {self.vector_size} numbers, {self.prompt_format} prompts>"

    @cached_property
    def fingerprint(self) -> str:
        """Differs between models of other weights, adapters or number types; it is kept in indexes."""
        text, digest = self._model.config.text, blake2b(digest_size=16)
        digest.update(f"{text.rope_theta} {text.rope_scaling} {self.processor.config.image.longest_edge}".encode())
        parameters: Any = tree_flatten(self._model.parameters())
        for name, values in sorted(parameters):
            digest.update(f"{name} {values.shape} {values.dtype}".encode())
            digest.update(np.array(values.reshape(-1)[:_PROBE].astype(mx.float32)).tobytes())
        return digest.hexdigest()

    def embed_pages(self, images: Several[ImageSource]) -> list[np.ndarray]:
        """The vectors of pages, each given as an image.

        Args:
            images: path, http(s) or data URL, bytes, PIL image or numpy array, each.

        Returns:
            (num_vectors, vector_size) float32 each, of length 1: one for each token of the page's prompt, the words
            around the image included. Pages are read together, and get the vectors that they get alone.

        Raises:
            ValueError: an image that cannot be read, or vectors that are not finite (damaged weights, or float16
                overflow).
            FileNotFoundError: no such image.
        """
        pages = []
        with closing(self.stream_pages(check_media("images", images))) as found:
            for vectors in found:
                if isinstance(vectors, Exception):
                    raise vectors
                pages.append(vectors)
        return pages

    def stream_pages(self, images: Iterable[ImageSource]) -> Generator[np.ndarray | Exception, None, None]:
        """As `embed_pages`, page by page; in the place of one that cannot be read or embedded comes the error.

        Images are taken, and prepared in threads, a few ahead of the model.
        """

        def prepare(image: ImageSource) -> Inputs | Exception:
            try:
                return self.processor(self._format.page, images=[image], apply_chat_template=False)
            except (ValueError, OSError, TypeError) as error:
                return error

        with closing(mapped_in_threads(prepare, images, _PREPARING_THREADS)) as prepared:
            while batch := list(islice(prepared, PAGES_PER_STEP)):
                inputs = [page for page in batch if isinstance(page, Inputs)]
                vectors = iter(self._vectors([self._embeddings(page.input_ids, page.pixel_values) for page in inputs]))
                for page in batch:
                    yield page if isinstance(page, Exception) else _checked(next(vectors), "the page")

    def embed_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The vectors of queries.

        Args:
            texts: the queries; an empty one has the vectors of the prompt around it.

        Returns:
            (num_vectors, vector_size) float32 each, of length 1: one for each token of the query's prompt.

        Raises:
            ValueError: what is no list of strings, a query longer than the model's context, one with `<image>` in it,
                or vectors that are not finite.
        """
        all_ids = self._query_ids(texts)
        vectors: list[np.ndarray] = []
        for start in range(0, len(all_ids), QUERIES_PER_STEP):
            rows = [self._embeddings(ids, None) for ids in all_ids[start : start + QUERIES_PER_STEP]]
            vectors += self._vectors(rows)
        for number, one in enumerate(vectors):
            if isinstance(checked := _checked(one, f"query {number}"), Exception):
                raise checked
        return vectors

    def score(self, queries: Sequence[Any], pages: Sequence[Any]) -> np.ndarray:
        """MaxSim: the best product of each query vector with any vector of the page, added up.

        Args:
            queries, pages: lists of (num_vectors, vector_size) arrays, of whatever numbers of vectors.

        Returns:
            (num_queries, num_pages) float32.

        Raises:
            ValueError: arrays of other shapes, without vectors, or with values that are not finite.
        """
        sizes = self.vector_size
        return maxsim(check_vectors("queries", queries, sizes), check_vectors("pages", pages, sizes))

    def embed_patches(self, image: ImageSource) -> np.ndarray:
        """The vectors of a page's image tokens, each in its place on the page.

        Returns:
            (rows, columns, vector_size) float32, a grid that is laid over the whole page. Those of the global image,
            which repeats the page, are left out, unless the page is one tile.
        """
        with self.processor.prepare(self._format.page, images=[image], apply_chat_template=False) as prompt:
            layout = next(medium.layout for medium in prompt.media if isinstance(medium, PlannedImage))
            inputs = prompt.inputs()
            positions = prompt.image_positions
        (vectors,) = self._vectors([self._embeddings(inputs.input_ids, inputs.pixel_values)])
        if isinstance(checked := _checked(vectors, "the page"), Exception):
            raise checked
        side = math.isqrt(self.processor.config.image_seq_len)
        rows, columns = max(layout.rows, 1), max(layout.columns, 1)
        tiles = vectors[positions].reshape(-1, side, side, self.vector_size)[: rows * columns]
        grid: np.ndarray = tiles.reshape(rows, columns, side, side, -1).swapaxes(1, 2)  # tiles are row-major
        return grid.reshape(rows * side, columns * side, self.vector_size)

    def query_words(self, text: str) -> list[tuple[str, list[int]]]:
        """The words of a query, each with the places of its tokens among the query's vectors."""
        prompt = self.query_prompt(text)
        encoded = self.processor.tokenizer.encode(prompt)
        if encoded.ids != self.processor.encode(prompt):  # characters for private use, which `encode` takes apart
            return []
        first = len(self._format.query_start)
        words = []
        for word in re.finditer(r"\S+", text):
            start, end = word.start() + first, word.end() + first
            tokens = [place for place, (left, right) in enumerate(encoded.offsets) if left < end and right > start]
            words.append((word[0], tokens))
        return words

    def query_prompt(self, text: str) -> str:
        """What the model reads of a query.

        Raises:
            ValueError: no string, or one that asks for an image.
        """
        if not isinstance(text, str):
            raise ValueError(f"a query is {quoted(text)}, expected a string")
        if IMAGE_MARKER in text:
            raise ValueError(
                f"the query {quoted(text)} holds {IMAGE_MARKER}, which stands for an image in prompts; leave it out"
            )
        return f"{self._format.query_start}{text}{self._format.query_end}"

    def _query_ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not isinstance(texts, list | tuple):
            raise ValueError(f"queries are {quoted(texts)}, expected a list of strings")
        all_ids, most = [], self.processor.config.context_length
        for text in texts:
            prompt = self.query_prompt(text)
            least = least_tokens(prompt, self.processor.encode, most)
            ids = [] if least else self.processor.encode(prompt)
            if least or len(ids) > most:
                has = f"more than {least}" if least else len(ids)
                raise ValueError(
                    f"the query {quoted(text)} has {has} tokens, and the model's context is {most}; shorten it"
                )
            all_ids.append(ids)
        return all_ids

    def _embeddings(self, ids: list[int], pixels: np.ndarray | None) -> mx.array:
        """(1, num_tokens, hidden_size), with the features of the image's tiles in their places."""
        if pixels is None:
            return self._model.input_embeddings(ids, None)
        features, step = [], tiles_per_step(self._model)
        for start in range(0, len(pixels), step):
            features += self._features.encode(self._model, list(pixels[start : start + step]))
        return self._model.input_embeddings(ids, mx.concatenate(features))

    def _vectors(self, rows: Sequence[mx.array]) -> list[np.ndarray]:
        """Prompts, (1, num_tokens, hidden_size) each, -> the vectors of each, float32."""
        found: list[np.ndarray] = []
        while len(found) < len(rows):
            some, num_tokens = [rows[len(found)]], rows[len(found)].shape[1]
            for row in rows[len(found) + 1 :]:
                if (num_tokens := num_tokens + row.shape[1]) > _TOKENS_PER_STEP:
                    break
                some.append(row)
            lengths = [row.shape[1] for row in some]
            cache: list[KVCache] = [PackedRows(lengths)] * self._model.config.text.num_hidden_layers
            vectors = np.array(self._model.vectors(mx.concatenate(some, axis=1), cache))
            found += np.split(vectors, np.cumsum(lengths)[:-1])
        return found


def _checked(vectors: np.ndarray, what: str) -> np.ndarray | Exception:
    """The vectors, or an error if they are not finite."""
    if np.isfinite(vectors).all():
        return vectors
    return ValueError(
        f"the vectors of {what} are not finite: the weights are damaged, or too large for float16 (use float32)"
    )
