"""`headgate chat` as a process: in pipes, and in a terminal that types and presses Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.gateway import KEY, Gateway, config_for
from fakes.upstream import FakeUpstream, chat, chunks, error, hang, rate_limited, sse

if sys.platform == "win32":
    pytest.skip("needs a pseudo terminal", allow_module_level=True)

import fcntl
import struct
import termios

CHAT = (sys.executable, "-m", "headgate.cli", "chat")
PROMPT = "\n>"  # the space after it is a movement of the cursor
ANSWER = "Hello! How can I help you today?"


async def run(
    *arguments: str, given: str | None = None, within: float = 30
) -> tuple[int, str, str]:
    """Runs `headgate chat` in pipes; its status, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *CHAT,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        data = None if given is None else given.encode()
        out, err = await asyncio.wait_for(process.communicate(data), within)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def running(extra: str = "") -> AsyncIterator[tuple[FakeUpstream, Gateway]]:
    async with FakeUpstream() as up, Gateway(config_for(up.base_url, extra=extra)) as gateway:
        yield up, gateway


# -- in pipes -------------------------------------------------------------------------------------


async def test_one_shot_prints_the_answer_alone() -> None:
    async with running() as (up, gateway):
        up.script(sse(chunks(["Pa", "ris"], reasoning=["Let me think."], usage=True)))
        found = await run("Capital of France?", "--target", gateway.grpc_address)
        asked = up.requests[0].json
    assert found == (0, "Paris\n", "")
    assert asked["model"] == "upstream-m"
    assert asked["stream"] is True
    assert asked["messages"] == [{"role": "user", "content": "Capital of France?"}]


async def test_a_pipe_is_one_prompt() -> None:
    async with running() as (up, gateway):
        found = await run("--server", gateway.grpc_address, given="first line\n\nlast line é\n")
        asked = up.requests[0].json
    assert found == (0, f"{ANSWER}\n", "")
    assert asked["messages"] == [{"role": "user", "content": "first line\n\nlast line é"}]


async def test_options_reach_the_upstream() -> None:
    auth = f'auth: {{mode: keys, keys: [{{name: t, key: "{KEY}"}}]}}'
    async with running(auth) as (up, gateway):
        options = ("--target", gateway.grpc_address, "--key", KEY, "-m", "m", "--no-stream")
        tuning = ("--temperature", "0.5", "--max-tokens", "7", "--reasoning-effort", "low")
        found = await run("hi", *options, *tuning, "--system", "Be brief.")
        asked = up.requests[0].json
    assert found == (0, f"{ANSWER}\n", "")
    assert not asked.get("stream")
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert asked["temperature"] == 0.5
    assert asked["max_completion_tokens"] == 7
    assert asked["reasoning_effort"] == "low"


async def test_errors_are_one_line_on_stderr_and_status_1() -> None:
    auth = f'auth: {{mode: keys, keys: [{{name: t, key: "{KEY}"}}]}}'
    async with running(auth) as (up, gateway):
        up.default(rate_limited(7))
        here = ("--target", gateway.grpc_address)
        found = await asyncio.gather(
            run("hi", *here),
            run("hi", *here, "--key", KEY),
            run("hi", *here, "--key", KEY, "--model", "nope"),
            run("hi", "--target", "127.0.0.1:1"),
            run("  ", *here, "--key", KEY),
        )
    expected = (
        "HEADGATE_API_KEY",
        "Try again in 7 s",
        "headgate models",
        "headgate serve",
        "empty",
    )
    for (status, out, err), part in zip(found, expected, strict=True):
        assert (status, out) == (1, "")
        assert err.startswith("error: ")
        assert part in err
        assert len(err.splitlines()) == 1
        assert KEY not in err


async def test_an_answer_that_breaks_off_is_an_error() -> None:
    async with running() as (up, gateway):
        up.script(sse(chunks(["Par", "is"]), stop_after=2, ending="rst"))
        status, out, err = await run("Capital?", "--target", gateway.grpc_address)
    assert (status, out) == (1, "Par\n")
    assert err.startswith("error: ")


async def test_several_models_are_named_when_none_is_chosen() -> None:
    async with FakeUpstream() as up:
        more = "  n: {targets: [{provider: up}]}"
        async with Gateway(config_for(up.base_url) + more) as gateway:
            status, out, err = await run("hi", "--target", gateway.grpc_address)
        assert not up.requests
    assert (status, out) == (1, "")
    assert "--model: m, n" in err


