"""The OpenAI front door: Chat Completions in and out."""
