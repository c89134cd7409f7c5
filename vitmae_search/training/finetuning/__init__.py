"""Fine-tuning a pretrained encoder into a classifier: a linear probe, or all of its weights."""
