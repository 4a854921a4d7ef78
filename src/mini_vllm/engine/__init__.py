"""The step loop and what surrounds it: prompts in, text out.

Read in this order: `engine_core` (a step), `model_runner` and `sampler` (what a step computes),
`output_processor` (tokens to text), `engine` (all of it together), `llm` and `async_engine` (the
two ways to drive it).
"""
