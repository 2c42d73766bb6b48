"""Two processes under torch.distributed: one mixture, one selection, and a run that goes on after a kill."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this PyTorch has no torch.distributed")

RANK = """
import itertools, json, os, sys
import torch
import torch.distributed as dist
from cuvee.streaming import StreamingLoader
from cuvee.streaming.online import OnlineMixing

rank, out, meeting, sources = int(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)

def loader():
    mixing = OnlineMixing(parameters={"warm_up": 0, "half_lives": (1, 3)}, every=2, lag=3)
    return StreamingLoader(
        sources, {"code": 0.3, "web": 0.5, "wiki": 0.2}, sequence_length=8, global_batch=12, policy=mixing,
        rank=rank, world_size=2,
    )

def losses(batch):
    return 4 - 0.05 * batch.step * (batch.domain_ids + 1) + 0.01 * torch.sin(batch.row_ids.double())

def run(batches, n):
    found = []
    for candidates in itertools.islice(batches.superbatches(2, "hard_batches", requeue=1), n):
        scores = losses(candidates.batch)
        batches.feedback(candidates.batch, loss_per_row=scores)
        batch = candidates.select(scores=scores)
        found.append((batch.domain_ids * 1000 + batch.row_ids).tolist())
    return found

whole = loader()
rows = run(whole, 10)
first = loader()
assert run(first, 4) == rows[:4]
states = [json.loads(json.dumps(first.state_dict()))]
run(first, 2)
resumed = loader()
resumed.load_state_dict(states[0])
rest = run(resumed, 6)
found = {
    "rows": rows, "rest": rest, "log": whole.weight_log, "tail": resumed.weight_log[-1], "state": states[0],
    "end": whole.state_dict() == resumed.state_dict(),
}
open(out, "w").write(json.dumps(found))
dist.destroy_process_group()
"""


@pytest.fixture
def ranks(write_stream, tmp_path: Path) -> list[dict[str, Any]]:
    """What each of two processes found."""
    domains = {"code": 900, "web": 1200, "wiki": 1500}
    sources = {
        name: str(write_stream(name, n, first=10_000 * k)) for k, (name, n) in enumerate(domains.items())
    }
    outs = [tmp_path / f"rank-{rank}.json" for rank in range(2)]
    arguments = [str(tmp_path / "meeting"), json.dumps(sources)]
    processes = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(outs[rank]), *arguments])
        for rank in range(2)
    ]
    assert [process.wait(timeout=500) for process in processes] == [0, 0]
    return [json.loads(out.read_text()) for out in outs]


def test_two_processes_agree_and_go_on_after_a_kill(ranks: list[dict[str, Any]]) -> None:
    one, other = ranks
    assert one["log"] == other["log"]
    assert len(one["log"]) > 5
    assert one["state"] == other["state"]
    for rank in ranks:
        assert rank["rest"] == rank["rows"][4:]
        assert rank["tail"] == rank["log"][-1]
        assert rank["end"]
    for mine, theirs in zip(one["rows"], other["rows"], strict=True):
        assert len(mine) == len(theirs) == 6
        assert mine != theirs
