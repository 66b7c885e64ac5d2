"""Let ``python -m recsys.cli`` be the command too."""

from recsys.cli.app import main

main()
