"""The settings of a model as what the core knows of the operator's wishes."""

from convserve_server.core.policies import ModelPolicy
from convserve_server.settings.settings import Settings


def policy_of(settings: Settings, name: str) -> ModelPolicy:
    """Returns what the operator wants of a model."""
    model = settings.for_model(name)
    return ModelPolicy(
        model.versions, model.labels, model.control, model.unload_after_s, model.rollout
    )
