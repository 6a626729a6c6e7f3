"""Google's Python SDK against Headgate, as a stream. Needs: pip install google-genai."""

import os

from google import genai

client = genai.Client(
    api_key=os.environ.get("HEADGATE_API_KEY", "none"),  # the SDK wants one; so does auth mode keys
    http_options={"base_url": os.environ.get("HEADGATE_REST_URL", "http://127.0.0.1:8080")},
)
for chunk in client.models.generate_content_stream(
    model=os.environ.get("MODEL", "smollm2-135m-instruct"),
    contents="What is the capital of France?",
):
    print(chunk.text or "", end="", flush=True)
print()
