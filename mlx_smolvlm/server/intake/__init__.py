"""Requests are read, and their prompts planned, before they reach the engine."""
