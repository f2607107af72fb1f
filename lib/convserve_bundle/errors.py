"""Errors about bundles; each message is one line."""


class BundleError(Exception):
    """A file is not a valid bundle, or not the kind of bundle that was asked for."""


class MissingBundleError(BundleError):
    """A bundle that was named does not exist."""


class PublishError(Exception):
    """A bundle cannot be published into the models folder."""


class SigningError(Exception):
    """A key, or the installation, cannot be used to sign bundles or to check signatures."""
