"""`python -m mlx_smolvlm.server`."""

from .command import main

if __name__ == "__main__":
    main()
