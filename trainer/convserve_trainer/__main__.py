"""The command convserve-train, as python -m convserve_trainer."""

import sys

from convserve_trainer.main import main

if __name__ == "__main__":
    sys.exit(main())
