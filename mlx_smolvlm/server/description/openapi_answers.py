"""Schemas of `/openapi.json` for what the server sends."""

from .openapi_parts import COUNT, FLAG, TEXT, Schema, array, either, made, number, ref

NULL: Schema = {"type": "null"}
TEXT_OR_NULL = either(TEXT, NULL)
TIME: Schema = {"type": "integer", "description": "Seconds since 1970."}
DURATION: Schema = {**COUNT, "description": "Nanoseconds."}


def answer_schemas() -> dict[str, Schema]:
    """Bodies of responses."""
    error = made({"message": TEXT, "type": TEXT, "param": TEXT_OR_NULL, "code": TEXT_OR_NULL})
    logprob = made({"token": TEXT, "logprob": {"type": "number"}, "bytes": either(array(COUNT), NULL)})
    logprobs = array({**logprob, "properties": {**logprob["properties"], "top_logprobs": array(logprob)}})
    choice = {"index": COUNT, "finish_reason": either({"enum": ["stop", "length"]}, NULL)}
    head = {"id": TEXT, "created": TIME, "model": TEXT}
    timings: Schema = {"type": "object", "additionalProperties": {"type": "number"}}
    part = made({"type": {"const": "output_text"}, "text": TEXT, "annotations": array({}), "logprobs": logprobs})
    message = made(
        {
            "id": TEXT,
            "type": {"const": "message"},
            "status": {"enum": ["in_progress", "completed", "incomplete"]},
            "role": {"const": "assistant"},
            "content": array(part),
        }
    )
    ollama_end = dict.fromkeys(("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"), DURATION)
    ollama = {
        "model": TEXT,
        "created_at": {**TEXT, "format": "date-time"},
        "done": FLAG,
        "done_reason": TEXT,
        **ollama_end,
        "prompt_eval_count": COUNT,
        "eval_count": COUNT,
        "logprobs": logprobs,
    }
    ollama_optional = tuple(name for name in ollama if name not in ("model", "created_at", "done"))
    card = made(
        {
            "name": TEXT,
            "model": TEXT,
            "modified_at": {**TEXT, "format": "date-time"},
            "size": COUNT,
            "digest": TEXT,
            "details": {"type": "object"},
        }
    )
    return {
        "Error": made({"error": error}, description="What was refused or has failed; `param` names the field."),
        "OllamaError": made({"error": TEXT}),
        "Health": made({"status": {"enum": ["loading", "ok", "closing", "dead"]}}),
        "Model": made(
            {
                "id": TEXT,
                "object": {"const": "model"},
                "created": TIME,
                "owned_by": TEXT,
                "aliases": array(TEXT),
                "max_model_len": COUNT,
                "architecture": {"type": "object"},
                "meta": {"type": "object"},
                "parent": {**TEXT, "description": "Of a model with adapters: the one without them."},
            },
            "max_model_len",
            "meta",
            "parent",
        ),
        "ModelList": made({"object": {"const": "list"}, "data": array(ref("Model"))}),
        "Usage": made(
            {
                "prompt_tokens": COUNT,
                "completion_tokens": COUNT,
                "total_tokens": COUNT,
                "prompt_tokens_details": made({"cached_tokens": COUNT, "image_tokens": COUNT}),
            }
        ),
        "InputTokens": made(
            {
                "object": {"const": "chat.completion.input_tokens"},
                "input_tokens": COUNT,
                "image_tokens": COUNT,
                "max_model_len": COUNT,
            }
        ),
        "ChatCompletion": made(
            {
                **head,
                "object": {"const": "chat.completion"},
                "choices": array(
                    made(
                        {
                            **choice,
                            "message": made({"role": {"const": "assistant"}, "content": TEXT, "refusal": NULL}),
                            "logprobs": either(made({"content": logprobs, "refusal": NULL}), NULL),
                            "token_ids": array(COUNT),
                        },
                        "token_ids",
                    )
                ),
                "usage": ref("Usage"),
                "timings": timings,
                "prompt_token_ids": array(COUNT),
            },
            "prompt_token_ids",
        ),
        "Completion": made(
            {
                **head,
                "object": {"const": "text_completion"},
                "choices": array(
                    made(
                        {
                            **choice,
                            "text": TEXT,
                            "logprobs": either({"type": "object"}, NULL),
                            "prompt_token_ids": array(COUNT),
                            "token_ids": array(COUNT),
                        },
                        "prompt_token_ids",
                        "token_ids",
                    )
                ),
                "usage": ref("Usage"),
                "timings": timings,
            }
        ),
        "Response": made(
            {
                "id": TEXT,
                "object": {"const": "response"},
                "created_at": TIME,
                "status": {"enum": ["in_progress", "completed", "incomplete"]},
                "completed_at": either(TIME, NULL),
                "error": NULL,
                "incomplete_details": either(made({"reason": {"const": "max_output_tokens"}}), NULL),
                "instructions": TEXT_OR_NULL,
                "max_output_tokens": either(COUNT, NULL),
                "model": TEXT,
                "output": array(message),
                "store": {"const": False},
                "temperature": number(0),
                "top_p": number(0, 1),
                "text": {"type": "object"},
                "metadata": {"type": "object"},
                "usage": either(
                    made(
                        {
                            "input_tokens": COUNT,
                            "input_tokens_details": {"type": "object"},
                            "output_tokens": COUNT,
                            "output_tokens_details": {"type": "object"},
                            "total_tokens": COUNT,
                        }
                    ),
                    NULL,
                ),
                "timings": timings,
            }
        ),
        "OllamaVersion": made({"version": TEXT}),
        "OllamaTags": made({"models": array(card)}),
        "OllamaModel": made(
            {
                "modelfile": TEXT,
                "parameters": TEXT,
                "template": TEXT,
                "details": {"type": "object"},
                "model_info": {"type": "object"},
                "capabilities": array(TEXT),
                "modified_at": {**TEXT, "format": "date-time"},
            }
        ),
        "OllamaChat": made({**ollama, "message": made({"role": TEXT, "content": TEXT})}, *ollama_optional),
        "OllamaGenerate": made({**ollama, "response": TEXT}, *ollama_optional),
    }
