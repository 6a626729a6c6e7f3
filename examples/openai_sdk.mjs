// OpenAI's Node SDK against Headgate. To run it:
//   npm install --no-save --prefix examples openai && node examples/openai_sdk.mjs
import OpenAI from "openai";

const env = process.env;
const client = new OpenAI({
  baseURL: (env.HEADGATE_REST_URL ?? "http://127.0.0.1:8080") + "/v1",
  apiKey: env.HEADGATE_API_KEY ?? "none", // the SDK wants one; so does auth mode keys
});
const completion = await client.chat.completions.create({
  model: env.MODEL ?? "smollm2-135m-instruct",
  messages: [{ role: "user", content: "What is the capital of France?" }],
  temperature: 0,
});
console.log(completion.choices[0].message.content);
