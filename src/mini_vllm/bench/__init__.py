"""Measuring the engine on the machine at hand: workloads, repeats, load, and the report."""
