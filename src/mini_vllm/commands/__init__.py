"""The commands of `mini-vllm`: one module each, with `configure(parser)` and `run(args)`."""
