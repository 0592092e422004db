"""Adapters by name: each request is answered by those that it names, beside others."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.made_adapters import write_decoder_adapter
from support.patience import until
from support.server import DEMO, image_part, question, running_server

from mlx_smolvlm import load, stream_generate
from mlx_smolvlm.server.errors import ApiError
from mlx_smolvlm.server.models import ServedModels, load_served
from mlx_smolvlm.server.settings import ServerSettings

MODEL = str(DEMO / "model")
ASK = "What do you see?"
TEMPLATE = "{% for message in messages %}Q: {{ message['content'][-1]['text'] }}{% endfor %} A:"


@pytest.fixture(scope="module")
def folders(demo, tmp_path_factory):
    """Adapters: two of the decoder, and a third one with a chat template of its own."""
    root = tmp_path_factory.mktemp("adapters")
    folders = {name: write_decoder_adapter(root / name, demo[0], seed) for seed, name in enumerate(("a", "b", "c"))}
    (folders["c"] / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folders


@pytest.fixture(scope="module")
def server(folders):
    """A server of the demo model with adapters, one of them with a weight."""
    words = [str(folders["a"]), f"{folders['b']}=-1.5", str(folders["c"])]
    settings = {"model": MODEL, "adapter_path": words, "aliases": ["all"], "default_max_tokens": 4}
    with running_server(load_served(ServerSettings(**settings)), **settings) as running:
        yield running


@pytest.fixture(scope="module")
def alone(folders):
    """A function from a served name and a question to the tokens of `stream_generate`."""
    sources = {"a": folders["a"], "b": (folders["b"], -1.5), "c": folders["c"]}
    chosen = {**sources, "model": list(sources.values()), "model:base": ()}
    pairs = {name: load(MODEL, adapters=adapters, dtype="float32") for name, adapters in chosen.items()}

    def tokens(name, messages, **options):
        steps = list(stream_generate(*pairs[name], messages, max_tokens=4, **options))
        return steps[0].prompt_ids, [step.token_id for step in steps]

    return tokens


def told(answer):
    return answer["prompt_token_ids"], answer["choices"][0]["token_ids"]


def test_requests_choose_by_name_beside_others(server, alone):
    """Eight in flight, of all models; names, aliases and none."""
    asked = [("a", "a"), ("b", "b"), ("c", "c"), ("model:base", "model:base"), ("model", "model"), ("all", "model")]
    asked += [(None, "model"), ("b", "b")]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda name: server.chat(ASK, model=name[0], return_token_ids=True), asked))
    expected = {name: alone(name, ASK) for _, name in asked}
    assert [told(answer) for answer in answers] == [expected[name] for _, name in asked]
    assert [answer["model"] for answer in answers] == [name for _, name in asked]
    assert len({str(tokens) for _, tokens in expected.values()}) == 5
    server.wait_idle()
    assert server.engine.gauges().kv_bytes == 0


def test_images_and_streams_of_adapters(server, alone):
    picture = DEMO / "picture.png"
    expected = alone("b", ASK, images=[str(picture)])
    chunks = server.chunks(question(ASK, image_part(picture)), model="b", return_token_ids=True)
    tokens = [token for chunk in chunks for token in chunk["choices"][0].get("token_ids", ())]
    assert (chunks[0]["prompt_token_ids"], tokens) == expected
    assert {chunk["model"] for chunk in chunks} == {"b"}
    gauges = server.engine.gauges()
    assert gauges.prefix_bytes > 0 and gauges.tiles_encoded > 0


def test_files_beside_an_adapter_are_those_of_its_requests(server):
    """Its template makes other prompts, wherever tokens are counted and whatever interface asks."""
    counts = {}
    for name in ("c", "model:base"):
        path = "/v1/chat/completions/input_tokens"
        counted = server.post(ASK, path, model=name).json()["input_tokens"]
        answered = server.http.post("/v1/responses", json={"model": name, "input": ASK}).json()
        assert (answered["model"], answered["usage"]["input_tokens"]) == (name, counted)
        message = {"role": "user", "content": ASK}
        lines = server.http.post("/api/chat", json={"model": name, "messages": [message]}).text.splitlines()
        assert json.loads(lines[-1])["prompt_eval_count"] == counted
        raw = server.http.post("/v1/completions", json={"model": name, "prompt": f"Q: {ASK} A:"}).json()
        assert raw["model"] == name
        counts[name] = counted, raw["usage"]["prompt_tokens"], raw["choices"][0]["text"], answered["output"]
    assert counts["c"][0] == counts["c"][1] == counts["model:base"][1] < counts["model:base"][0]
    assert counts["c"][2:] != counts["model:base"][2:]


def test_all_models_are_listed(server):
    cards = {card["id"]: card for card in server.http.get("/v1/models").json()["data"]}
    assert list(cards) == ["model", "a", "b", "c", "model:base"]
    assert [card.get("parent") for card in cards.values()] == ["model:base"] * 4 + [None]
    assert cards["model"]["aliases"] == ["all"] and cards["a"]["max_model_len"] > 0
    assert server.http.get("/v1/models/b").json() == cards["b"]
    tags = {model["name"]: model for model in server.http.get("/api/tags").json()["models"]}
    assert list(tags) == ["model:latest", "all:latest", "a:latest", "b:latest", "c:latest", "model:base"]
    assert tags["a:latest"]["size"] > tags["model:base"]["size"]
    assert len({tag["digest"] for tag in tags.values()}) == 5
    shown = server.http.post("/api/show", json={"model": "b:latest"}).json()
    assert shown["details"]["parent_model"] == "model:base" and shown["model_info"]["general.basename"] == "b"


def test_an_unknown_name_is_refused_with_those_that_are_known(server):
    for path, body in (("/v1/chat/completions", {"messages": [{"role": "user", "content": ASK}]}), ("/api/show", {})):
        response = server.http.post(path, json={**body, "model": "d"})
        assert response.status_code == 404
        assert "there is no model 'd' here; this server has model, all, a, b, c, model:base" in response.text


def test_a_client_that_leaves_ends_its_row_alone(server, alone):
    expected = alone("a", ASK)
    body = {"messages": [{"role": "user", "content": "Hello"}], "model": "b", "stream": True, "max_tokens": 400}
    schema = {"structured_outputs": {"regex": "[a-z ]{300}"}}
    with server.http.stream("POST", "/v1/chat/completions", json={**body, **schema}) as response:
        next(response.iter_lines())
        assert told(server.chat(ASK, model="a", return_token_ids=True)) == expected
    until(lambda: server.engine.is_idle)
    assert server.engine.gauges().kv_bytes == 0


def names(*adapters, **settings):
    return ServedModels(ServerSettings(adapter_path=[str(adapter) for adapter in adapters], **settings)).names


def test_names_are_those_of_hub_or_folder(tmp_path):
    one, other = tmp_path / "1" / "best", tmp_path / "2" / "best"
    assert names(model="owner/base") == ["owner/base", "base"]
    assert names("owner/x=0.5", one, model="owner/base") == [
        *("owner/base", "base", "owner/x", "best", "owner/base:base"),
    ]
    assert names(one) == ["best", "best:base"]  # whose base is not known before it is read
    assert names("owner/x") == ["owner/x", "x", "owner/x:base"]
    assert names(one, "owner/x") == ["best+owner/x", "best", "owner/x", "best+owner/x:base"]
    assert names(one, other, model="m")[1:3] == ["1/best", "2/best"]
    assert names(one, model="best", aliases=["n"])[:3] == ["best", "n", "1/best"]
    for given, problem in (
        ({"adapters": (one, f"{one}=0.5"), "model": "m"}, r"best' is given twice; give each adapter once"),
        ({"adapters": ("owner/x",), "model": "m", "aliases": ["owner/x"]}, "'owner/x' has a name of the model"),
        (
            {"adapters": (one,), "model": "m", "aliases": ["m:base"]},
            r"would be called 'm:base'; choose another --alias",
        ),
    ):
        with pytest.raises(ValueError, match=problem):
            names(*given.pop("adapters"), **given)
    with pytest.raises(ApiError, match="there is no model"):
        ServedModels(ServerSettings()).find({"model": "a"})
    chosen = ServedModels(ServerSettings(any_model=True, model="m", adapter_path=[str(one)]))
    assert [chosen.find({"model": name}).id for name in ("gpt-4o", "best", None)] == ["m", "best", "m"]


def test_adapters_that_cannot_be_used_together_are_served_by_name(demo, folders, tmp_path, caplog):
    other = write_decoder_adapter(tmp_path / "d", demo[0], 4)
    (other / "chat_template.jinja").write_text(TEMPLATE + " ", encoding="utf-8")
    settings = {"model": MODEL, "adapter_path": [str(folders["c"]), str(other)], "default_max_tokens": 2}
    pairs = load_served(ServerSettings(**settings))
    assert "the adapters cannot be used together" in caplog.text and "different chat_template.jinja" in caplog.text
    with running_server(pairs, **settings) as running:
        assert [card["id"] for card in running.http.get("/v1/models").json()["data"]] == ["c", "d", "model:base"]
        for name in (None, "model"):
            response = running.post(ASK, model=name)
            assert response.status_code == 400 and response.json()["error"]["param"] == "model"
            assert "cannot be used together; name one of c, d, model:base" in response.json()["error"]["message"]
        assert running.http.get("/v1/models/model").status_code == 400
        assert running.chat(ASK, model="d")["model"] == "d"
