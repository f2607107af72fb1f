"""The command convserve, as python -m convserve."""

import sys

from convserve.main import main

if __name__ == "__main__":
    sys.exit(main())
