"""Gemini's front door: generateContent, streamGenerateContent, countTokens and the models."""
