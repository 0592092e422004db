"""The model classes for VLMEvalKit and lmms-eval: on stand-ins, and on the suites' own classes if installed."""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image

from mlx_smolvlm import DEMO_MODEL, generate_text

MEDIA = DEMO_MODEL.parent
PICTURE, CLIP = str(MEDIA / "picture.png"), str(MEDIA / "clip.mp4")


class VLMEvalKitBase:
    """What the suite's `BaseModel` does that matters here."""

    def __init__(self):
        self.dump_image_func = None

    def generate(self, message, dataset=None):
        return self.generate_inner(message, dataset)


class LmmsEvalBase:
    """What the suite's `lmms` does that matters here."""

    def __init__(self):
        self.cache_hook = SimpleNamespace(add_partial=lambda *arguments: self.noted.append(arguments))
        self.task_dict, self.noted = {}, []

    @staticmethod
    def _resolve_system_prompt(value):
        return value

    def _apply_system_prompt(self, messages, system_prompt):
        return [{"role": "system", "content": [{"type": "text", "text": system_prompt}]}, *messages]


def stand_in(monkeypatch, name, **attributes):
    """A module, with the packages above it."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        module = ModuleType(".".join(parts[:count]))
        module.__path__ = []
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for key, value in attributes.items():
        setattr(module, key, value)


def adapter(monkeypatch, name):
    module = f"mlx_smolvlm.evaluate.suites.{name}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    loaded = import_module(module)
    monkeypatch.delitem(sys.modules, module)  # the next test's base may be another
    return loaded


@pytest.fixture(params=["stand-in", "installed"])
def vlmevalkit(request, monkeypatch):
    if request.param == "installed":
        if find_spec("vlmeval") is None:
            pytest.skip("VLMEvalKit is not installed (pip install ms-vlmeval)")
    else:
        stand_in(monkeypatch, "vlmeval.config", supported_VLM={})
        stand_in(monkeypatch, "vlmeval.vlm.base", BaseModel=VLMEvalKitBase)
        stand_in(monkeypatch, "vlmeval.config", supported_VLM={})
    return adapter(monkeypatch, "vlmevalkit")


@pytest.fixture(params=["stand-in", "installed"])
def lmms_eval(request, monkeypatch):
    if request.param == "installed":
        if find_spec("lmms_eval") is None:
            pytest.skip("lmms-eval is not installed (pip install lmms-eval)")
    else:
        stand_in(monkeypatch, "lmms_eval.api.model", lmms=LmmsEvalBase)
    return adapter(monkeypatch, "lmms_eval")


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch, demo):
    monkeypatch.setattr("mlx_smolvlm.api.loading.load", lambda *arguments, **keywords: demo)


def message(*parts):
    return [{"type": "image" if part == PICTURE else "text", "value": part} for part in parts]


def test_vlmevalkit_gets_the_wrappers_prompt_and_answer(vlmevalkit, monkeypatch, demo):
    names = vlmevalkit.register(demo=str(DEMO_MODEL))
    supported = import_module("vlmeval.config").supported_VLM
    assert "SmolVLM2-500M-MLX" in names and set(names) <= set(supported)
    model = supported["demo"]()
    question = "  What color is it?\n"
    expected = generate_text(
        *demo,
        "<|im_start|>User:<image>What color is it?\nGive a very brief answer.<end_of_utterance>\nAssistant:",
        images=[PICTURE],
        apply_chat_template=False,
    )
    assert model.generate(message(PICTURE, question), "OCRBench") == expected.strip()
    asked = []

    def noted(*given, **keywords):
        asked.append((given, keywords))
        return " A "

    monkeypatch.setattr(vlmevalkit, "generate_text", noted)
    assert model.generate(message(PICTURE, f"{question}Options:\nA. red\nB. blue\n"), "MMStar") == "A"
    assert asked[0][0][2].endswith("\nChoices:\nA. red\nB. blue<end_of_utterance>\nAssistant: Answer:")
    assert asked[0][1]["max_tokens"] == 2048 and asked[0][1]["temperature"] == 0
    model.generate(message(PICTURE, PICTURE, question), "Video-MME")
    assert asked[1][1]["media_options"].do_image_splitting is False
    model.generate(message(PICTURE, question), "MMStar")
    assert asked[2][1]["media_options"].do_image_splitting is None  # nothing is left of the video
    with pytest.raises(ValueError, match="'video', expected text or image"):
        model.generate_inner([{"type": "video", "value": CLIP}], "Other")


def request(model, doc_id, **settings):
    def to_messages(doc):
        return [{"role": "user", "content": [doc[0], {"type": "text", "text": doc[1]}]}]

    arguments = ("context", to_messages, {"max_new_tokens": 16, **settings}, doc_id, "task", "test")
    return SimpleNamespace(args=arguments)


def test_lmms_eval_gets_answers_in_the_order_of_its_requests(lmms_eval, demo):
    model = lmms_eval.LmmsEvalModel(str(DEMO_MODEL), batch_size="2", system_prompt="You are a helpful assistant.")
    docs = [
        ({"type": "image", "url": Image.open(PICTURE)}, "What color is it?"),
        ({"type": "video", "url": CLIP}, "Which way does the shape move?"),
        ({"type": "image", "url": PICTURE}, "Where is it?"),
    ]
    model.task_dict["task"] = {"test": docs}
    usual = {"temperature": 0, "top_p": None, "num_beams": 1, "do_sample": False, "until": ["\n\n"]}
    answers = model.generate_until([request(model, number, **usual) for number in (2, 1, 0)])
    assert answers == ["At the top left.", "The blue shape moves to the right.", "Red."]
    for wrong, message_ in [
        ({"num_beams": 3}, "task task, document 0: num_beams is 3"),
        ({"visual_cot": True}, "visual_cot"),
        ({"do_sample": True, "top_p": 0}, "top_p"),
    ]:
        with pytest.raises(ValueError, match=message_):
            model.generate_until([request(model, 0, **wrong)])
    for refused in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(NotImplementedError, match="generate_until"):
            refused([request(model, 0)])


def test_lmms_eval_settings_that_cannot_be_had_are_refused(lmms_eval):
    for name, value in (("batch_size", "auto"), ("batch_size", 0), ("device", "cuda")):
        with pytest.raises(ValueError, match=f"{name} is {value!r}"):
            lmms_eval.LmmsEvalModel(**{name: value})
    options = lmms_eval.generation_options({"max_new_tokens": 5, "do_sample": True, "temperature": 0.7, "until": "x"})
    assert (options.max_tokens, options.temperature, options.stop) == (5, 0.7, ("x",))
