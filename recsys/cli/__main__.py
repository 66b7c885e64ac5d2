"""Run the ``recsys`` command as ``python -m recsys.cli``."""

from recsys.cli.app import main

if __name__ == "__main__":
    main()
