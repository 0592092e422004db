"""Reads prompts and makes tokens: the parts of `generation.py` and `batching.py`."""
