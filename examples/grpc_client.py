"""Headgate's own client, as a stream. Needs: pip install . (the base install)."""

import asyncio
import os

import headgate
from headgate.v1 import chat_pb2, content_pb2

question = content_pb2.Message(role=content_pb2.ROLE_USER)
question.parts.add(text="What is the capital of France?")
request = chat_pb2.ChatRequest(
    model=os.environ.get("MODEL", "smollm2-135m-instruct"), messages=[question], temperature=0
)


async def main() -> None:
    target = os.environ.get("HEADGATE_TARGET", "127.0.0.1:50051")
    async with (
        headgate.Client(target, api_key=os.environ.get("HEADGATE_API_KEY")) as client,
        client.chat_stream(request, timeout=60) as events,
    ):
        async for event in events:
            print(event.part_delta.text, end="", flush=True)  # empty in other kinds of events
    print()


asyncio.run(main())
