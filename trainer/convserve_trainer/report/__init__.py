"""The report beside a bundle: what was trained, on what, and what came of it."""
