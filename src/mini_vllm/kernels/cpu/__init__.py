"""The kernels of a CPU, in Python that numba compiles.

Read `layers.run_layers` first: a step through a model, stage by stage. `matmul`, `attention` and
`prompt_attention` are its large stages, `stages` the small ones, `head` its end; `products` and
`simd` are the vectors they are written in, `tiles` and `tiled_attention` do the same on Intel's
matrix unit, and `formats` says how weights lie in memory.
"""
