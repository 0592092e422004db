"""Where images and videos come from: files, addresses, bytes, cameras and streams. No MLX."""
