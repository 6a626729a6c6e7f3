"""OpenAI's Responses API against Headgate, as a stream. Needs: pip install openai."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("HEADGATE_REST_URL", "http://127.0.0.1:8080") + "/v1",
    api_key=os.environ.get("HEADGATE_API_KEY", "none"),  # the SDK wants one; so does auth mode keys
)
for event in client.responses.create(
    model=os.environ.get("MODEL", "smollm2-135m-instruct"),
    input="What is the capital of France?",
    store=False,  # nothing is kept anyway
    stream=True,
):
    if event.type == "response.output_text.delta":
        print(event.delta, end="", flush=True)
print()
