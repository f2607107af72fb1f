"""Keras and Matplotlib keep what they keep for themselves in our cache.

Left alone they want folders in HOME, warn where they get none, and take the user's settings.
"""

import logging
import os

from convserve_trainer.host import user_cache


def settle() -> None:
    """Says where the caches are; call it before Matplotlib or Keras is imported."""
    os.environ.setdefault("KERAS_HOME", str(user_cache.folder("keras")))
    os.environ.setdefault("MPLCONFIGDIR", str(user_cache.folder("matplotlib")))
    # A folder that cannot be written to only costs a second: it takes a temporary one.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
