"""Serving at scale without the hardware: the engine's own scheduler, a modelled clock.

    models, hardware    what is served, and on what: facts, as data
    quantity, sizing    arithmetic whose every result can be asked how it came about
    cost/               how long a step takes: roofline, measured kernel tables, a fit to a machine
    executor, engine    the real `EngineCore` on a virtual clock
    traffic             who asks, when, and for how much
    cluster             several engines behind a router; prefill and decode apart
    scenario, simulate  a TOML file in, figures out
    grid, sweep         many points of one scenario, and the cheapest that will do

Never imports torch.
"""
