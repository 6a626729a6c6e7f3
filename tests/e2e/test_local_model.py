"""The embedded model for real: a child process that answers, is replaced when it dies, and ends."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import uvloop

from headgate_server.local import (
    Endpoint,
    LocalModel,
    LocalModelError,
    LocalModelOptions,
    State,
    fetch_weights,
    find_weights,
)

pytestmark = pytest.mark.timeout(180)

_QUESTION = [
    {"role": "system", "content": "You are a helpful AI assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]


@pytest.fixture(scope="session")
def weights() -> Path:
    return find_weights() or asyncio.run(fetch_weights())


async def answer(endpoint: Endpoint | None) -> str:
    assert endpoint is not None
    # llama.cpp closes the connection after an answer without saying so: do not pool it.
    headers = {"authorization": f"Bearer {endpoint.api_key}", "connection": "close"}
    async with httpx.AsyncClient(base_url=endpoint.base_url, headers=headers, timeout=60) as client:
        response = await client.post(
            "/chat/completions",
            json={"messages": _QUESTION, "temperature": 0, "max_tokens": 20},
        )
    return str(response.raise_for_status().json()["choices"][0]["message"]["content"])


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # an orphan that nobody has reaped yet is dead too
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return sys.platform != "linux"


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def state_of(model: LocalModel) -> State:
    """The state as of now; a type checker takes a property for a constant."""
    return model.state


async def life_of_a_model(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = LocalModel(LocalModelOptions(weights=weights))
    assert state_of(model) is State.STOPPED
    assert model.endpoint() is None
    await model.start()
    try:
        first = model.pid
        assert first is not None
        assert state_of(model) is State.READY
        assert model.base_url is not None
        assert model.base_url.startswith("http://127.0.0.1:")
        assert "Paris" in await answer(model.endpoint())

        os.kill(first, signal.SIGKILL)
        await until(lambda: model.endpoint() is None)
        assert state_of(model) is State.RESTARTING
        await until(lambda: state_of(model) is State.READY)
        assert model.restarts == 1
        assert "ended with code -9" in caplog.text
        assert model.pid not in (None, first)
        assert "Paris" in await answer(model.endpoint())
    finally:
        last = model.pid
        await model.stop()
        await model.stop()
    assert state_of(model) is State.STOPPED
    assert model.endpoint() is None
    assert not alive(first)
    assert last is not None
    assert not alive(last)


async def test_it_answers_is_replaced_when_it_dies_and_ends(
    weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await life_of_a_model(weights, caplog)


def test_the_same_on_uvloop(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    uvloop.run(life_of_a_model(weights, caplog))


async def test_the_port_asks_for_the_key_and_the_command_line_does_not_tell_it(
    weights: Path,
) -> None:
    model = LocalModel(LocalModelOptions(weights=weights))
    await model.start()
    try:
        assert model.api_key not in repr(model.endpoint())
        async with httpx.AsyncClient(base_url=model.base_url or "") as client:
            assert (await client.get("/models")).status_code == 401
        if sys.platform == "linux":
            assert model.api_key.encode() not in Path(f"/proc/{model.pid}/cmdline").read_bytes()
            assert model.api_key.encode() not in Path(f"/proc/{model.pid}/environ").read_bytes()
    finally:
        await model.stop()


async def test_two_models_live_side_by_side(weights: Path) -> None:
    one, two = (LocalModel(LocalModelOptions(weights=weights, slots=1)) for _ in range(2))
    try:
        await asyncio.gather(one.start(), two.start())
        assert one.base_url != two.base_url
        await one.stop()
        assert "Paris" in await answer(two.endpoint())
    finally:
        await one.stop()
        await two.stop()


async def test_a_stop_while_it_loads_or_waits_leaves_nothing(weights: Path) -> None:
    model = LocalModel(LocalModelOptions(weights=weights))
    start = asyncio.create_task(model.start())
    await until(lambda: model.pid is not None)
    pid = model.pid
    assert pid is not None
    await asyncio.gather(model.stop(), model.stop())
    with pytest.raises(LocalModelError, match="stopped"):
        await start
    assert not alive(pid)

    start = asyncio.create_task(model.start())
    await until(lambda: model.pid is not None)
    pid = model.pid
    assert pid is not None
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not alive(pid)

    await model.start()
    pid = model.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: state_of(model) is State.RESTARTING)
    await model.stop()
    assert state_of(model) is State.STOPPED
    assert not alive(pid)


async def test_ctrl_c_in_the_terminal_is_left_to_the_parent(weights: Path) -> None:
    model = LocalModel(LocalModelOptions(weights=weights))
    await model.start()
    try:
        assert model.pid is not None
        os.kill(model.pid, signal.SIGINT)
        assert "Paris" in await answer(model.endpoint())
        assert model.restarts == 0
    finally:
        await model.stop()


async def test_bad_weights_are_reported_with_the_reason(tmp_path: Path) -> None:
    model = LocalModel(LocalModelOptions(weights=tmp_path / "missing.gguf"))
    with pytest.raises(LocalModelError, match="No such file or directory"):
        await model.start()
    assert state_of(model) is State.FAILED
    assert model.pid is None

    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 1000)
    model = LocalModel(LocalModelOptions(weights=broken))
    with pytest.raises(LocalModelError, match=r"failed to load model"):
        await model.start()
    await model.stop()


async def test_a_load_that_hangs_is_ended(weights: Path) -> None:
    model = LocalModel(LocalModelOptions(weights=weights, load_timeout_s=0.01))
    with pytest.raises(LocalModelError, match=r"not loaded within 0\.01 s"):
        await model.start()
    assert model.pid is None


def test_the_child_dies_with_its_parent(weights: Path) -> None:
    program = (
        "import asyncio, pathlib\n"
        "from headgate_server.local import *\n"
        "async def main():\n"
        f"    model = LocalModel(LocalModelOptions(weights=pathlib.Path({str(weights)!r})))\n"
        "    await model.start()\n"
        "    print(model.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
    deadline = time.monotonic() + 10
    while alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def test_a_hang_up_while_the_prompt_is_read_frees_the_slot_soon(weights: Path) -> None:
    model = LocalModel(LocalModelOptions(weights=weights, slots=1))
    await model.start()
    try:
        endpoint = model.endpoint()
        assert endpoint is not None
        headers = {"authorization": f"Bearer {endpoint.api_key}", "connection": "close"}
        root = endpoint.base_url.removesuffix("/v1")
        async with httpx.AsyncClient(base_url=root, headers=headers, timeout=60) as client:
            long = {
                "messages": [_QUESTION[0], {"role": "user", "content": "word " * 3500}],
                "max_tokens": 400,
                "stream": True,
                "return_progress": True,
            }
            request = asyncio.create_task(client.post("/v1/chat/completions", json=long))

            async def busy() -> bool:
                return bool((await client.get("/slots")).json()[0]["is_processing"])

            async with asyncio.timeout(20):
                while not await busy():
                    await asyncio.sleep(0.02)
            request.cancel()
            hung_up = time.monotonic()
            async with asyncio.timeout(60):
                while await busy():
                    await asyncio.sleep(0.02)
            # Reading this prompt to its end takes ten seconds and more on a small machine.
            assert time.monotonic() - hung_up < 6
    finally:
        await model.stop()
