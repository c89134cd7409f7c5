"""`python -m vitmae_search` is the command `vitmae-search`."""

from vitmae_search.cli.main import main

if __name__ == "__main__":
    main()
