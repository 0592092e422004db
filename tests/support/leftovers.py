"""What a bad input must not leave behind, and how long it may take."""

import contextlib
import gc
import os
import threading
from pathlib import Path

LONGEST_S = 10  # promised to users, so generous for what is tested, which takes a tenth of a second


def threads_beside_pools() -> int:
    """Python threads but those of the server's pools, which come as they are needed, up to the pool's size."""
    return sum(not thread.name.startswith(("mlx_smolvlm ", "asyncio_")) for thread in threading.enumerate())


def held() -> tuple[int, int, list[str]]:
    """Python threads, all threads of the process (where the system tells), and what its open files are."""
    gc.collect()
    tasks = Path("/proc/self/task")
    files = []
    for entry in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            files.append(os.readlink(f"/dev/fd/{entry}") if tasks.is_dir() else entry)
    return threading.active_count(), len(os.listdir(tasks)) if tasks.is_dir() else 0, sorted(files)
