"""`continue_final_message`: the prompt ends with the assistant's words, as in transformers' `apply_chat_template`."""

import pytest

from mlx_smolvlm import DEMO_MODEL, Session, generate_text, load
from mlx_smolvlm.processor.chat_template import FAMILY_TEMPLATE, render

PICTURE = str(DEMO_MODEL.parent / "picture.png")


def user(text):
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def assistant(text):
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


# What transformers 5 renders with this template and `continue_final_message=True`.
@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([user("What?"), assistant("It is a")], "<|im_start|>User: What?<end_of_utterance>\nAssistant: It is a"),
        (
            [user("a"), assistant("b"), user("c"), assistant("The answer is: ")],
            "<|im_start|>User: a<end_of_utterance>\nAssistant: b<end_of_utterance>\n"
            "User: c<end_of_utterance>\nAssistant: The answer is: ",
        ),
        (
            [user("a"), assistant(" leading and trailing  ")],
            "<|im_start|>User: a<end_of_utterance>\nAssistant:  leading and trailing  ",
        ),
        ([user("x"), assistant("x")], "<|im_start|>User: x<end_of_utterance>\nAssistant: x"),
    ],
)
def test_the_prompt_ends_with_the_last_message(messages, expected):
    assert render(FAMILY_TEMPLATE, messages, {}, continue_final_message=True) == expected


def test_a_template_that_drops_the_last_message_is_refused():
    with pytest.raises(ValueError, match="does not show the last message"):
        render("{{ messages[0]['role'] }}", [user("a"), assistant("b")], {}, continue_final_message=True)


@pytest.fixture(scope="module")
def demo():
    return load(DEMO_MODEL, dtype="float32")


@pytest.mark.parametrize("size", [0, 5, 9])
def test_a_continued_answer_is_the_rest_of_the_whole_one(demo, size):
    """The space at which it was cut is part of the text that is added."""
    question = user("What shape is it?")
    question["content"].insert(0, {"type": "image", "path": PICTURE})
    whole = generate_text(*demo, [question])
    cut = whole.index(" ", size) if " " in whole[size:] else len(whole)
    rest = generate_text(*demo, [question, assistant(whole[:cut])], continue_final_message=True)
    assert whole[:cut] + rest == whole


@pytest.mark.parametrize(
    "prompt",
    [
        "What?",
        [user("What?")],
        [user("What?"), {"role": "assistant", "content": [{"type": "image", "path": PICTURE}]}],
    ],
)
def test_what_ends_otherwise_cannot_be_continued(demo, prompt):
    with pytest.raises(ValueError, match="continue_final_message needs a conversation that ends with text"):
        generate_text(*demo, prompt, continue_final_message=True)


def test_a_session_makes_its_prompts_itself(demo):
    with pytest.raises(ValueError, match="continue_final_message is True, but a session makes its prompts"):
        Session(*demo, continue_final_message=True)
