"""`/openapi.json` describes every route, and what it describes is what is sent and accepted."""

import json

import jsonschema
import pytest
from support.server import DEMO, image_part, question

from mlx_smolvlm.server.app import create_app
from mlx_smolvlm.server.description.openapi import document
from mlx_smolvlm.server.page import page_routes
from mlx_smolvlm.server.settings import ServerSettings

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def described(server):
    return server.http.get("/openapi.json").json()


def validator(described, schema):
    return jsonschema.Draft202012Validator({**schema, "components": described["components"]})


def test_every_route_is_described_and_no_other(described):
    page = {route.path for route in page_routes()}
    routes = {
        (route.path.replace("{id:path}", "{model}"), method.lower())
        for route in create_app().routes
        for method in route.methods - {"HEAD"}
        if route.path not in page
    }
    assert {(path, method) for path, item in described["paths"].items() for method in item} == routes


def test_schemas_are_schemas_and_all_of_them_are_used(described):
    text = json.dumps(described)
    for name, schema in described["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert f'"#/components/schemas/{name}"' in text, name


CALLS = [
    ("get", "/health", None),
    ("get", "/v1/models", None),
    ("get", "/v1/models/smolvlm-demo", None),
    ("get", "/v1/models/other", None),
    ("get", "/openapi.json", None),
    ("post", "/v1/chat/completions", {"messages": HELLO, "logprobs": True, "top_logprobs": 1, "n": 2, "seed": 0}),
    ("post", "/v1/chat/completions", {"messages": question("What?", image_part(DEMO / "picture.png"))}),
    ("post", "/v1/chat/completions", {"messages": []}),
    ("post", "/v1/chat/completions/input_tokens", {"messages": HELLO}),
    ("post", "/v1/completions", {"prompt": "Hello", "max_tokens": 2, "logprobs": 1}),
    ("post", "/v1/responses", {"input": "Hello", "max_output_tokens": 1}),
    ("post", "/v1/responses", {"input": [{"role": "user", "content": "Hello"}], "instructions": "Be brief."}),
    ("post", "/v1/responses", {"input": "Hello", "background": True}),
    ("get", "/api/version", None),
    ("get", "/api/tags", None),
    ("post", "/api/show", {"model": "smolvlm-demo"}),
    ("post", "/api/show", {"model": "other"}),
    ("post", "/api/chat", {"messages": HELLO, "stream": False, "options": {"num_predict": 2}}),
    ("post", "/api/generate", {"prompt": "Hello", "stream": False}),
    ("post", "/api/generate", {"prompt": "Hello", "raw": True}),
]


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_what_is_sent_and_accepted_fits_the_schemas(server, described, method, path, body):
    template = "/v1/models/{model}" if path.startswith("/v1/models/") else path
    operation = described["paths"][template][method]
    response = server.http.request(method, path, json=body)
    answer = operation["responses"][str(response.status_code)]
    media_type = response.headers["content-type"].partition(";")[0]
    validator(described, answer["content"][media_type]["schema"]).validate(response.json())
    assert answer["headers"].keys() <= set(response.headers)
    if body is not None:
        asked = validator(described, operation["requestBody"]["content"]["application/json"]["schema"])
        assert asked.is_valid(body) == (response.status_code != 400)


def test_keys_are_asked_for_where_they_are_needed_and_not_told():
    keyed = document(ServerSettings(api_key="a-secret-key"))
    assert keyed["security"] == [{"bearer": []}, {"header": []}] and "a-secret-key" not in json.dumps(keyed)
    assert keyed["paths"]["/health"]["get"]["security"] == [] and document(ServerSettings())["security"] == []


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", {"messages": HELLO, "response_format": {}}, "response_format.type"),
        ("/v1/chat/completions", {"messages": HELLO, "response_format": {"json_schema": {}}}, "response_format.type"),
        (
            "/v1/chat/completions",
            {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {}, "schema": {}}},
            "response_format",
        ),
        ("/v1/chat/completions", {"messages": HELLO, "media_io_kwargs": {"video": []}}, "media_io_kwargs.video"),
        ("/v1/completions", {"prompt": "x", "suffix": []}, "suffix"),
        ("/v1/completions", {"prompt": "x", "videos": ["data:,"] * 5}, "videos"),
        ("/v1/responses", {"input": "x", "include": {}}, "include"),
        ("/v1/responses", {"input": "x", "text": {"format": {}}}, "text.format.type"),
    ],
)
def test_empty_values_of_a_wrong_type_are_not_taken_for_absent(server, path, body, param):
    """As schemathesis found, which tries the document's schemas."""
    response = server.http.post(path, json=body)
    assert response.status_code in (400, 413) and response.json()["error"]["param"] == param


@pytest.mark.parametrize("body", [{"images": {}}, {"options": {"stop": ["a"] * 5}}, {"options": {"temperature": 3}}])
def test_requests_to_load_a_model_are_checked_too(server, body):
    assert server.http.post("/api/generate", json=body).status_code == 400
