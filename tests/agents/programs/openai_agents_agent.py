"""openai-agents with one tool, over responses (its default) and chat completions."""

import asyncio
import os

from openai import AsyncOpenAI

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)


@function_tool
def read_meter(name: str) -> str:
    """Reads a meter."""
    return f"{name} shows {os.environ['NONCE']}"


async def main() -> None:
    set_tracing_disabled(True)
    for model in ("m", OpenAIChatCompletionsModel("m", openai_client=AsyncOpenAI())):
        agent = Agent(name="Reader", instructions="Be brief.", tools=[read_meter], model=model)
        print((await Runner.run(agent, "What does the water meter show?")).final_output)
        streamed = Runner.run_streamed(agent, "What does the water meter show?")
        async for _ in streamed.stream_events():
            pass
        print(streamed.final_output)


asyncio.run(main())
