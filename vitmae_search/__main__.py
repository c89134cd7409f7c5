"""Run the command `vitmae-search` as `python -m vitmae_search`."""

from vitmae_search.cli.main import main

if __name__ == "__main__":
    main()
