"""Matplotlib, which Keras imports too, keeps its list of fonts in our cache.

Left alone it wants a folder in HOME, warns where it gets none, and takes the user's style.
"""

import logging
import os

from convserve_trainer.host import user_cache


def settle() -> None:
    """Says where the cache is; call it before Matplotlib or Keras is imported."""
    os.environ.setdefault("MPLCONFIGDIR", str(user_cache.folder("matplotlib")))
    # A folder that cannot be written to only costs a second: it takes a temporary one.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
