"""The core: everything between an authenticated ChatRequest and an upstream socket."""
