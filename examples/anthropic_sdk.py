"""Anthropic's Python SDK against Headgate, as a stream. Needs: pip install anthropic."""

import os

from anthropic import Anthropic

client = Anthropic(
    base_url=os.environ.get("HEADGATE_REST_URL", "http://127.0.0.1:8080"),
    api_key=os.environ.get("HEADGATE_API_KEY", "none"),  # the SDK wants one; so does auth mode keys
)
with client.messages.stream(
    model=os.environ.get("MODEL", "smollm2-135m-instruct"),
    max_tokens=100,
    messages=[{"role": "user", "content": "What is the capital of France?"}],
) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
print()
