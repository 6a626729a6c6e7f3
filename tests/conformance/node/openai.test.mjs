// The stock `openai` package against a running gateway. The upstream behind it does what `user` says;
// test_openai_node.py owns those behaviours and what the upstream must have seen.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI, { APIUserAbortError } from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const baseURL = `${process.env.GATEWAY_URL}/v1`;
const client = new OpenAI({ baseURL, apiKey: "test-key-0123456789", maxRetries: 0, timeout: 20_000 });
const messages = [{ role: "user", content: "Hello!" }];
const asked = { model: "m", messages };
const TEXT = "Hello! How can I help you today?";
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

test("unary", async () => {
  const { data, response, request_id } = await client.chat.completions.create(asked).withResponse();
  assert.equal(data.object, "chat.completion");
  assert.equal(data.choices[0].message.content, TEXT);
  assert.equal(data.choices[0].message.refusal, null);
  assert.equal(data.choices[0].finish_reason, "stop");
  assert.equal(data.usage.total_tokens, 29);
  assert.match(request_id, /^req_/);
  assert.equal(response.headers.get("x-headgate-provider"), "up");
});

test("stream", async () => {
  const chunks = await collect(await client.chat.completions.create({ ...asked, stream: true }));
  assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), TEXT);
  assert.equal(chunks[0].choices[0].delta.role, "assistant");
  assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
  assert.ok(chunks.every((chunk) => !("usage" in chunk)));
});

test("stream with usage", async () => {
  const options = { stream: true, stream_options: { include_usage: true } };
  const chunks = await collect(await client.chat.completions.create({ ...asked, ...options }));
  const last = chunks.pop();
  assert.deepEqual(last.choices, []);
  assert.equal(last.usage.total_tokens, 29);
  assert.ok(chunks.every((chunk) => chunk.usage === null));
});

test("reasoning", async () => {
  const user = "reasoning";
  const whole = await client.chat.completions.create({ ...asked, user });
  assert.equal(whole.choices[0].message.reasoning_content, "six times seven");
  const chunks = await collect(await client.chat.completions.create({ ...asked, user, stream: true }));
  const thought = chunks.map((chunk) => chunk.choices[0].delta.reasoning_content ?? "").join("");
  assert.equal(thought, "six times seven");
});

test("tools", async () => {
  const body = { ...asked, user: "tools", tools: [weather], tool_choice: "auto" };
  const { message, finish_reason } = (await client.chat.completions.create(body)).choices[0];
  assert.equal(finish_reason, "tool_calls");
  assert.equal(message.content, null);
  assert.deepEqual(message.tool_calls.map((call) => call.id), ["call_a", "call_b"]);
  assert.deepEqual(JSON.parse(message.tool_calls[0].function.arguments), { city: "Paris" });

  const streamed = await client.chat.completions.stream(body).finalChatCompletion();
  const calls = streamed.choices[0].message.tool_calls;
  assert.deepEqual(calls.map((call) => call.function.arguments),
    message.tool_calls.map((call) => call.function.arguments));

  const results = calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: "sunny" }));
  for (const said of [message, streamed.choices[0].message]) {
    const next = { ...asked, messages: [...messages, said, ...results], tools: [weather] };
    const answer = await client.chat.completions.create(next);
    assert.equal(answer.choices[0].message.content, TEXT);
  }
});

test("the runner of tools", async () => {
  const cities = [];
  const run = ({ city }) => { cities.push(city); return "sunny"; };
  const tool = {
    type: "function",
    function: { ...weather.function, function: run, parse: JSON.parse },
  };
  const body = { ...asked, user: "tools once", tools: [tool] };
  const runner = client.chat.completions.runTools({ ...body, stream: true });
  assert.equal(await runner.finalContent(), TEXT);
  assert.deepEqual(cities, ["Paris", "Tokyo"]);
});

const Answer = z.object({ steps: z.array(z.string()), final: z.number() });

test("parse", async () => {
  const response_format = zodResponseFormat(Answer, "answer");
  const body = { ...asked, user: "parse", response_format };
  const { message } = (await client.chat.completions.parse(body)).choices[0];
  assert.deepEqual(message.parsed, { steps: ["a", "b"], final: 42 });
  const streamed = await client.chat.completions.stream(body).finalChatCompletion();
  assert.deepEqual(streamed.choices[0].message.parsed, { steps: ["a", "b"], final: 42 });
  const next = { ...asked, messages: [...messages, message, ...messages] };
  assert.equal((await client.chat.completions.create(next)).choices[0].message.content, TEXT);
});

test("bad request", async () => {
  for (const stream of [false, true]) {
    await assert.rejects(client.chat.completions.create({ ...asked, temperature: 3, stream }), (e) => {
      assert.ok(e instanceof OpenAI.BadRequestError);
      assert.equal(e.param, "temperature");
      assert.equal(e.type, "invalid_request_error");
      assert.match(e.requestID, /^req_/);
      return true;
    });
  }
});

test("unknown model", async () => {
  await assert.rejects(client.chat.completions.create({ ...asked, model: "gpt-17" }), (e) => {
    assert.ok(e instanceof OpenAI.NotFoundError);
    assert.equal(e.code, "model_not_found");
    return true;
  });
});

test("errors are retried", async () => {
  const body = { ...asked, user: "fails twice" };
  const answer = await client.chat.completions.create(body, { maxRetries: 2 });
  assert.equal(answer.choices[0].message.content, TEXT);
});

test("a rate limit is waited for", async () => {
  const body = { ...asked, user: "limited once" };
  const started = performance.now();
  await client.chat.completions.create(body, { maxRetries: 1 });
  const waited = performance.now() - started;
  assert.ok(waited >= 295 && waited < 900, `waited ${waited} ms for 300`);
});

test("a used-up quota is not retried", async () => {
  const body = { ...asked, user: "quota" };
  await assert.rejects(client.chat.completions.create(body, { maxRetries: 2 }), (e) => {
    assert.ok(e instanceof OpenAI.RateLimitError);
    assert.equal(e.code, "insufficient_quota");
    return true;
  });
});

test("error in mid-stream", async () => {
  const seen = [];
  await assert.rejects(async () => {
    const stream = await client.chat.completions.create({ ...asked, user: "breaks", stream: true });
    for await (const chunk of stream) seen.push(chunk.choices[0].delta.content);
  }, (e) => {
    assert.ok(e instanceof OpenAI.APIError);
    assert.equal(e.type, "server_error");
    return true;
  });
  assert.equal(seen.join(""), "Hello");
});

test("abort", async () => {
  for (const stream of [false, true]) {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 150);
    const body = { ...asked, user: "hangs", stream };
    await assert.rejects(
      client.chat.completions.create(body, { signal: controller.signal }), APIUserAbortError);
  }
  const stream = await client.chat.completions.create({ ...asked, user: "begins", stream: true });
  for await (const _ of stream) break; // leaving the loop aborts
});

test("late words of a vendor", async () => {
  const body = { ...asked, user: "late" };
  const runner = client.chat.completions.stream(body);
  const final = await runner.finalChatCompletion();
  assert.equal(final.choices[0].finish_reason, "stop");
  assert.equal(final.choices[0].message.content, "Hi");
});

test("models", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, ["a/b", "m"]);
  assert.equal((await client.models.retrieve("a/b")).id, "a/b");
  await assert.rejects(client.models.retrieve("nope"), OpenAI.NotFoundError);
});
