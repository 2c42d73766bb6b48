"""Other loaders over the same tokens, each in a virtual environment of its own below build/peers.

Here: making the environments and running benchmarks/loader_peer.py in them, for benchmarks/loader.py.
"""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "torchdata": ["torchdata>=0.11", "torch", "numpy"],
    "litdata": ["litdata>=0.2.76", "torch"],
    "mosaic": ["mosaicml-streaming>=0.13", "torch"],
    "grain": ["grain>=0.2.18"],
}
WORKERS = 0, 1  # processes (torchdata: threads) besides: none, as our inline executor, and one


def peers(
    folder: Path, wanted: Sequence[str], cpu_seconds: float
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Each peer's figures by name, "torchdata" or "torchdata, 1 worker"; and the reasons of those absent.

    Args:
        folder: `weights.json` and NAME.bin of each domain, uint16; peers write their own formats beside them.
        wanted: names in PACKAGES.
        cpu_seconds: of each measurement.
    """
    found: dict[str, dict[str, Any]] = {}
    absent: dict[str, str] = {}
    for n_workers, peer in product(WORKERS, wanted):
        name = f"{peer}, {n_workers} worker" if n_workers else peer
        try:
            found[name] = run_peer(peer, folder, n_workers, cpu_seconds)
            print(f"{name}: {found[name]}", file=sys.stderr)
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            absent[name] = reason(error)
            print(f"{name} is absent: {absent[name]}", file=sys.stderr)
    return found, absent


def run_peer(peer: str, folder: Path, n_workers: int, cpu_seconds: float) -> dict[str, Any]:
    """The figures that benchmarks/loader_peer.py prints."""
    python = environment(ROOT / "build" / "peers" / peer, PACKAGES[peer])
    script = ROOT / "benchmarks" / "loader_peer.py"
    arguments = [python, script, peer, folder, str(n_workers), str(cpu_seconds)]
    done = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
        cwd=folder,  # the project's folder `streaming` would be imported for MosaicML's package
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """The Python of a virtual environment with these packages; made when it is not there.

    By uv, which pip installs into it first: it finds in a second which of boto3's hundreds of releases fit.
    A package named torch is the release that the project uses, so that figures are of the same one.
    """
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        run = partial(subprocess.run, check=True, capture_output=True, text=True)
        run([python, "-m", "pip", "install", "--quiet", "uv>=0.5"])
        install = [python, "-m", "uv", "pip", "install", "--quiet", "--python", python]
        for place in os.environ.get("PIP_FIND_LINKS", "").split():
            install += ["--find-links", place]
        wanted = [f"torch=={torch_version()}" if name == "torch" else name for name in packages]
        run([*install, *wanted], env=os.environ | uv_options(os.environ))
        (folder / "installed").touch()
    return python


def torch_version() -> str:
    """Of the project's torch, without its build: +cpu is not on every index."""
    return version("torch").partition("+")[0]


def uv_options(given: Mapping[str, str]) -> dict[str, str]:
    """pip's certificates are uv's, too."""
    return {"SSL_CERT_FILE": given["PIP_CERT"]} if "PIP_CERT" in given else {}


def reason(error: Exception) -> str:
    """The last line that a program said, or the error itself."""
    said = getattr(error, "stderr", None) or ""
    lines = [line for line in str(said).splitlines() if line.strip()]
    return lines[-1] if lines else f"{type(error).__name__}: {error}"
