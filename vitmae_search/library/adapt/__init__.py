"""Adapt: learn a projection from a person's own photos, without labels, and use it if it searches better.

- `view_features`: encodes views of photos, and stores their features so that a stopped run can resume.
- `fit`: fits the projection.
- `adaptation`: one run: draw photos, encode, fit, and compare with the projection in use.
- `save`: writes the projection to a library's new space, or to a file.
"""
