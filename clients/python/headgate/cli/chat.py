"""`chat`: a conversation in the terminal, over gRPC, printed as it arrives.

Owns the conversation and what the terminal shows. Without a terminal it is a filter: a prompt in, the
answer alone on stdout. Model text reaches the terminal only through `Screen`, which lets no control
characters pass. A turn that fails leaves no trace in the conversation; of one that is stopped, the text
that had arrived stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from headgate.cli.models import address, all_models, clean, connect, explain
from headgate.errors import GatewayError
from headgate.fold import Folder
from headgate.v1 import chat_pb2, content_pb2, model_service_pb2

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

    from headgate.client import Client, Tls

T = TypeVar("T")

_HELP = """\
  /model NAME   talk to another model         /models   list the models
  /reset        forget the conversation       /exit     leave (also Ctrl-D)
  Alt-Enter, or a backslash before Enter, begins a new line. Ctrl-C stops an answer; what had
  arrived of it stays in the conversation."""


@dataclass(slots=True)
class Settings:
    """What goes into every request."""

    model: str | None = None
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    reasoning_effort: str | None = None
    stream: bool = True

    def request(self, history: list[content_pb2.Message]) -> chat_pb2.ChatRequest:
        """The request that carries this conversation on."""
        request = chat_pb2.ChatRequest(model=self.model or "")
        if self.system:
            request.messages.append(message(content_pb2.ROLE_SYSTEM, self.system))
        request.messages.extend(history)
        if self.temperature is not None:
            request.temperature = self.temperature
        if self.max_tokens is not None:
            request.max_completion_tokens = self.max_tokens
        if self.reasoning_effort:
            request.reasoning.effort = self.reasoning_effort
        return request


def run(
    prompt: str | None, settings: Settings, target: str, key: str | None, tls: Tls | None
) -> None:
    """Runs the command; exits 1 on errors and 130 on Ctrl-C."""
    target = address(target)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    interactive = prompt is None and sys.stdin.isatty() and sys.stdout.isatty()
    try:
        if prompt is None and not interactive:
            prompt = sys.stdin.buffer.read().decode("utf-8", "replace").rstrip("\r\n")
        asyncio.run(_run(prompt, settings, target, connect(target, key, tls)))
    except GatewayError as error:
        sys.exit(f"error: {explain(error, target)}")
    except KeyboardInterrupt:
        sys.exit(130)


async def _run(prompt: str | None, settings: Settings, target: str, client: Client) -> None:
    async with client:
        if prompt is None:
            await Conversation(client, settings, target).run()
            return
        if not prompt.strip():
            sys.exit("error: the prompt is empty")
        if settings.model is None:
            names = _names(await all_models(client))
            if len(names) != 1:
                known = ", ".join(names) or "the gateway lists none; PROVIDER/MODEL may work"
                sys.exit(f"error: say which model with --model: {known}")
            settings.model = names[0]
        question = [message(content_pb2.ROLE_USER, prompt)]
        response = await _answer(client, settings, question, Screen(sys.stdout.isatty()))
        for note in _notes(response):
            print(note, file=sys.stderr)  # noqa: T201


def message(role: content_pb2.Role.ValueType, text: str) -> content_pb2.Message:
    """A message of one text part. Half characters, from odd terminals and arguments, become `?`."""
    text = text.encode("utf-8", "replace").decode()
    return content_pb2.Message(role=role, parts=[content_pb2.Part(text=text)])


def _names(models: list[model_service_pb2.Model]) -> list[str]:
    return [clean(model.id) for model in models]


class Screen:
    """Shows the parts of one answer: text plain, thinking dim and only where a person watches."""

    def __init__(self, watched: bool) -> None:
        self.text: list[str] = []  # of the answer proper, as received
        self._watched = watched
        self._styled = watched and os.environ.get("TERM") != "dumb"
        self._kinds: dict[int, str | None] = {}
        self._shown: str | None = None  # the kind that the last character belongs to
        self._at_start = True  # of a line

    def event(self, event: chat_pb2.ChatEvent) -> None:
        """Shows what an event adds."""
        kind = event.WhichOneof("event")
        if kind == "part_started" and event.part_started.choice == 0:
            started = event.part_started
            self._kinds[started.part] = started.initial.WhichOneof("kind")
            self.part(started.initial)
        elif kind == "part_delta" and event.part_delta.choice == 0:
            delta = event.part_delta
            self._show(self._kinds.get(delta.part), delta.text)

    def part(self, part: content_pb2.Part) -> None:
        """Shows a part as far as it is known."""
        match part.WhichOneof("kind"):
            case "text":
                self._show("text", part.text)
            case "refusal":
                self._show("refusal", part.refusal)
            case "reasoning":
                self._show("reasoning", part.reasoning.text)
            case "tool_call":
                self._show("tool_call", f"[calls {part.tool_call.name}] ")
                self._show("tool_call", part.tool_call.arguments_json)
            case kind:
                self._show(kind, f"[{kind}] ")

    def end(self) -> None:
        """Ends the last line."""
        if not self._at_start:
            self._write("\n")

    def dim(self, line: str) -> None:
        """A line about the conversation, not of it."""
        self.end()
        self._write(self._dimmed(clean(line, lines=True)) + "\n")

    def _show(self, kind: str | None, text: str) -> None:
        if not text or (kind == "reasoning" and not self._watched):
            return
        if kind in ("text", "refusal"):
            self.text.append(text)
        text = clean(text, lines=True)
        if kind != self._shown and self._shown is not None:
            self.end()
            if "reasoning" in (kind, self._shown):
                self._write("\n")
        self._shown = kind
        self._write(self._dimmed(text) if kind == "reasoning" else text)
        self._at_start = text.endswith("\n") if text else self._at_start

    def _dimmed(self, text: str) -> str:
        # Ended with each piece, so that an interrupted answer never leaves the terminal dim.
        return f"\x1b[2m{text}\x1b[0m" if self._styled else text

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
        self._at_start = text.endswith("\n")


async def _answer(
    client: Client, settings: Settings, history: list[content_pb2.Message], screen: Screen
) -> chat_pb2.ChatResponse:
    request = settings.request(history)
    try:
        if not settings.stream:
            response = await client.chat_complete(request)
            for choice in response.choices[:1]:
                for part in choice.message.parts:
                    screen.part(part)
            return response
        folder = Folder()
        async with client.chat_stream(request) as events:
            async for event in events:
                folder.add(event)
                screen.event(event)
        return folder.response()
    finally:
        screen.end()


def _notes(response: chat_pb2.ChatResponse) -> list[str]:
    """What the answer's text does not say: what was left out, and an end that is not a full stop."""
    notes = [f"warning: {w.field}: {w.message}" for w in response.warnings]
    reason = response.choices[0].finish_reason if response.choices else None
    if reason == chat_pb2.FINISH_REASON_LENGTH:
        notes.append("note: the answer was cut off at the token limit")
    elif reason == chat_pb2.FINISH_REASON_CONTENT_FILTER:
        notes.append("note: a content filter cut the answer off")
    return [clean(note) for note in notes]


