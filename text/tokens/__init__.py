"""From a title to token ids: normalisation, compound words, and the tokenizer."""
