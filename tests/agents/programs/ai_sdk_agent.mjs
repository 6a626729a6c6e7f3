// Vercel's AI SDK with one tool, over responses (its default) and chat completions, whole and streamed.
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const openai = createOpenAI({ baseURL: process.env.OPENAI_BASE_URL });
const tools = {
  read_meter: tool({
    description: "Reads a meter.",
    inputSchema: z.object({ name: z.string() }),
    execute: async ({ name }) => `${name} shows ${process.env.NONCE}`,
  }),
};
const prompt = "What does the water meter show?";
for (const model of [openai("m"), openai.chat("m")]) {
  const options = { model, tools, prompt, stopWhen: stepCountIs(3), maxRetries: 0 };
  console.log((await generateText(options)).text);
  const streamed = streamText({ ...options, onError: ({ error }) => { throw error; } });
  console.log(await streamed.text);
}
