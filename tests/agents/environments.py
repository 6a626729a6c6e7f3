"""Environments of agents: each has its own, because their dependencies disagree.

Made once, and kept in .cache.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "agents"


def python_environment(name: str, *packages: str) -> Path:
    """The `bin` of a virtual environment with these packages."""
    home = CACHE / name
    wanted = " ".join(packages)
    mark = home / "complete"
    if not mark.exists() or mark.read_text() != wanted:
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(home / "bin/python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--disable-pip-version-check", *packages], check=True, timeout=900)
        mark.write_text(wanted)
    return home / "bin"


def node_environment(name: str, *packages: str) -> Path:
    """A folder whose node_modules has these packages."""
    home = CACHE / name
    wanted = " ".join(packages)
    mark = home / "complete"
    if not mark.exists() or mark.read_text() != wanted:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        (home / "package.json").write_text('{"private": true, "type": "module"}')
        npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", *packages]
        subprocess.run(npm, cwd=home, check=True, timeout=600)
        mark.write_text(wanted)
    return home