async def test_a_model_cannot_command_the_terminal() -> None:
    async with running() as (up, gateway):
        up.script(sse(chunks(["a\x1b", "[31mb\x07", "\x9b2J\r\n\tc"])))
        found = await run("hi", "--target", gateway.grpc_address)
    assert found == (0, "a[31mb2J\n\tc\n", "")


async def test_ctrl_c_ends_one_shot_with_130_and_the_upstream_call() -> None:
    async with running() as (up, gateway):
        up.default(sse(chunks(["Once", " upon"]), stop_after=2, ending="hang"))
        process = await asyncio.create_subprocess_exec(
            *CHAT, "tale", "--target", gateway.grpc_address,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            assert await asyncio.wait_for(process.stdout.readexactly(4), 15) == b"Once"
            process.send_signal(signal.SIGINT)
            pressed = time.monotonic()
            assert await up.requests[0].wait_closed(5) - pressed < 1
            rest, err = await asyncio.wait_for(process.communicate(), 10)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert (process.returncode, rest, err) == (130, b"\n", b"")


# -- in a terminal --------------------------------------------------------------------------------

# Makes the pseudo terminal the controlling one, so that its Ctrl-C is a signal, and becomes the command.
_IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?<>=]*[ -/]*[@-~]|\][^\x07]*\x07|[()][A-Z0-9]|[=>78M])")


