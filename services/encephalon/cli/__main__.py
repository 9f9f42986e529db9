"""`python -m encephalon.cli` is `encephalon`."""

from encephalon.cli.app import main

if __name__ == "__main__":
    main()
