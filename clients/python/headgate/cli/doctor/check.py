"""What a check of `doctor` says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found, and what to do about it (empty if nothing)."""

    name: str
    state: State
    finding: str
    advice: str = ""
