// `client.responses` of the stock `openai` package against a running gateway. The upstream behind it does
// what `user` says; test_responses_node.py owns those behaviours and what the upstream must have seen.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const baseURL = `${process.env.GATEWAY_URL}/v1`;
const client = new OpenAI({ baseURL, apiKey: "test-key-0123456789", maxRetries: 0, timeout: 20_000 });
const asked = { model: "m", input: "Hello!" };
const TEXT = "Hello! How can I help you today?";
const weather = {
  type: "function",
  name: "get_weather",
  parameters: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  },
  strict: true,
};

async function collect(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

test("unary", async () => {
  const { data, response, request_id } = await client.responses.create(asked).withResponse();
  assert.equal(data.object, "response");
  assert.equal(data.status, "completed");
  assert.equal(data.output_text, TEXT);
  assert.equal(data.usage.total_tokens, 29);
  assert.match(request_id, /^req_/);
  assert.equal(response.headers.get("x-headgate-provider"), "up");
});

test("stream", async () => {
  const events = await collect(await client.responses.create({ ...asked, stream: true }));
  assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
  const deltas = events.filter((event) => event.type === "response.output_text.delta");
  assert.equal(deltas.map((event) => event.delta).join(""), TEXT);
  assert.equal(events.at(-1).type, "response.completed");
  assert.equal(events.at(-1).response.output[0].content[0].text, TEXT);
});

test("the streaming helper", async () => {
  const stream = client.responses.stream(asked);
  let snapshot = "";
  stream.on("response.output_text.delta", (event) => (snapshot = event.snapshot));
  const final = await stream.finalResponse();
  assert.equal(snapshot, TEXT);
  assert.equal(final.output_text, TEXT);
});

test("thinking", async () => {
  const user = "reasoning";
  const whole = await client.responses.create({ ...asked, user });
  assert.equal(whole.output[0].summary[0].text, "six times seven");
  const final = await client.responses.stream({ ...asked, user }).finalResponse();
  assert.deepEqual(final.output.map((item) => item.type), ["reasoning", "message"]);
  assert.equal(final.output[0].summary[0].text, "six times seven");
  assert.equal(final.output_text, "42");
});

for (const streamed of [false, true]) {
  test(`tools in parallel, ${streamed ? "streamed" : "whole"}`, async () => {
    const params = { ...asked, user: "tools once", tools: [weather] };
    const first = streamed
      ? await client.responses.stream(params).finalResponse()
      : await client.responses.create(params);
    const calls = first.output.filter((item) => item.type === "function_call");
    assert.deepEqual(calls.map((call) => JSON.parse(call.arguments)), [
      { city: "Paris" },
      { city: "Tokyo" },
    ]);
    const outputs = calls.map((call) => ({
      type: "function_call_output",
      call_id: call.call_id,
      output: "mild",
    }));
    const input = [{ role: "user", content: "Hello!" }, ...first.output, ...outputs];
    const second = await client.responses.create({ ...params, input });
    assert.equal(second.output_text, TEXT);
  });
}

test("structured output", async () => {
  const shape = z.object({ steps: z.array(z.string()), final: z.number() });
  const params = { ...asked, user: "parse", text: { format: zodTextFormat(shape, "solution") } };
  const whole = await client.responses.parse(params);
  assert.deepEqual(whole.output_parsed, { steps: ["a", "b"], final: 42 });
  const streamed = await client.responses.stream(params).finalResponse();
  assert.equal(streamed.output_parsed.final, 42);
});

test("early errors", async () => {
  const quota = client.responses.create({ ...asked, user: "quota", stream: true });
  await assert.rejects(quota, (error) => {
    assert.ok(error instanceof OpenAI.RateLimitError);
    assert.equal(error.code, "insufficient_quota");
    return true;
  });
  const kept = client.responses.create({ ...asked, previous_response_id: "resp_1" });
  await assert.rejects(kept, (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "previous_response_id");
    return true;
  });
  await assert.rejects(client.responses.retrieve("resp_1"), OpenAI.NotFoundError);
});

test("an error in mid-stream", async () => {
  const stream = await client.responses.create({ ...asked, user: "breaks", stream: true });
  await assert.rejects(collect(stream), (error) => {
    assert.ok(error instanceof OpenAI.APIError);
    assert.match(error.message, /Boom\./);
    return true;
  });
  await assert.rejects(
    client.responses.stream({ ...asked, user: "breaks" }).finalResponse(),
    /Boom\./,
  );
});

test("a hang-up closes the upstream", async () => {
  const stream = await client.responses.create({ ...asked, user: "begins", stream: true });
  for await (const event of stream) {
    if (event.type === "response.output_text.delta") break;
  }
});
