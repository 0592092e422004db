"""Several adapters on one base: chosen by name, and nothing that one has read is continued by another."""

import numpy as np
import pytest
from support.editing import copied
from support.made_adapters import PLAIN, Q, write_decoder_adapter, write_peft
from support.media import picture
from tokenizers import Tokenizer

from mlx_smolvlm import AdapterSet, BatchRequest, Session, generate_batch, generate_text, load, stream_generate
from mlx_smolvlm.engine.prompt_cache import PromptCache
from mlx_smolvlm.engine.rows import Rows

BASE = "smolvlm_256m"
QUESTION = "What is the colour of the square in this image?"


@pytest.fixture(scope="module")
def adapters(checkpoint, tmp_path_factory):
    """A base with three sets of adapters, which answer otherwise."""
    folder = tmp_path_factory.mktemp("adapters")
    model, _ = load(checkpoint(BASE), dtype="float32")
    first, second = (write_decoder_adapter(folder / str(seed), model, seed) for seed in (1, 2))
    return AdapterSet(
        checkpoint(BASE), {"a": first, "b": (second, -1.5), "both": [first, (second, 0.5)]}, dtype="float32"
    )


def answer(pair, **options) -> str:
    return generate_text(*pair, QUESTION, images=[picture("tiny")], max_tokens=24, skip_special_tokens=False, **options)


@pytest.fixture(scope="module")
def answers(adapters):
    """Of each name alone."""
    found = {name: answer(adapters.pair(name)) for name in (None, "a", "b", "both")}
    assert len(set(found.values())) == 4
    return found


ORDER = ("a", None, "b", None, "a", "both")


def test_names_choose_adapters(adapters, answers, checkpoint):
    assert adapters.names == ["a", "b", "both"]
    assert answers[None] == answer(load(checkpoint(BASE), dtype="float32"))
    assert [answer(adapters.pair(name)) for name in ORDER] == [answers[name] for name in ORDER]


def test_sets_of_adapters_are_added_and_removed_at_run_time(adapters, answers):
    adapters.add("again", [PLAIN])
    pair = adapters.pair("again")
    with pytest.raises(ValueError, match="there are adapters 'again' already"):
        adapters.add("again", PLAIN)
    adapters.remove("again")
    with pytest.raises(ValueError, match=r"there are no adapters 'again'; expected one of a, b, both"):
        adapters.pair("again")
    assert answer(pair)
    assert answer(adapters.pair("a")) == answers["a"]
    for name, sources, problem in (("", PLAIN, "the name of an adapter is ''"), ("c", [], "no adapters are given")):
        with pytest.raises(ValueError, match=problem):
            adapters.add(name, sources)


def test_batches_of_different_adapters_answer_as_each_alone(adapters, answers):
    for name in ORDER[:4]:
        requests = [BatchRequest(QUESTION, images=[picture("tiny")])] * 2
        options = {"max_tokens": 24, "skip_special_tokens": False, "max_prefix_bytes": 2**20}
        assert [x.text for x in generate_batch(*adapters.pair(name), requests, **options)] == [answers[name]] * 2


def test_what_one_has_read_is_refused_to_another(adapters):
    cache = PromptCache()
    for _ in stream_generate(*adapters.pair("a"), QUESTION, prompt_cache=cache, max_tokens=1):
        pass
    for name in (None, "b"):
        with pytest.raises(ValueError, match="holds what another model has read"):
            list(stream_generate(*adapters.pair(name), QUESTION, prompt_cache=cache, max_tokens=1))


def test_prefixes_of_rows_belong_to_their_adapters(adapters, answers):
    """The same prompt with A, none, B, none again, each twice: the second copies what the first has read."""
    rows = {name: Rows(*adapters.pair(name)) for name in (None, "a", "b")}
    for number, name in enumerate(("a", None, "b", None, "a", "b")):
        request = BatchRequest(QUESTION, images=[picture("tiny")])
        rows[name].add(request, max_tokens=24, skip_special_tokens=False)
        events = []
        while rows[name]:
            events += rows[name].step()
        assert "".join(event.text for event in events) == answers[name]
        assert (events[-1].cached_tokens > 0) == (number >= 3)
    for each in rows.values():
        each.close()


