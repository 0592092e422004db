"""Building blocks of the networks, in as few and as fast kernels as the device allows."""
