"""A LangChain agent with one tool. Needs the packages langchain and langchain-openai."""

import os

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def read_meter(name: str) -> str:
    """Reads a meter."""
    return f"{name} shows {os.environ['NONCE']}"


model = ChatOpenAI(model="m", base_url=os.environ["OPENAI_BASE_URL"], stream_usage=True)
agent = create_agent(model, [read_meter])
question = {"messages": [{"role": "user", "content": "What does the water meter show?"}]}
print(agent.invoke(question)["messages"][-1].content)
for kind, update in agent.stream(question, stream_mode=["messages"]):
    print(update[0].content if update[0].type == "AIMessageChunk" else "", end="")
print()
