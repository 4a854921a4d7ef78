"""How long a step takes: the shape of a step, the work in it, and three models of its time."""
