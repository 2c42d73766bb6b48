"""Kernels between processes."""

import subprocess
import sys
from pathlib import Path

MODULE = """
from cuvee.kernels.jit import inlined, kernel

@inlined
def half(x: int) -> int:
    return x // 2

@kernel
def steps(x: int) -> int:
    n = 0
    while x > 1:
        x = half(x) if x % 2 == 0 else 3 * x + 1
        n += 1
    return n
"""
PROCESS = """
import sys, time
from pathlib import Path
from slow_kernel import half, steps

Path(sys.argv[1]).touch()
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
assert steps(27) == 111
print(sum(steps.stats.cache_misses.values()), sum(half.stats.cache_misses.values()))
"""


def test_a_kernel_that_two_processes_need_at_once_is_compiled_by_one(tmp_path: Path) -> None:
    (tmp_path / "slow_kernel.py").write_text(MODULE)
    names = ["first", "second"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, mine, other], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        for mine, other in (names, names[::-1])
    ]
    answers = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(answers) == [["0", "0"], ["1", "1"]]
