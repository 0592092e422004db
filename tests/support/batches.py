"""The demo's pictures and what the batch command wrote about pictures."""

import json

from mlx_smolvlm import DEMO_MODEL

DEMO = DEMO_MODEL.parent


def lines(path):
    """The records of a results file by path; every line is one."""
    if not path.exists():
        return {}
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    by_path = {record["path"]: record for record in records}
    assert len({record["source"] or record["path"] for record in records}) == len(records)
    return by_path
