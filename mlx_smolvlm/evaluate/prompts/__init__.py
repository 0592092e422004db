"""Prompts as VLMEvalKit's wrappers make them, or as the model's own chat template does."""
