"""Trackers: what a training reports to while it runs, such as MLflow or a class of your own."""
