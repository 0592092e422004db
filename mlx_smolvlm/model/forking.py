"""MLX in forked processes: it hangs there if it was used before the fork, so that is refused."""

import os

_user: int | None = None  # the process that was the first to make a model


def refuse_forked_process() -> None:
    """Note that this process uses MLX from here on.

    Raises:
        RuntimeError: the process that this one was forked from did so before.
    """
    global _user
    process = os.getpid()
    if _user is None:
        _user = process
    elif _user != process:
        raise RuntimeError(
            f"process {process} was forked from {_user}, which had a model already: MLX would hang here. Start "
            'processes with multiprocessing.get_context("spawn"), and call load() in each'
        )