class Conversation:
    """The interactive session."""

    def __init__(self, client: Client, settings: Settings, target: str) -> None:
        self._client = client
        self._settings = settings
        self._target = target
        self._history: list[content_pb2.Message] = []
        self._screen = Screen(watched=True)

    async def run(self) -> None:
        """Asks and answers until the user leaves."""
        others = await self._choose_model()
        self._screen.dim(f"{self._settings.model} at {self._target}.{others} /help shows more.")
        session = _prompt_session()
        leaving = False
        while True:
            try:
                text = (await session.prompt_async()).strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                # The first one clears the line; another, on an empty line, leaves.
                if leaving and not session.default_buffer.text:
                    return
                leaving = True
                self._screen.dim("(Ctrl-C again, or Ctrl-D, leaves)")
                continue
            leaving = False
            if text == "/exit":
                return
            try:
                await self._take(text)
            except GatewayError as error:
                print(f"error: {explain(error, self._target)}", file=sys.stderr)  # noqa: T201

    async def _choose_model(self) -> str:
        """Takes the first model if none is named; returns what to say about the others."""
        if self._settings.model is not None:
            return ""
        names = _names(await all_models(self._client))
        if not names:
            sys.exit("error: the gateway lists no models; name one with --model PROVIDER/MODEL")
        self._settings.model = names[0]
        return f" It is the first of {len(names)}: see /models." if len(names) > 1 else ""

    async def _take(self, text: str) -> None:
        """Does what a line says: a command, or a question."""
        command, _, rest = text.partition(" ")
        match command:
            case "":
                return
            case "/help":
                self._screen.dim(_HELP)
            case "/reset":
                self._history.clear()
                self._screen.dim("The conversation begins anew.")
            case "/models":
                listed = await _interruptible(all_models(self._client))
                self._screen.dim("\n".join(_names(listed or [])) or "none listed")
            case "/model":
                await self._switch(rest.strip())
            case _ if command[0] == "/" and command[1:].isalpha():
                self._screen.dim(f"There is no command {command}. /help lists them.")
            case _:
                await self._ask(text)

    async def _switch(self, name: str) -> None:
        if name:
            wanted = model_service_pb2.GetModelRequest(id=name)
            found = await _interruptible(self._client.get_model(wanted))
            if found is None:
                return
            self._settings.model = name
        self._screen.dim(f"Talking to {self._settings.model}.")

    async def _ask(self, text: str) -> None:
        began = time.monotonic()
        screen = Screen(watched=True)
        question = message(content_pb2.ROLE_USER, text)
        turn = [*self._history, question]
        response = await _interruptible(_answer(self._client, self._settings, turn, screen))
        if response is None:
            # Only text is kept: unfinished thinking lacks the signature that vendors ask for.
            said = "".join(screen.text)
            if said.strip():
                self._history += [question, message(content_pb2.ROLE_ASSISTANT, said)]
                screen.dim("(stopped; what arrived stays in the conversation)")
            else:
                screen.dim("(stopped; the question is forgotten)")
            return
        for note in _notes(response):
            screen.dim(note)
        if not response.choices or not response.choices[0].message.parts:
            screen.dim("(the answer is empty; the question is forgotten)")
            return
        self._history += [question, response.choices[0].message]
        facts = [response.model or self._settings.model or ""]
        if response.HasField("usage"):
            usage = response.usage
            facts.append(f"{usage.input_tokens} tokens in, {usage.output_tokens} out")
        facts.append(f"{time.monotonic() - began:.1f} s")
        screen.dim(" · ".join(facts))


async def _interruptible(work: Coroutine[Any, Any, T]) -> T | None:
    """Does the work; Ctrl-C cancels it, and nothing else, and makes the outcome None."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    with _on_interrupt(loop, task.cancel):
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            return None


@contextlib.contextmanager
def _on_interrupt(loop: asyncio.AbstractEventLoop, action: Callable[[], object]) -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    try:
        loop.add_signal_handler(signal.SIGINT, action)
    except NotImplementedError:  # Windows: Ctrl-C ends the program
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)


def _prompt_session() -> PromptSession[str]:
    """The line editor: history, and Enter that sends unless a backslash stands before it."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.filters import is_searching
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("enter", filter=~is_searching)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    file = _history_file()
    history: History = InMemoryHistory() if file is None else FileHistory(str(file))
    return PromptSession(
        "> ", multiline=True, prompt_continuation="  ", key_bindings=keys, history=history
    )


def _history_file() -> Path | None:
    """Where questions are remembered, readable by their owner alone; None if they cannot be."""
    given = os.environ.get("XDG_STATE_HOME", "")
    try:
        # The specification: a path that is not absolute is ignored.
        state = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "state"
        file = state / "headgate" / "chat_history"
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600))
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
    return file
