"""Lets ``python -m host`` be ``llama2-host``."""
import sys

from host.cli import main

sys.exit(main())
