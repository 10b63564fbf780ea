"""``python -m ptsbundle``: what scripts/bundle and the ptslink_bundle role run."""

import sys

from ptsbundle.cli import main

if __name__ == "__main__":
    sys.exit(main())
