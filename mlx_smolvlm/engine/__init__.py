"""Reads prompts and generates tokens, for one answer (`decoding.py`) or many (`rows.py`)."""
