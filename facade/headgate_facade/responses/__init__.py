"""OpenAI's Responses dialect: its shapes, the way in, the way out."""
