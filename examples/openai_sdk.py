"""OpenAI's Python SDK against Headgate, as a stream. Needs: pip install openai."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("HEADGATE_REST_URL", "http://127.0.0.1:8080") + "/v1",
    api_key=os.environ.get("HEADGATE_API_KEY", "none"),  # the SDK wants one; so does auth mode keys
)
chunks = client.chat.completions.create(
    model=os.environ.get("MODEL", "smollm2-135m-instruct"),
    messages=[{"role": "user", "content": "What is the capital of France?"}],
    temperature=0,
    stream=True,
)
for chunk in chunks:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
