from pathlib import Path
from typing import Any
def write_report(outcome: Any) -> Path:
    return Path("none")
