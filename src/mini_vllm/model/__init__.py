"""Model files, tokenizers and the decoder: everything between a name and logits."""
