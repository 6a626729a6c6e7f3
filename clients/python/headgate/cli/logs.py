"""The process's log: one line for people, or one JSON object for machines, on stderr."""

from __future__ import annotations

import datetime
import json
import logging
import re
import sys

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(level: str, form: str) -> None:
    """Sets the root logger up. Called once, by a composition root."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(
            _LineFormatter("%(asctime)s %(levelname)-7s %(name)s %(message)s", "%H:%M:%S")
        )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Connection noise of libraries is not news to an operator.
    for name in ("aiohttp", "uvicorn", "grpc", "httpx", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.root.level))


class _LineFormatter(logging.Formatter):
    """One line for a message: what callers send must not forge another."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], record.message)
        return super().formatMessage(record)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)
