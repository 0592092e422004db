"""What the networks are built of, as few and quick kernels as the device allows."""
