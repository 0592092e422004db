"""`python -m mlx_smolvlm.batch`: one prompt for many images, one record for each."""

from ..command_line import starting  # noqa: F401 - first: Ctrl-C may come while the rest is imported

# isort: split
from ..command_line.runner import explain_call

explain_call(__name__, "generate_batch(model, processor, requests)")
