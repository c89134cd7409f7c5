"""Training data: photos packed or decoded on demand, the sampling order, and augmentation on the device."""
