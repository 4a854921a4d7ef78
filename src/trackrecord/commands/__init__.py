"""The commands of `trackrecord`: one module each, with `configure(parser)` and `run(args)`."""
