"""`python -m mlx_smolvlm.benchmark`: how fast the stages are, on any machine, beside other programs.

Nothing in the package imports it.
"""
