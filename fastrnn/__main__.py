"""``python -m fastrnn`` is the ``fastrnn`` command."""

from fastrnn.cli import main

main()
