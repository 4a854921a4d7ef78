"""The OpenAI-compatible HTTP server around one engine. `docs/server.md` is its manual."""