def test_sessions_keep_to_their_adapters(adapters, answers, tmp_path):
    options = {"max_tokens": 24, "skip_special_tokens": False}
    session = Session(*adapters.pair("a"), **options)
    assert "".join(step.text for step in session.ask(QUESTION, images=[picture("tiny")])) == answers["a"]
    session.save(tmp_path / "session")
    for name in (None, "b", "both"):
        with pytest.raises(ValueError, match="was saved with another model"):
            Session.load(tmp_path / "session", *adapters.pair(name))
    for name in (None, "b", "a"):
        session.use(*adapters.pair(name))
        assert "".join(step.text for step in session.regenerate(**options)) == answers[name]
        assert "".join(step.text for step in session.regenerate(**options)) == answers[name]
    Session.load(tmp_path / "session", *adapters.pair("a"))


def test_files_beside_an_adapter_win_over_the_models(checkpoint, tmp_path):
    adapter = copied(PLAIN, tmp_path / "adapter")
    template = "{% for message in messages %}Q: {{ message['content'][0]['text'] }}{% endfor %} A:"
    (adapter / "chat_template.jinja").write_text(template)
    _, processor = load(checkpoint(BASE), adapters=adapter, dtype="float32")
    _, usual = load(checkpoint(BASE), dtype="float32")
    ids = processor("Why?").input_ids
    assert processor.tokenizer.decode(ids, skip_special_tokens=False) == "Q: Why? A:"
    assert ids != usual("Why?").input_ids
    other = copied(PLAIN, tmp_path / "other")
    (other / "chat_template.jinja").write_text(template + " ")
    with pytest.raises(ValueError, match=r"bring different chat_template.jinja, of which one prompt can have only one"):
        load(checkpoint(BASE), adapters=[adapter, other])


def test_a_larger_vocabulary_comes_with_its_embeddings_and_tokenizer(checkpoint, tmp_path):
    """As PEFT saves what was trained after `resize_token_embeddings`."""
    from safetensors.numpy import load_file, save_file

    from mlx_smolvlm.convert import convert_checkpoint

    folder = write_peft(tmp_path / "adapter", {Q: (96, 96)})
    base = load_file(checkpoint(BASE) / "model.safetensors")
    tensors = load_file(folder / "adapter_model.safetensors")
    for name in ("model.text_model.embed_tokens", "lm_head"):
        rows = np.concatenate([base[f"{name}.weight"], 3 * base[f"{name}.weight"][:2]])
        tensors[f"base_model.model.{name}.weight"] = rows
    save_file(tensors, folder / "adapter_model.safetensors")
    tokenizer = Tokenizer.from_file(str(checkpoint(BASE) / "tokenizer.json"))
    tokenizer.add_tokens(["<point>", "<box>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    model, processor = load(checkpoint(BASE), adapters=folder, dtype="float32")
    vocab_size = len(base["lm_head.weight"]) + 2
    assert model.config.text.vocab_size == vocab_size
    ids = processor("<box> or <point>?").input_ids
    assert {vocab_size - 2, vocab_size - 1} <= set(ids)
    logits = np.array(model(ids))
    assert logits.shape == (1, len(ids), vocab_size)
    convert_checkpoint(checkpoint(BASE), tmp_path / "merged", adapter_path=folder)
    merged, its_processor = load(tmp_path / "merged", dtype="float32")
    assert its_processor("<box> or <point>?").input_ids == ids
    assert np.abs(np.array(merged(ids)) - logits).max() < 1e-4 * np.abs(logits).max()
    with pytest.raises(ValueError, match="2 tokens more than this base model has; its weight must be 1"):
        load(checkpoint(BASE), adapters=[(folder, 0.5)])
    del tensors["base_model.model.lm_head.weight"]
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"holds no language_model.lm_head.weight with their rows"):
        load(checkpoint(BASE), adapters=folder)


def test_weights_out_of_range_are_refused(checkpoint):
    for weight in (float("nan"), float("inf"), 1e9):
        with pytest.raises(ValueError, match=r"the weight of adapter .* expected a number from -1000 to 1000"):
            load(checkpoint(BASE), adapters=(PLAIN, weight))
    with pytest.raises(TypeError, match="an adapter is 3, expected a folder or Hub id"):
        load(checkpoint(BASE), adapters=[3])
    with pytest.raises(TypeError, match="to choose among several by name, use AdapterSet"):
        load(checkpoint(BASE), adapters={"a": PLAIN})


def test_a_type_that_there_is_not_is_refused(checkpoint):
    with pytest.raises(ValueError, match="dtype is 'int7', expected one of"):
        AdapterSet(checkpoint(BASE), dtype="int7")
