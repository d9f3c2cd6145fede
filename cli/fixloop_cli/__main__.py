"""`python -m fixloop_cli` is `fixloop`."""

from fixloop_cli.main import main

main()
