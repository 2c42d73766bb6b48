"""How kernels are compiled: by whom, and without what."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from cuvee.kernels.jit import InBackground, kernel, uncounted

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
# Of a function without a file nothing is cached, neither its code nor, under one name, how it was compiled.
ALTERNATING_SUM = """
def alternating_sum(a, b):
    total = 0.0
    for i in range(len(a)):
        total += a[i]
        a, b = b, a  # an array gets a name in a loop: a counted kernel counts a reference
    return total
"""
ONES = """
def ones(n):
    return np.ones(n).sum()
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


def test_a_thread_that_loads_kernels_ends_when_who_starts_it_is_interrupted(monkeypatch):
    started, start = [], threading.Thread.start

    def interrupted(thread):
        start(thread)
        started.append(thread)
        raise KeyboardInterrupt

    loading = InBackground(lambda: None)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loading.done()
    started[0].join(60)
    assert loading.done()


def _function(source):
    names = {"np": np}
    exec(source, names)
    return names[source.split("(")[0].split()[-1]]


def _n_counts(compiled):
    return sum(code.count("NRT_incref") for code in compiled.inspect_llvm().values())


def test_an_uncounted_kernel_gives_what_a_counted_one_gives_and_counts_no_reference():
    a, b = np.arange(7.0), np.full(7, 0.5)
    function = _function(ALTERNATING_SUM)
    counted, without = kernel(function), uncounted(function)
    assert without(a, b) == counted(a, b) == function(a, b) == 13.5
    assert _n_counts(counted) > 0
    assert _n_counts(without) == 0, "numba's private option _nrt no longer does what uncounted needs"


def test_an_uncounted_kernel_cannot_make_an_array():
    assert kernel(_function(ONES))(3) == 3
    with pytest.raises(Exception, match="No implementation of function"):
        uncounted(_function(ONES))(3)
