"""pydantic-ai with one tool, over chat completions and over responses. Needs pydantic-ai-slim[openai]."""

import asyncio
import os

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel


def read_meter(name: str) -> str:
    """Reads a meter."""
    return f"{name} shows {os.environ['NONCE']}"


async def main() -> None:
    for kind in (OpenAIChatModel, OpenAIResponsesModel):
        agent = Agent(kind("m"), tools=[read_meter], instructions="Be brief.")
        print((await agent.run("What does the water meter show?")).output)
        async with agent.run_stream("What does the water meter show?") as result:
            print(await result.get_output())


asyncio.run(main())
