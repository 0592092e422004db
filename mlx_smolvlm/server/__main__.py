"""`python -m mlx_smolvlm.server`."""

from .command import main as main

if __name__ == "__main__":
    main()
