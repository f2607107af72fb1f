"""The command convserve-serve."""

import sys
from collections.abc import Sequence
from pathlib import Path

from convserve_server.config import SettingError, Settings
from convserve_server.logs import configure_logging
from convserve_server.supervisor import StartError, supervise


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until stopped.

    Returns: 0 after a clean stop, 1 after a failure, 2 for settings that are not taken.
    """
    try:
        settings = Settings.load(sys.argv[1:] if arguments is None else arguments)
        if not Path(settings.models).is_dir():
            raise SettingError(f"models: {settings.models} is not a folder")
    except SettingError as error:
        print(f"convserve-serve: {error}", file=sys.stderr)
        return 2
    configure_logging(settings.log_level, settings.log_format)
    try:
        return supervise(settings)
    except StartError as error:
        print(f"convserve-serve: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