class Terminal:
    """`headgate chat` in a pseudo terminal. Everything waits for a bounded time."""

    def __init__(self, *arguments: str, state: Path) -> None:
        self._arguments = arguments
        self._state = state
        self._seen = b""
        self._read = 0  # what an earlier `sees` has found
        self._new = asyncio.Event()

    async def __aenter__(self) -> Terminal:
        self._master, slave = os.openpty()
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _IN_TERMINAL, *CHAT, *self._arguments,
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={
                **os.environ,
                "TERM": "xterm-256color",
                "PROMPT_TOOLKIT_NO_CPR": "1",
                "XDG_STATE_HOME": str(self._state),
            },
        )  # fmt: skip
        os.close(slave)
        asyncio.get_running_loop().add_reader(self._master, self._receive)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)

    def _receive(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self._seen += data
        self._new.set()

    @property
    def text(self) -> str:
        """All output so far, without escape sequences."""
        return _SEQUENCE.sub("", self._seen.decode("utf-8", "replace")).replace("\r", "")

    async def sees(self, part: str, within: float = 15) -> None:
        """Waits for text that comes after what was seen before."""
        try:
            async with asyncio.timeout(within):
                while (found := self.text.find(part, self._read)) < 0:
                    self._new.clear()
                    await self._new.wait()
        except TimeoutError:
            raise AssertionError(f"{part!r} does not appear in:\n{self.text}") from None
        self._read = found + len(part.rstrip())  # a line break may also begin the next part

    def types(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    async def says(self, line: str) -> None:
        """Waits for the prompt and answers it."""
        await self.sees(PROMPT)
        self.types(f"{line}\r")

    async def ends(self, within: float = 10) -> int:
        return await asyncio.wait_for(self.process.wait(), within)


async def test_a_conversation_carries_its_history(tmp_path: Path) -> None:
    async with running() as (up, gateway):
        up.script(
            sse(chunks(["Pa", "ris."], reasoning=["France, ", "hm."], usage=True)),
            sse(chunks(["Berlin."], usage=True)),
        )
        options = ("--target", gateway.grpc_address, "--system", "Be brief.")
        async with Terminal(*options, state=tmp_path) as terminal:
            await terminal.sees(f"m at {gateway.grpc_address}")
            await terminal.says("Capital of France?")
            await terminal.sees("France, hm.")
            await terminal.sees("Paris.\n")
            await terminal.sees("m · 19 tokens in, 10 out · ")
            await terminal.says("And of\\\rGermany?\x1b\rBriefly.")
            await terminal.sees("Berlin.\n")
            assert b"\x1b[2mFrance, \x1b[0m" in terminal._seen
            await terminal.says("/exit")
            assert await terminal.ends() == 0
        first, second = (record.json["messages"] for record in up.requests)
    system = {"role": "system", "content": "Be brief."}
    assert first == [system, {"role": "user", "content": "Capital of France?"}]
    assert second == [
        *first,
        {"role": "assistant", "content": "Paris.", "reasoning_content": "France, hm."},
        {"role": "user", "content": "And of\nGermany?\nBriefly."},
    ]
    kept = tmp_path / "headgate" / "chat_history"
    assert "Capital of France?" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600


async def test_ctrl_c_stops_the_answer_and_not_the_program(tmp_path: Path) -> None:
    async with running() as (up, gateway):
        up.script(
            sse(chunks(["Once upon"]), stop_after=2, ending="hang"),
            hang(),
            sse(chunks(["Well."])),
        )
        async with Terminal("--target", gateway.grpc_address, state=tmp_path) as terminal:
            await terminal.says("A tale!")
            await terminal.sees("Once upon")
            terminal.types("\x03")
            pressed = time.monotonic()
            assert await up.requests[0].wait_closed(5) - pressed < 1
            await terminal.sees("what arrived stays")
            await terminal.says("Another!")
            await up.wait_for_requests(2)
            terminal.types("\x03")
            pressed = time.monotonic()
            assert await up.requests[1].wait_closed(5) - pressed < 1
            await terminal.sees("the question is forgotten")
            await terminal.says("Go on.")
            await terminal.sees("Well.\n")
            await terminal.says("/exit")
            assert await terminal.ends() == 0
        last = up.requests[2].json["messages"]
        settled = await gateway.settled(3)
    assert [(m["role"], m["content"]) for m in last] == [
        ("user", "A tale!"),
        ("assistant", "Once upon"),
        ("user", "Go on."),
    ]
    assert len(settled) == 3


async def test_a_failed_turn_leaves_no_trace(tmp_path: Path) -> None:
    async with running() as (up, gateway):
        up.script(
            error(400, "That is \x1b[31mforbidden.", type="invalid_request_error"),
            sse(chunks(["Ha", "lf"]), stop_after=2, ending="rst"),
            chat("Fine."),
        )
        async with Terminal("--target", gateway.grpc_address, state=tmp_path) as terminal:
            await terminal.says("one")
            await terminal.sees("error: ")
            await terminal.sees("That is [31mforbidden.")
            await terminal.says("two")
            await terminal.sees("Ha\n")
            await terminal.sees("error: ")
            await terminal.says("three")
            await terminal.sees("Fine.\n")
            await terminal.sees(PROMPT)
            terminal.types("\x04")
            assert await terminal.ends() == 0
        assert up.requests[2].json["messages"] == [{"role": "user", "content": "three"}]


async def test_commands(tmp_path: Path) -> None:
    more = "  n: {targets: [{provider: up, model: upstream-n}]}"
    async with (
        running(more) as (up, gateway),
        Terminal("--target", gateway.grpc_address, state=tmp_path) as terminal,
    ):
        await terminal.sees("first of 2")
        await terminal.says("hello")
        await terminal.sees(ANSWER)
        await terminal.says("/help")
        await terminal.sees("/reset")
        await terminal.says("/models")
        await terminal.sees("\nm\nn\n")
        await terminal.says("/model nope")
        await terminal.sees("error: ")
        await terminal.says("/model n")
        await terminal.sees("Talking to n.")
        await terminal.says("/reset")
        await terminal.sees("begins anew")
        await terminal.says("/nonsense")
        await terminal.sees("There is no command /nonsense")
        await terminal.says("/etc/passwd is a path")
        await terminal.sees(ANSWER)
        await terminal.says("/exit")
        assert await terminal.ends() == 0
    assert [record.json["model"] for record in up.requests] == ["upstream-m", "upstream-n"]
    assert up.requests[1].json["messages"] == [{"role": "user", "content": "/etc/passwd is a path"}]


async def test_ctrl_c_at_the_prompt_clears_the_line_and_twice_leaves(tmp_path: Path) -> None:
    async with running() as (up, gateway):
        async with Terminal("--target", gateway.grpc_address, state=tmp_path) as terminal:
            await terminal.sees(PROMPT)
            terminal.types("half-a-thought")
            await terminal.sees("half-a-thought")
            terminal.types("\x03")
            await terminal.sees("leaves)")
            await terminal.sees(PROMPT)
            terminal.types("another")
            await terminal.sees("another")
            terminal.types("\x03")
            await terminal.sees("leaves)")
            await terminal.sees(PROMPT)
            terminal.types("\x03")
            assert await terminal.ends() == 0
        assert not up.requests


async def test_without_a_place_for_history_it_works_all_the_same(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    async with (
        running() as (_, gateway),
        Terminal("--target", gateway.grpc_address, state=blocked) as terminal,
    ):
        await terminal.says("hello")
        await terminal.sees(ANSWER)
        await terminal.says("/exit")
        assert await terminal.ends() == 0
