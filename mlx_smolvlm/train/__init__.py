"""Fine-tuning: `python -m mlx_smolvlm.train`."""
