"""Masked-autoencoder pretraining on photos without labels (He et al. 2022, arXiv 2111.06377)."""
