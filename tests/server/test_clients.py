"""Libraries that people ask the server with. Each test needs its library, and is left out without."""

from typing import Literal

import pydantic
import pytest
from PIL import Image
from support.server import DEMO, data_url, image_part, question

PICTURE = DEMO / "picture.png"
ASKED = "What do you see?"
MESSAGES = question(ASKED, image_part(PICTURE))
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # their imports take seconds, and warn


class Seen(pydantic.BaseModel):
    """What `with_structured_output` is given."""

    color: Literal["red", "green"]


@pytest.fixture(scope="module")
def wanted(server):
    return server.text(MESSAGES, max_tokens=40)


@pytest.mark.parametrize("responses", [False, True])
def test_langchain(server, wanted, responses):
    langchain = pytest.importorskip("langchain_openai", reason="needs langchain-openai")
    chat = langchain.ChatOpenAI(
        model="smolvlm-demo",
        base_url=f"{server.url}/v1",
        api_key="none",
        max_tokens=40,
        use_responses_api=responses,
        output_version="v0",
    )
    encoded = data_url(PICTURE).partition(",")[2]
    content = [{"type": "image", "base64": encoded, "mime_type": "image/png"}, {"type": "text", "text": ASKED}]
    messages = [{"role": "user", "content": content}]
    answer = chat.invoke(messages)
    assert answer.text == wanted and answer.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.text for chunk in chat.stream(messages)) == wanted
    assert [answer.text for answer in chat.batch([messages] * 4)] == [wanted] * 4
    assert chat.with_structured_output(Seen, method="json_schema").invoke(messages) == Seen(color="red")


def test_litellm(server, wanted, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # its import asks the internet for prices otherwise
    litellm = pytest.importorskip("litellm", reason="needs litellm")
    for prefix, base in (("openai", "/v1"), ("hosted_vllm", "/v1"), ("ollama_chat", "")):
        asked = {
            "model": f"{prefix}/smolvlm-demo",
            "api_base": server.url + base,
            "api_key": "none",
            "messages": MESSAGES,
            "max_tokens": 40,
        }
        answer = litellm.completion(**asked)
        assert answer.choices[0].message.content == wanted and answer.usage.prompt_tokens > 20
        chunks = litellm.completion(**asked, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == wanted
    with pytest.raises(litellm.BadRequestError, match="max_tokens is 0"):
        wrong = {"model": "openai/smolvlm-demo", "api_base": f"{server.url}/v1", "max_tokens": 0}
        litellm.completion(**{**asked, **wrong})


def test_doclings_requests(server, wanted):
    """What its pipeline sends for each page: an RGBA image as PNG, and fields that other servers know."""
    requests = pytest.importorskip("docling.utils.api_image_request", reason="needs docling-slim")
    with Image.open(PICTURE) as image:
        page = image.convert("RGBA")
    fields = {"model": "smolvlm-demo", "max_tokens": 40, "temperature": 0.0, "skip_special_tokens": False}
    asked = {
        "image": page,
        "prompt": ASKED,
        "url": f"{server.url}/v1/chat/completions",
        "headers": {"X-Temperature": "0"},
    }
    for ask in (requests.api_image_request, requests.api_image_request_streaming):
        result = ask(**asked, timeout=60, **fields)
        assert result.error is None and result.text == f"{wanted}<end_of_utterance>"
