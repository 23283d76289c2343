"""`python -m sharpzo_edge`: the command line, also where its folder is not on PATH."""

from .cli import main

main()
