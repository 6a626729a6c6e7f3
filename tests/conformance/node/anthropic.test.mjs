// The stock `@anthropic-ai/sdk` package against a running gateway. The upstream behind it speaks OpenAI's
// dialect and does what `metadata.user_id` says; test_anthropic_node.py owns those behaviours and what the
// upstream must have seen.

import assert from "node:assert/strict";
import { test } from "node:test";

import Anthropic, { APIUserAbortError } from "@anthropic-ai/sdk";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";

const baseURL = process.env.GATEWAY_URL;
const client = new Anthropic({ baseURL, apiKey: "test-key-0123456789", maxRetries: 0, timeout: 20_000 });
const messages = [{ role: "user", content: "Hello!" }];
const asked = { model: "m", max_tokens: 1024, messages };
const TEXT = "Hello! How can I help you today?";
const weather = {
  name: "get_weather",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

const as = (user_id, more = {}) => ({ ...asked, metadata: { user_id }, ...more });

async function collect(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

test("unary", async () => {
  const { data, response, request_id } = await client.messages.create(asked).withResponse();
  assert.deepEqual(data.content, [{ type: "text", text: TEXT }]);
  assert.equal(data.stop_reason, "end_turn");
  assert.equal(data.stop_sequence, null);
  assert.equal(data.usage.input_tokens, 19);
  assert.equal(data.usage.output_tokens, 10);
  assert.match(request_id, /^req_/);
  assert.equal(data._request_id, request_id);
  assert.equal(response.headers.get("x-headgate-provider"), "up");
});

test("stream", async () => {
  const events = await collect(await client.messages.create({ ...asked, stream: true }));
  assert.deepEqual([...new Set(events.map((event) => event.type))], [
    "message_start", "content_block_start", "content_block_delta", "content_block_stop",
    "message_delta", "message_stop",
  ]);
  assert.equal(events.map((event) => event.delta?.text ?? "").join(""), TEXT);
});

test("the stream helper", async () => {
  const seen = [];
  const stream = client.messages.stream(asked).on("text", (text) => seen.push(text));
  const final = await stream.finalMessage();
  assert.equal(seen.join(""), TEXT);
  const whole = await client.messages.create(asked);
  assert.deepEqual(final.content, whole.content);
  assert.equal(final.usage.input_tokens, 19);
});

test("thinking", async () => {
  const body = as("thinking", { thinking: { type: "enabled", budget_tokens: 1024 }, max_tokens: 2048 });
  const whole = await client.messages.create(body);
  const streamed = await client.messages.stream(body).finalMessage();
  for (const { content } of [whole, streamed]) {
    assert.deepEqual(content, [
      { type: "thinking", thinking: "six times seven", signature: "" },
      { type: "text", text: "42" },
    ]);
    const next = await client.messages.create({
      ...asked, messages: [...messages, { role: "assistant", content }, ...messages],
    });
    assert.equal(next.content[0].text, TEXT);
  }
});

test("tools", async () => {
  const body = as("tools", { tools: [weather], tool_choice: { type: "auto" } });
  const whole = await client.messages.create(body);
  assert.equal(whole.stop_reason, "tool_use");
  assert.deepEqual(whole.content.map((block) => [block.type, block.id, block.input]), [
    ["tool_use", "call_a", { city: "Paris" }], ["tool_use", "call_b", { city: "Tokyo" }],
  ]);
  const streamed = await client.messages.stream(body).finalMessage();
  assert.deepEqual(streamed.content, whole.content);
  const content = whole.content.map((block) => (
    { type: "tool_result", tool_use_id: block.id, content: "sunny" }
  ));
  for (const said of [whole, streamed]) {
    const answer = await client.messages.create({
      ...as("results"), tools: [weather],
      messages: [...messages, { role: "assistant", content: said.content }, { role: "user", content }],
    });
    assert.equal(answer.content[0].text, TEXT);
  }
});

test("the runner of tools", async () => {
  const cities = [];
  const tool = { ...weather, run: ({ city }) => { cities.push(city); return "sunny"; }, parse: (x) => x };
  const runner = client.beta.messages.toolRunner(as("tools once", { tools: [tool] }));
  const final = await runner.runUntilDone();
  assert.equal(final.content[0].text, TEXT);
  assert.deepEqual(cities.sort(), ["Paris", "Tokyo"]);
});

test("parse", async () => {
  const Answer = z.object({ steps: z.array(z.string()), final: z.number() });
  const body = as("parse", { output_config: { format: zodOutputFormat(Answer) } });
  const found = await client.messages.parse(body);
  assert.deepEqual(found.parsed_output, { steps: ["a", "b"], final: 42 });
  const { content } = found;
  const next = { ...as("parsed"), messages: [...messages, { role: "assistant", content }, ...messages] };
  assert.equal((await client.messages.create(next)).content[0].text, TEXT);
});

test("counting tokens", async () => {
  const { max_tokens, ...prompt } = asked;
  const { input_tokens } = await client.messages.countTokens(prompt);
  assert.ok(input_tokens > 0);
  assert.ok((await client.messages.countTokens({ ...prompt, tools: [weather] })).input_tokens > input_tokens);
});

test("bad request", async () => {
  for (const stream of [false, true]) {
    await assert.rejects(client.messages.create({ ...asked, temperature: 3, stream }), (e) => {
      assert.ok(e instanceof Anthropic.BadRequestError);
      assert.equal(e.type, "invalid_request_error");
      assert.match(e.error.error.message, /^temperature: /);
      assert.match(e.requestID, /^req_/);
      return true;
    });
  }
});

test("unknown model", async () => {
  await assert.rejects(client.messages.create({ ...asked, model: "claude-17" }), (e) => {
    assert.ok(e instanceof Anthropic.NotFoundError);
    assert.equal(e.type, "not_found_error");
    return true;
  });
});

test("errors are retried", async () => {
  const answer = await client.messages.create(as("fails twice"), { maxRetries: 2 });
  assert.equal(answer.content[0].text, TEXT);
});

test("a used-up quota is not retried", async () => {
  await assert.rejects(client.messages.create(as("quota"), { maxRetries: 2 }), Anthropic.RateLimitError);
});

test("error in mid-stream", async () => {
  const seen = [];
  await assert.rejects(async () => {
    const stream = await client.messages.create(as("breaks", { stream: true }));
    for await (const event of stream) if (event.delta?.text) seen.push(event.delta.text);
  }, (e) => {
    assert.ok(e instanceof Anthropic.APIError);
    assert.equal(e.type, "overloaded_error");
    return true;
  });
  assert.equal(seen.join(""), "Hello");
});

test("abort", async () => {
  for (const stream of [false, true]) {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 150);
    const { signal } = controller;
    await assert.rejects(client.messages.create(as("hangs", { stream }), { signal }), APIUserAbortError);
  }
  const stream = await client.messages.create(as("begins", { stream: true }));
  for await (const _ of stream) break; // leaving the loop aborts
});

test("models", async () => {
  const ids = [];
  for await (const model of client.models.list({ limit: 1 })) ids.push(model.id);
  assert.deepEqual(ids, ["a/b", "m"]);
  const model = await client.models.retrieve("a/b");
  assert.equal(model.type, "model");
  await assert.rejects(client.models.retrieve("nope"), Anthropic.NotFoundError);
});
