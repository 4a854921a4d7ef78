"""From an issue to a pull request: what is free, what it takes, and whether a branch is ready."""
