"""Projections learned without labels from a frozen encoder's features: whitening and a retrieval head."""
