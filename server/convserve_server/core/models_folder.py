"""The models folder over time: what is wrong with it is reported once.

What is out of sight because a volume is gone was not removed.
"""

import os
from collections.abc import Callable, Collection
from pathlib import Path

from convserve_bundle.folder import Listing, list_bundles


class ModelsFolder:
    """Looks at a models folder again and again.

    Args:
        path: of the folder.
        report: called with an entry of the folder that is not served ("" for the folder) and why;
            with an empty reason when that is over.
    """

    def __init__(self, path: Path, report: Callable[[str, str], None]) -> None:
        #: Of the folder.
        self.path = path
        self._report = report
        self._problems: dict[str, str] = {}
        # By device and inode, where the models were last seen; "" is the folder itself.
        self._seen_in: dict[str, tuple[int, int]] = {}
        #: Whether there was no bundle when last looked, not even one that cannot be served.
        self.is_empty = False

    def look(self, loaded: Collection[str]) -> Listing | None:
        """Returns what the folder has; None if it cannot be read.

        Args:
            loaded: names of the models that are loaded from it. Where the folder that they were in
                is another one now, and empty, the listing knows nothing of them.
        """
        listing = None
        try:
            listing = list_bundles(self.path)
        except OSError as error:
            user = f"as user {os.getuid()}"
            problems = {"": f"cannot read the models folder {self.path} {user}: {error.strerror}"}
        if listing is not None:
            self.is_empty = not listing.bundles
            self._count_lost(listing, loaded)
            problems = listing.problems
        for entry in {*self._problems, *problems}:
            if self._problems.get(entry) != problems.get(entry):
                self._report(entry, problems.get(entry, ""))
        self._problems = dict(problems)
        return listing

    def _count_lost(self, listing: Listing, loaded: Collection[str]) -> None:
        """Counts a folder without models as unreadable if it is not the one they were seen in."""
        known = {*loaded, *listing.bundles}
        for name in ("", *known):
            here = _identity(self.path / name)
            if listing.bundles and (not name or name in listing.bundles):
                if here is not None:
                    self._seen_in[name] = here
                continue
            lost = [name] if name else sorted(loaded)
            if here is None or self._seen_in.get(name) in (None, here) or not lost:
                continue
            listing.unreadable.update(lost)
            listing.problems[name] = (
                f"{self.path / name} holds no model and is not the folder that it was, as if its "
                f"volume were gone: still serving {', '.join(lost)}; restart the server to unload"
            )
        self._seen_in = {
            name: seen for name, seen in self._seen_in.items() if not name or name in known
        }


def _identity(folder: Path) -> tuple[int, int] | None:
    """Returns device and inode of a folder; None if it is not there."""
    try:
        stat = folder.stat()
    except OSError:
        return None
    return (stat.st_dev, stat.st_ino)
