"""The commands of `mini-vllm`: one module each, with `HELP`, `configure(parser)` and `run(args)`."""
