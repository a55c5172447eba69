"""Lets ``python -m llama2_host`` be ``llama2-host``."""
import sys

from llama2_host.cli import main

sys.exit(main())
