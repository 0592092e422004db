"""What programs call: load, generate, batch, chat, caption. Import the names from `mlx_smolvlm`."""
