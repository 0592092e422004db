"""`python -m mlx_smolvlm.batch`: one prompt for many images, one line of JSON for each."""

from ..command_line.runner import explain_call

explain_call(__name__, "generate_batch(model, processor, requests)")
