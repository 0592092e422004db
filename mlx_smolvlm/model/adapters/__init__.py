"""Adapters of a base model: their files, what they change, and the layers that apply them without merging."""
