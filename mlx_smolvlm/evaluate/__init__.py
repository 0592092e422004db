"""Evaluation on local data: prompts and scores of VLMEvalKit, runs that can be resumed, comparisons of two runs."""
