"""Legacy text completions by the embedded model, through the whole gateway and OpenAI's own SDK."""

from __future__ import annotations

import openai

from fakes.gateway import KEY, Gateway
from headgate_server.local import LocalModelOptions, fetch_weights

CONFIG = """
providers: {local: {kind: local}}
models: {small: {targets: [{provider: local, model: smollm2-135m-instruct}]}}
"""


async def test_it_completes_texts() -> None:
    options = LocalModelOptions(weights=await fetch_weights(), load_timeout_s=60)
    async with (
        Gateway(CONFIG, local_options={"local": options}) as gateway,
        openai.AsyncOpenAI(base_url=gateway.rest_url + "/v1", api_key=KEY, timeout=60) as client,
    ):
        create = client.completions.create
        france = "The capital of France is"
        raw = await client.completions.with_raw_response.create(
            model="small", prompt=france, max_tokens=3, echo=True, logprobs=1
        )
        assert "echo" in raw.headers["x-headgate-warnings"]
        got = raw.parse()
        assert got.choices[0].text.startswith(" Paris")
        assert got.choices[0].finish_reason == "length"
        assert got.choices[0].logprobs is not None
        assert got.usage is not None and got.usage.completion_tokens == 3

        several = await create(model="small", prompt=[france, "One, two, three,"], max_tokens=4)
        assert [choice.index for choice in several.choices] == [0, 1]
        assert "Paris" in several.choices[0].text and "four" in several.choices[1].text

        text, usage = "", None
        stream = await create(
            model="small", prompt=france, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            text += "".join(choice.text for choice in chunk.choices)
            usage = chunk.usage or usage
        assert "Paris" in text
        assert usage is not None and usage.completion_tokens == 16, "OpenAI's default"
