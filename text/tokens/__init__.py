"""From a title to token ids: normalising, splitting compounds, the tokenizer."""
