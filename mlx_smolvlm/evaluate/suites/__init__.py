"""Model classes for VLMEvalKit and lmms-eval, so that their data sets, loops and scores run on this package.

Only the suites import these modules; nothing here is needed without them.
"""

from typing import Any


def lmms_eval_manifest() -> Any:
    """What the entry point `lmms_eval.models` of this package tells lmms-eval: `--model mlx_smolvlm`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("mlx_smolvlm", chat_class_path=f"{__name__}.lmms_eval.LmmsEvalModel")
