"""What an inference start-up would cost and earn, with the arithmetic of every number shown.

keys, sheet     what a person assumes: a TOML file, every key known, every unit in its name
serving         what the simulated deployment gives: goodput, and what a token takes of it
economics       cost of a token, margin at a price, break-even
options         build, buy or upstream over a horizon, and what flips the decision
uncertainty     tornado and Monte Carlo
moats, thesis   claims, each with evidence and with what would refute it
lint            what a sheet owes its reader
figures         every number by name, with its derivation and its range
report, plots   all of it as data, as a page and as pictures
"""
