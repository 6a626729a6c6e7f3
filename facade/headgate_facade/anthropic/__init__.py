"""Anthropic's front door: POST /v1/messages and what belongs to it."""
