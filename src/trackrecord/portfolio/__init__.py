"""The folder a person publishes: pages made of evidence, and an index of them."""
