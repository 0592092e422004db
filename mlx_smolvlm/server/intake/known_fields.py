"""Fields of requests by their names alone: those that are ignored, and those that are refused."""

from typing import Any

# They change nothing, or nothing that this server could do.
IGNORED = frozenset(
    {
        *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "request_id"),
        *("prompt_cache_retention", "parallel_tool_calls", "reasoning_effort", "reasoning", "reasoning_format"),
        *("verbosity", "thinking", "keep_alive", "chat_template_kwargs", "cache_prompt", "cache_salt", "id_slot"),
        *("add_special_tokens", "spaces_between_special_tokens"),
    }
)
# The same of messages: what they were called, and what came with earlier answers.
IGNORED_OF_MESSAGES = frozenset(
    {
        *("name", "id", "type", "status", "phase", "tool_call_id", "tool_name", "annotations", "cache_control"),
        *("reasoning", "reasoning_content", "reasoning_details", "thinking", "thinking_blocks", "parsed"),
        *("provider_specific_fields", "additional_kwargs", "response_metadata"),
    }
)
# Of parts, and of the objects in them that hold an address.
IGNORED_OF_PARTS = frozenset(
    {
        *("id", "index", "uuid", "name", "filename", "format", "mime_type", "media_type", "metadata", "extras"),
        *("annotations", "logprobs", "cache_control", "provider_specific_fields"),
    }
)
IGNORED_OF_SCHEMAS = ("name", "description", "strict")  # the answer keeps to the schema in any case
# Of the options of a stream: random text against eavesdroppers, without a meaning.
IGNORED_OF_STREAMS = ("include_obfuscation",)
# What the completion endpoints say of answers, and the other interfaces do not.
OF_COMPLETIONS: dict[str, tuple[Any, ...]] = {
    "return_token_ids": (False,),
    "return_progress": (False,),
    "timings_per_token": (False,),
}
# They would change the answer. Name -> the values that change nothing.
REFUSED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "logit_bias": ({}, []),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "modalities": (["text"], []),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "best_of": (1,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "use_beam_search": (False,),
    "prompt_logprobs": (0,),
    "chat_template": (),
    "documents": ([],),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "grammar": ("",),
    "mm_processor_kwargs": ({},),
    "truncate_prompt_tokens": (),
    "include_stop_str_in_output": (False,),
    "allowed_token_ids": ([],),
    "logits_processors": ([],),
    "length_penalty": (1,),
    "priority": (0,),
    "return_tokens_as_token_ids": (False,),
    "return_tokens": (False,),
    "n_probs": (0,),
    "n_predict": (),
    "repeat_penalty": (1,),
    "typical_p": (1,),
    "mirostat": (0,),
    "dynatemp_range": (0,),
    "dry_multiplier": (0,),
    "xtc_probability": (0,),
    "top_n_sigma": (-1,),
    "samplers": (),
    "lora": ([],),
}
ADVICE = {
    "guided_regex": "write structured_outputs.regex",
    "guided_json": "write response_format",
    "presence_penalty": "repetition_penalty is",
    "frequency_penalty": "repetition_penalty is",
    "repeat_penalty": "write repetition_penalty",
    "n_predict": "write max_completion_tokens",
    "n_probs": "write logprobs and top_logprobs",
    "return_tokens": "write return_token_ids",
    "truncate_prompt_tokens": "a prompt that is too long is refused; shorten it",
}
