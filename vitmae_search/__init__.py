"""Search a photo folder by how its photos look, with a masked autoencoder, on your own machine.

`Library` is the front door::

    from vitmae_search import Library

    with Library.open("my-library") as library:
        library.index(["~/Pictures"])
        for hit in library.search("query.jpg", k=10).hits:
            print(hit.score, hit.path)
"""
