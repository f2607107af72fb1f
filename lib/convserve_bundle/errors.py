"""What is wrong with bundles; each message is one line."""


class BundleError(Exception):
    """A file that is no bundle, or not the kind of bundle that was asked for."""


class MissingBundleError(BundleError):
    """A bundle that was named and is not there."""


class PublishError(Exception):
    """A models folder that cannot take the bundle."""
