"""`python -m pickcal`."""

from pickcal.cli import main

main()
