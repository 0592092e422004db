"""`python -m mlx_smolvlm.server`."""

from .command import _parser as _parser  # for shell completion, as the other commands have it
from .command import main as main

if __name__ == "__main__":
    main()
