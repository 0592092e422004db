"""A judge that the user names: a model behind an OpenAI-compatible address, for answers that no rule can match.

It is asked only about answers that scored nothing and that rules cannot settle: which option an answer means, or
whether a free answer says the same as the right one. Scores by rules stay as they are; the judge's stand beside them.
"""

import json
import os
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...files import whole_file
from ...options import quoted
from ..data.eval_rows import EvalRow
from ..runs.evaluation_folder import Result
from .intervals import interval
from .option_scorers import NONE, inferred_option, letter_of, options_of
from .text_scorers import yes_or_no

JUDGED = "judged.jsonl"
TIMEOUT_S = 60.0
KEY_VARIABLE = "OPENAI_API_KEY"
_FREE = ("exact", "mathvista")  # scorers of answers that may say the same in other words
_OPTIONS = ("letter", "mmmu", "video_letter", "long_video_letter", "mvbench", "mlvu")
_PATIENCE = 3  # failures in a row, after which the judge is not asked any more
_MAX_REPLY_BYTES = 1024**2
_MAX_TOKENS = 64
_BLANKS = {*string.whitespace}


class Judge:
    """A model behind an address."""

    def __init__(self, url: str, model: str, timeout_s: float = TIMEOUT_S):
        """
        Args:
            url: `http://host:port`, with or without `/v1` or `/v1/chat/completions`.
            model: the name under which it is served.
            timeout_s: seconds that a reply may take.

        Raises:
            ValueError: no address.
        """
        if not _is_address(url):
            raise ValueError(f"--judge is {quoted(url)}, expected an address such as http://localhost:8000/v1")
        if "@" in urlsplit(url).netloc:  # which would be kept in the summary
            raise ValueError(f"--judge names a user or password; leave them out, and put a key into {KEY_VARIABLE}")
        base = url.rstrip("/").removesuffix("/chat/completions")
        self.url = f"{base if base.endswith('/v1') else f'{base}/v1'}/chat/completions"
        self.model, self._timeout_s = model, timeout_s

    def ask(self, prompt: str) -> str:
        """Its reply. Raises ConnectionError if there is none."""
        body = {"model": self.model, "temperature": 0, "max_tokens": _MAX_TOKENS}
        content = json.dumps({**body, "messages": [{"role": "user", "content": prompt}]}).encode()
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        import http.client
        import urllib.error  # slow to import, and few runs have a judge
        import urllib.request

        request = urllib.request.Request(self.url, content, headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:
                reply = json.loads(answer.read(_MAX_REPLY_BYTES))
            return str(reply["choices"][0]["message"]["content"] or "")
        except urllib.error.HTTPError as error:
            error.close()
            raise ConnectionError(f"the judge answers {error.code} {error.reason}") from None
        except (OSError, urllib.error.URLError, http.client.HTTPException) as error:
            raise ConnectionError(f"the judge cannot be reached: {getattr(error, 'reason', error)}") from None
        except (ValueError, KeyError, IndexError, TypeError):
            raise ConnectionError("the judge's reply is not that of a chat completion") from None


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not set(url) & _BLANKS
    except ValueError:  # a port out of range, brackets that are not closed
        return False


def judge_run(
    folder: Path,
    judge: Judge,
    rows: Sequence[EvalRow],
    results: Sequence[Result],
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Ask the judge about a run's rows, and write `judged.jsonl`.

    Args:
        folder: the run's.
        judge: whom to ask.
        rows, results: of the run.
        advance: called with how many are done, and of how many.

    Returns:
        `url`, `model`, `asked` and `failed` rows, `problem` (the last one), and for each set `score` and `interval`
        with the judge's scores in the place of the rules'.
    """
    by_key = {row.key: row for row in rows}
    wanted = [result for result in results if needs_judge(result)]
    judged: list[dict[str, Any]] = []
    in_a_row = 0
    for result in wanted:
        row = by_key[result["dataset"], str(result["index"])]
        line: dict[str, Any] = {"dataset": row.dataset, "index": row.index, "reply": None, "score": None, "error": None}
        try:
            if in_a_row >= _PATIENCE:
                raise ConnectionError(f"not asked, after {_PATIENCE} failures in a row")
            line["reply"] = judge.ask(_prompt(row, result))
            line["score"] = _score(row, result, line["reply"])
            in_a_row = 0
        except ConnectionError as error:
            line["error"] = str(error)
            in_a_row += 1
        judged.append(line)
        advance(len(judged), len(wanted))
    with whole_file(folder / JUDGED) as file:
        file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in judged), encoding="utf-8")
    problems = [line["error"] for line in judged if line["error"]]
    scores = {(line["dataset"], str(line["index"])): line["score"] for line in judged if line["score"] is not None}
    return {
        "url": judge.url,
        "model": judge.model,
        "asked": len(judged),
        "failed": len(problems),
        "problem": problems[0] if problems else None,
        "sets": _sets(results, scores),
    }


def needs_judge(result: Result) -> bool:
    """Whether rules leave an answer open."""
    if result["score"] is None or result["score"] > 0 or result["finish_reason"] == "error" or not result["answer"]:
        return False
    return result["scorer"] in _FREE or (result["scorer"] in _OPTIONS and not result["matched"])


def _is_choice(row: EvalRow, result: Result) -> bool:
    return result["scorer"] in _OPTIONS and bool(options_of(row))


def _prompt(row: EvalRow, result: Result) -> str:
    if _is_choice(row, result):
        options = "\n".join(f"{letter}. {text}" for letter, text in options_of(row).items())
        return (
            "Which option does the answer mean? Reply with the letter of the option alone, or with "
            f"{NONE} if it means none of them.\nQuestion: {row.question}\nOptions:\n{options}\n"
            f"Answer: {result['answer']}"
        )
    expected = row.answer if isinstance(row.answer, str) else ", or ".join(row.answer or [])
    return (
        "Does the answer say the same as the right answer? Reply with yes or no alone.\n"
        f"Question: {row.question}\nRight answer: {expected}\nAnswer: {result['answer']}"
    )


def _score(row: EvalRow, result: Result, reply: str) -> float:
    """The score by a reply; one that is not understood is a failure of the judge."""
    if _is_choice(row, result):
        named = inferred_option(reply.strip(), options_of(row))
        if named is None:
            raise ConnectionError(f"the judge's reply {quoted(reply)} names no option")
        return float(named == letter_of(str(row.answer), row.candidates or []))
    said = yes_or_no(reply)
    if said is None:
        raise ConnectionError(f"the judge's reply {quoted(reply)} is neither yes nor no")
    return float(said == "Yes")


def _sets(results: Sequence[Result], judged: Mapping[tuple[str, str], float]) -> dict[str, Any]:
    sets: dict[str, list[float]] = {}
    for result in results:
        if result["score"] is not None:
            score = judged.get((result["dataset"], str(result["index"])), float(result["score"]))
            sets.setdefault(result["dataset"], []).append(score)
    found = {}
    for name, scores in sets.items():
        low, high = interval(scores)
        mean = 100 * sum(scores) / len(scores)
        found[name] = {"score": round(mean, 4), "interval": [round(100 * low, 4), round(100 * high, 4)]}
    return found


def judge_text(found: Mapping[str, Any]) -> str:
    """For people."""
    scores = ", ".join(f"{name} {figures['score']:.2f}" for name, figures in found["sets"].items())
    text = f"with the judge {found['model']} ({found['asked']} rows asked): {scores}"
    if found["failed"]:
        text += f"; {found['failed']} rows keep the score by rules: {found['problem']}"
    return text
