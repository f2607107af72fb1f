"""The policies of models, of their settings."""

from convserve_server.core.policies import ModelPolicy
from convserve_server.settings.settings import Settings


def policy_of(settings: Settings, name: str) -> ModelPolicy:
    """Returns what the operator wants of a model."""
    del name
    return ModelPolicy(versions=settings.models.versions)
