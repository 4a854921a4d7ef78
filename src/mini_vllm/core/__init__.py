"""The decisions of the engine: which requests run, with how many tokens, in which blocks.

Standard library only. Read in this order: `request`, `block_pool`, `kv_cache_manager`,
`scheduler`.
"""
