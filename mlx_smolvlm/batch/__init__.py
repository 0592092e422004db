"""`python -m mlx_smolvlm.batch`: one prompt for many pictures, one line of JSON for each."""
