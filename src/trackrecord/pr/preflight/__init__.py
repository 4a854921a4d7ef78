"""The branch against the project's own rules, before a maintainer has to look."""
