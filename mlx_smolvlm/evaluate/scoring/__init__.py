"""Scores of answers, and how sure they are."""
