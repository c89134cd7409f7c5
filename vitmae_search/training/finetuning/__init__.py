"""Fine-tuning a pretrained encoder into a classifier: by linear probing, or of all weights."""
