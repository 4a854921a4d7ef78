"""One module an incident: its fault, and `run(setup)`, the workload that shows it.

A fault is a subclass that is put in the place of the engine's class, or a name that is exchanged
while the workload runs and put back whatever happens; no class of the engine is ever changed.
"""
