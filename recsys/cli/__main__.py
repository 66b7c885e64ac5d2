"""Let ``python -m recsys.cli`` be the command too."""

from recsys.cli.app import main

if __name__ == "__main__":
    main()
