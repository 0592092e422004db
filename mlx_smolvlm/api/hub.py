"""Repositories of the Hugging Face Hub -> folders, given up when nothing is heard for long."""

import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from ..media.reporting import byte_listener, report

SILENCE_S = 30.0  # after which the Hub is given up
_POLL_S = 0.1  # how long Ctrl-C may wait
_FILES = ["*.safetensors", "*.json", "*.jinja", "README.md", "LICENSE*"]  # nothing that could hold code


def download(repo_id: str, revision: str | None) -> Path:
    """The local folder of a repository, downloaded on first use.

    Raises:
        ConnectionError: the Hub cannot be reached, refuses, or has been silent for `SILENCE_S` seconds.
    """
    from huggingface_hub import snapshot_download  # slow to import
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        report(f"asking the Hub for {repo_id}")
        options = {"revision": revision, "allow_patterns": _FILES, "ignore_patterns": "*/*"}  # folders hold others
        return Path(_while_heard(snapshot_download, repo_id, options))
    except GatedRepoError:
        reason = f"access to {repo_id} is gated: accept its terms on the Hub, then log in with `hf auth login`"
    except RepositoryNotFoundError:
        reason = f"no folder {repo_id!r} here and no such repository on the Hub (if it is private: `hf auth login`)"
    except RevisionNotFoundError:
        reason = f"{repo_id} has no branch, tag or commit {revision!r} on the Hub; its page lists them"
    except LocalEntryNotFoundError:
        reason = (
            f"no folder {repo_id!r} here, and the Hub cannot be reached to download it; where it can be: "
            f"hf download {repo_id} --local-dir FOLDER, then pass FOLDER"
        )
    except _Silence:
        reason = (
            f"the Hub has not answered for {SILENCE_S:g} s; try again, or get the model elsewhere by "
            f"`hf download {repo_id} --local-dir FOLDER` and pass FOLDER"
        )
    except Exception as error:  # those of the HTTP and storage clients beneath have no common base
        what = (str(error).splitlines() or [type(error).__name__])[0]
        reason = f"could not download {repo_id} from the Hub: {what}"
    raise ConnectionError(reason)


class _Silence(Exception):
    """Nothing was heard for too long."""


def _while_heard(snapshot_download: Any, repo_id: str, options: dict[str, Any]) -> str:
    """What `snapshot_download` returns or raises. Its requests for lists have no time limit, so a thread waits for it,
    which is left behind if nothing comes."""
    from huggingface_hub.utils import tqdm

    heard_s = time.monotonic()
    done = Event()
    result: list[str] = []
    failure: list[BaseException] = []
    bars: list[Any] = []
    on_bytes = byte_listener()

    class Bar(tqdm):
        """The client's own bar, which also tells that the Hub is heard, and counts where it is not drawn."""

        def __init__(self, *arguments: Any, **keywords: Any):
            self.counts_bytes = keywords.get("unit") == "B"
            self.done = keywords.get("initial") or 0
            if on_bytes is not None:
                keywords["disable"] = True
            super().__init__(*arguments, **keywords)  # type: ignore[no-untyped-call]
            bars.append(self)

        def update(self, n: float | None = 1) -> Any:
            nonlocal heard_s
            heard_s = time.monotonic()
            self.done += n or 0
            return super().update(n)

    def work() -> None:
        try:
            result.append(snapshot_download(repo_id, tqdm_class=Bar, **options))
        except BaseException as error:  # whatever it is, it belongs to the caller
            failure.append(error)
        done.set()

    Thread(target=work, name="mlx_smolvlm download", daemon=True).start()
    while True:
        is_over = done.wait(_POLL_S)
        # Several bars may count the same bytes: as they come, and as they are written.
        byte_bars = [bar for bar in list(bars) if bar.counts_bytes and bar.total]
        if on_bytes is not None and byte_bars:
            on_bytes(round(max(bar.done for bar in byte_bars)), round(max(bar.total for bar in byte_bars)))
        elif bars:
            report("")  # the bars tell how far it is
        if is_over:
            break
        if time.monotonic() - heard_s > SILENCE_S:
            with suppress(Exception):  # none, or not whole: then the silence is what to tell
                return str(snapshot_download(repo_id, local_files_only=True, **options))
            raise _Silence
    if failure:
        raise failure[0]
    return result[0]
