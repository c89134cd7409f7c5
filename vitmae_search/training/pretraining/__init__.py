"""Pretraining a masked autoencoder on photos without labels."""
