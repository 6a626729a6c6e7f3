// The stock `@google/genai` package against a running gateway. The upstream behind it does what the first
// message says; test_gemini_node.py owns those behaviours and what the upstream must have seen.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ApiError, FunctionCallingConfigMode, GoogleGenAI, Type } from "@google/genai";

const baseUrl = process.env.GATEWAY_URL;
const open = (httpOptions) =>
  new GoogleGenAI({
    apiKey: "test-key-0123456789",
    httpOptions: { baseUrl, timeout: 20_000, ...httpOptions },
  });
const client = open({});
const TEXT = "Hello! How can I help you today?";
const weather = {
  name: "get_weather",
  description: "The weather in a city.",
  parameters: {
    type: Type.OBJECT,
    properties: { city: { type: Type.STRING } },
    required: ["city"],
  },
};
const tools = [{ functionDeclarations: [weather] }];

const ask = (contents, config) => client.models.generateContent({ model: "m", contents, config });

async function collect(stream) {
  const chunks = [];
  for await (const chunk of await stream) chunks.push(chunk);
  return chunks;
}

const stream = (contents, config) =>
  collect(client.models.generateContentStream({ model: "m", contents, config }));

const text = (chunks) => chunks.map((chunk) => chunk.text ?? "").join("");

for (const apiVersion of ["v1beta", "v1"]) {
  test(`answer, ${apiVersion}`, async () => {
    const got = await open({ apiVersion }).models.generateContent({ model: "m", contents: "Hello!" });
    assert.equal(got.text, TEXT);
    assert.equal(got.candidates[0].finishReason, "STOP");
    assert.equal(got.usageMetadata.totalTokenCount, 29);
    assert.equal(got.modelVersion, "upstream-m");
    assert.equal(got.sdkHttpResponse.headers["x-headgate-provider"], "up");
  });
}

test("stream", async () => {
  const chunks = await stream("Hello!");
  assert.equal(text(chunks), TEXT);
  assert.ok(chunks.length > 3);
  assert.equal(chunks.at(-1).candidates[0].finishReason, "STOP");
  assert.equal(chunks.at(-1).usageMetadata.totalTokenCount, 29);
  assert.ok(chunks.slice(0, -1).every((chunk) => chunk.usageMetadata === undefined));
});

test("a stream with pings", async () => {
  assert.equal(text(await stream("slowly")), "abc");
});

test("config", async () => {
  const got = await ask("config", {
    systemInstruction: "Be brief.",
    temperature: 0.5,
    topK: 10,
    maxOutputTokens: 64,
    stopSequences: ["END"],
    responseMimeType: "application/json",
    responseSchema: { type: Type.ARRAY, items: { type: Type.STRING, nullable: true } },
  });
  assert.equal(got.text, TEXT);
});

test("calls", async () => {
  const config = {
    tools,
    toolConfig: { functionCallingConfig: { mode: FunctionCallingConfigMode.ANY } },
  };
  for (const calls of [
    (await ask("tools", config)).functionCalls,
    (await stream("tools", config)).flatMap((chunk) => chunk.functionCalls ?? []),
  ]) {
    assert.deepEqual(
      calls.map(({ id, name, args }) => [id, name, args.city]),
      [
        ["call_a", "get_weather", "Paris"],
        ["call_b", "get_weather", "Tokyo"],
      ],
    );
  }
});

test("a chat, streamed, with calls", async () => {
  const chat = client.chats.create({ model: "m", config: { tools } });
  const first = await collect(chat.sendMessageStream({ message: "tools once" }));
  const outcomes = first
    .flatMap((chunk) => chunk.functionCalls ?? [])
    .map(({ id, name }) => ({ functionResponse: { id, name, response: { output: id } } }));
  assert.equal(outcomes.length, 2);
  assert.equal(text(await collect(chat.sendMessageStream({ message: outcomes }))), TEXT);
  assert.equal((await chat.sendMessage({ message: "And now?" })).text, TEXT);
  assert.equal(chat.getHistory(true).filter((content) => content.role === "user").length, 3);
});

test("thoughts", async () => {
  const config = { thinkingConfig: { includeThoughts: true } };
  const parts = (got) => got.candidates[0].content.parts;
  const whole = await ask("thinking", config);
  assert.equal(whole.text, "42");
  assert.deepEqual(parts(whole)[0], { text: "six times seven", thought: true });
  const chunks = await stream("thinking", config);
  const thoughts = chunks.flatMap(parts).filter((part) => part.thought);
  assert.equal(thoughts.map((part) => part.text).join(""), "six times seven");
  assert.equal(text(chunks), "42");
  assert.equal(parts(await ask("thinking")).length, 1);
});

test("images", async () => {
  const inlineData = { mimeType: "image/png", data: "iVBORw==" };
  assert.equal((await ask(["image", { inlineData }])).text, TEXT);
});

test("tokens and models", async () => {
  const counted = await client.models.countTokens({ model: "a/b", contents: "Hello, you there!" });
  assert.ok(counted.totalTokens > 2);
  const names = [];
  for await (const model of await client.models.list({ config: { pageSize: 1 } })) {
    names.push(model.name);
  }
  assert.deepEqual(names, ["models/a/b", "models/m"]);
  assert.equal((await client.models.get({ model: "a/b" })).displayName, "a/b");
});

test("errors", async () => {
  for (const [contents, status, word] of [
    ["quota", 429, "RESOURCE_EXHAUSTED"],
    ["filter", 400, "FAILED_PRECONDITION"],
    ["rejects", 502, "INTERNAL"],
  ]) {
    for (const call of [ask, stream]) {
      await assert.rejects(call(contents), (error) => {
        assert.ok(error instanceof ApiError);
        assert.equal(error.status, status);
        assert.equal(JSON.parse(error.message).error.status, word);
        return true;
      });
    }
  }
  await assert.rejects(
    client.models.generateContent({ model: "nope", contents: "Hi" }),
    (error) => error.status === 404,
  );
  await assert.rejects(client.models.get({ model: "nope" }), (error) => error.status === 404);
});

test("an error within a stream", async () => {
  const seen = [];
  await assert.rejects(
    (async () => {
      const chunks = await client.models.generateContentStream({ model: "m", contents: "breaks" });
      for await (const chunk of chunks) seen.push(chunk.text);
    })(),
    (error) => error instanceof ApiError && error.status === 503,
  );
  assert.equal(seen.join(""), "Hello");
});

test("retries", async () => {
  const again = open({ retryOptions: { attempts: 3, initialDelay: 0.01, maxDelay: 0.02 } });
  const got = await again.models.generateContent({ model: "m", contents: "fails twice" });
  assert.equal(got.text, TEXT);
});

test("going away", async () => {
  for (const contents of ["hangs", "begins"]) {
    const going = new AbortController();
    const config = { abortSignal: going.signal };
    const asked = { model: "m", contents, config };
    if (contents === "hangs") {
      setTimeout(() => going.abort(), 300);
      await assert.rejects(client.models.generateContent(asked));
    } else {
      const chunks = await client.models.generateContentStream(asked);
      await assert.rejects(async () => {
        for await (const chunk of chunks) {
          assert.equal(chunk.candidates[0].content.role, "model");
          going.abort();
        }
      });
    }
  }
});
