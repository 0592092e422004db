"""Vectors of pages and queries equal colpali-engine's; what cannot be used is refused."""

import json

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from support.made_adapters import write_peft
from support.pictures import picture
from support.retrievers import GOLDENS, edit_json, write_golden_retriever, write_retriever

import mlx_smolvlm
from mlx_smolvlm import load_retriever
from mlx_smolvlm.model.adapters.adapter_files import read_adapter
from mlx_smolvlm.retrieval.prompt_formats import PROMPT_FORMATS

EXPECTED = json.loads((GOLDENS / "expected.json").read_text(encoding="utf-8"))
VECTORS = np.load(GOLDENS / "vectors.npz")
TOLERANCE = 1e-5  # the reference's own float32 against float64 is below 1e-6


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    return write_golden_retriever(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_retriever(tmp_path_factory.mktemp("tiny") / "retriever")


@pytest.fixture(scope="module")
def tiny(folder):
    return load_retriever(folder, dtype="float32")


def pages():
    """Of different shapes: one tile, two rows, three columns."""
    image = picture()
    return [image, image.resize((400, 520)), image.resize((500, 60)), Image.new("RGB", (9, 9), "white")]


def near(found, expected):
    return found.dtype == np.float32 and found.shape == expected.shape and np.abs(found - expected).max() < TOLERANCE


@pytest.mark.parametrize("which", ["base", "adapter"])
def test_vectors_equal_the_reference(golden, which):
    base, adapter = golden
    for name in PROMPT_FORMATS:
        retriever = load_retriever(base, adapter if which == "adapter" else None, name, dtype="float32")
        (page,) = retriever.embed_pages([GOLDENS / "page.png"])
        assert near(page, VECTORS[f"{which}/{name}/page2"])
        for query, golden_name in zip(retriever.embed_queries(EXPECTED["queries"]), ("query0", "query3"), strict=True):
            assert near(query, VECTORS[f"{which}/{name}/{golden_name}"])
        ids = EXPECTED["input_ids"][name]
        assert retriever._query_ids(EXPECTED["queries"]) == ids["queries"]


def test_an_adapter_stands_for_the_base_that_it_names(folder, tmp_path):
    """As the released repositories do, which are adapters."""
    shapes = {"model.text_model.layers.0.self_attn.q_proj": (96, 96)}
    adapter = write_peft(tmp_path / "adapter", shapes, base_model_name_or_path=str(folder))
    (expected,) = load_retriever(folder, adapter).embed_queries(["a"])
    for retriever in (load_retriever(adapter), load_retriever(None, adapter), load_retriever(folder, [(adapter, 1.0)])):
        assert np.array_equal(retriever.embed_queries(["a"])[0], expected)


def test_a_batch_has_the_vectors_of_its_pages_alone(tiny):
    together = tiny.embed_pages(pages())
    assert len({len(vectors) for vectors in together}) > 1
    for image, vectors in zip(pages(), together, strict=True):
        assert near(tiny.embed_pages([image])[0], vectors)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    queries = ["one", "", "What is the sum of the two numbers in the table?"] * 12
    for text, vectors in zip(queries, tiny.embed_queries(queries), strict=True):
        assert near(tiny.embed_queries([text])[0], vectors)
    assert tiny.embed_pages([]) == tiny.embed_queries([]) == []


def test_vectors_are_those_of_the_network(folder, tiny):
    """Final norm, `linear` with its bias, length 1: computed in numpy from the hidden states."""
    weights = load_file(folder / "model.safetensors")
    model = tiny._model
    ids = tiny._query_ids(["Which one?"])[0]
    hidden = np.array(model.language_model(model.input_embeddings(ids, None), model.make_cache()))[0]
    vectors = hidden @ weights["linear.weight"].T + weights["linear.bias"]
    assert near(tiny.embed_queries(["Which one?"])[0], vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_an_adapter_of_linear_is_merged_with_it(folder, tmp_path):
    adapter = write_peft(tmp_path / "adapter", {"linear": (128, 96)}, base_model_name_or_path=str(folder))
    update = read_adapter(adapter).updates["linear"]
    merged = tmp_path / "merged"
    write_retriever(merged)
    weights = load_file(merged / "model.safetensors")
    weights["linear.weight"] = weights["linear.weight"] + np.array(update.product())
    save_file(weights, merged / "model.safetensors", metadata={"format": "pt"})
    (expected,) = load_retriever(merged).embed_queries(["sums"])
    assert near(load_retriever(folder, adapter).embed_queries(["sums"])[0], expected)


def test_other_types_of_numbers_give_float32_vectors_that_are_near(folder, tiny):
    (expected,) = tiny.embed_queries(["Totals"])
    (found,) = load_retriever(folder, dtype="bfloat16").embed_queries(["Totals"])
    assert found.dtype == np.float32
    assert (found * expected).sum(axis=1).min() > 0.99


def test_the_width_of_vectors_is_that_of_the_file(tmp_path):
    retriever = load_retriever(write_retriever(tmp_path / "narrow", size=64))
    assert retriever.vector_size == retriever.embed_queries(["a"])[0].shape[1] == 64
    with pytest.raises(ValueError, match="vectors of 128 numbers, expected 64"):
        retriever.score([np.ones((2, 64))], [np.ones((2, 128))])


def test_converted_and_quantized_checkpoints_load(folder, tiny, tmp_path):
    from mlx_smolvlm.convert import QuantizationOptions, convert_checkpoint

    options = QuantizationOptions(bits=8, group_size=32)
    report = convert_checkpoint(folder, tmp_path / "small", quantization=options, dtype="float32")
    assert report.plan["linear"] is None
    (expected,) = tiny.embed_queries(["Totals"])
    (found,) = load_retriever(tmp_path / "small").embed_queries(["Totals"])
    assert 0.995 < (found * expected).sum(axis=1).min() < 0.9999999
    card = (tmp_path / "small" / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: visual-document-retrieval" in card
    assert "mlx_smolvlm.search" in card
    assert "mlx_smolvlm.generate" not in card


def refused(problem, *arguments, kind=ValueError, **options):
    with pytest.raises(kind, match=problem) as caught:
        load_retriever(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_checkpoints_of_another_kind_are_refused(folder, checkpoint, tmp_path):
    refused("answers questions and makes no vectors", checkpoint("smolvlm_256m"))
    refused("BiIdefics3 makes one vector", write_retriever(tmp_path / "bi", architecture="BiIdefics3"))
    refused("there is no linear.weight", write_retriever(tmp_path / "bare", linear=False))
    refused("prompt_format is 'old', expected one of training, current", folder, prompt_format="old")
    with pytest.raises(ValueError, match=r"use python -m mlx_smolvlm\.index and python -m mlx_smolvlm\.search"):
        mlx_smolvlm.load(folder)
    with pytest.raises(ValueError, match="finds pages and makes no text"):
        mlx_smolvlm.AdapterSet(folder)


def test_adapters_without_their_base_are_refused(folder, tmp_path):
    shapes = {"model.text_model.layers.0.self_attn.q_proj": (96, 96)}
    lost = write_peft(tmp_path / "lost", shapes, base_model_name_or_path=str(tmp_path / "nowhere"))
    refused("the base model of the adapter .*lost is missing", lost, kind=FileNotFoundError)
    refused("names no base", write_peft(tmp_path / "nameless", shapes))
    wide = {"model.text_model.layers.0.self_attn.q_proj": (960, 960)}
    refused("does not fit this base model", folder, write_peft(tmp_path / "wide", wide))
    refused("no model is given", None)


def test_queries_that_cannot_be_read_are_refused(tiny):
    for text, problem in (
        ("what is <image> here", "holds <image>, which stands for an image"),
        ("word " * 10_000, "tokens, and the model's context is 8192; shorten it"),
        ("word " * 200_000, r"has more than \d+ tokens, and the model's context is 8192; shorten it"),
        ("\ud800", "not valid Unicode"),
        (7, "a query is 7, expected a string"),
    ):
        with pytest.raises(ValueError, match=problem) as caught:
            tiny.embed_queries([text])
        assert len(str(caught.value)) < 400
    with pytest.raises(ValueError, match="expected a list of strings"):
        tiny.embed_queries("one")
    with pytest.raises(ValueError, match="pass a single one as images"):
        tiny.embed_pages("page.png")


def test_vectors_that_are_not_finite_are_refused(folder, tmp_path):
    write_retriever(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["linear.bias"][0] = np.nan
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    retriever = load_retriever(tmp_path)
    with pytest.raises(ValueError, match="the vectors of query 0 are not finite"):
        retriever.embed_queries(["a"])
    with pytest.raises(ValueError, match="the vectors of the page are not finite"):
        retriever.embed_pages(pages()[:1])


def test_files_of_sentence_transformers_beside_change_nothing(folder, tiny, tmp_path):
    """Their `1_Dense` repeats `linear`, which is read from the checkpoint itself."""
    write_retriever(tmp_path)
    (tmp_path / "1_Dense").mkdir()
    save_file({"linear.weight": np.zeros((128, 96), np.float32)}, tmp_path / "1_Dense" / "model.safetensors")
    (tmp_path / "modules.json").write_text("[]", encoding="utf-8")
    edit_json(tmp_path / "tokenizer_config.json")
    (tmp_path / "additional_chat_templates").mkdir()
    assert np.array_equal(load_retriever(tmp_path).embed_queries(["a"])[0], tiny.embed_queries(["a"])[0])


def test_patches_are_in_their_places_on_the_page(tiny):
    """Undone is the order of the tiles; the global image, which comes last, is left out."""
    processor = tiny.processor
    image = picture().resize((400, 520))
    prompt = PROMPT_FORMATS["training"].page
    ids = processor(prompt, images=[image], apply_chat_template=False).input_ids
    (vectors,) = tiny.embed_pages([image])
    grid = tiny.embed_patches(image)
    side = 2
    assert grid.shape == (4 * side, 4 * side, 128)
    for row in range(4):
        for column in range(4):
            marker = processor.tokenizer.token_to_id(f"<row_{row + 1}_col_{column + 1}>")
            first = ids.index(marker) + 1
            for place in range(side**2):
                y, x = row * side + place // side, column * side + place % side
                assert near(grid[y, x], vectors[first + place])
    alone = tiny.embed_patches(Image.new("RGB", (1, 1)))
    assert alone.shape[2] == 128


def test_words_of_a_query_have_their_tokens(tiny):
    text = "  Which of the 27 \u00dcbersichten\nhas it?"
    words = tiny.query_words(text)
    assert [word for word, _ in words] == text.split()
    (ids,) = tiny._query_ids([text])
    for word, places in words:
        assert tiny.processor.decode([ids[place] for place in places]).strip() == word
    assert tiny.query_words("") == []


def test_scores_are_computed_on_any_arrays_of_numbers(tiny):
    queries, found = tiny.embed_queries(["a", "some words"]), tiny.embed_pages(pages()[:2])
    expected = [[(query @ page.T).max(axis=1).sum() for page in found] for query in queries]
    scores = tiny.score([mx.array(query) for query in queries], found)
    assert scores.dtype == np.float32
    assert np.abs(scores - expected).max() < 1e-4
