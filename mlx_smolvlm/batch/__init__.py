"""`python -m mlx_smolvlm.batch`: one prompt for many images, one line of JSON for each."""
