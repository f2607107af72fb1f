"""What a change of settings asks for, when a server reads them again."""

from collections.abc import Iterator
from dataclasses import dataclass

from convserve_server.settings.settings import Settings

#: Only a server that starts looks at these. The port is held, the processes are counted, and every
#: process writes its log in the same form. Of workers that share a port, some would speak TLS and
#: others not; what is in the files of TLS is read again when it changes. And what protects an open
#: port (host/exposure.py) is not taken away while it is open.
_FIXED = frozenset(
    {
        "host",
        "port",
        "http_port",
        "front",
        "workers",
        "models",
        "models_cache",
        "state_dir",
        "admin_socket",
        "insecure",
        "keys",
        "require_signature",
        "log_format",
        "metrics_port",
        "metrics_host",
        "metrics_key_file",
        "tls_cert",
        "tls_key",
        "tls_client_ca",
        "tls_clients",
    }
)

#: These the supervisor follows at once, with or without a table [models.NAME].
_LIVE = frozenset(
    {
        "versions",
        "labels",
        "control",
        "rollout",
        "unload_after_s",
        "scan_s",
        "poll_s",
        "max_cache_mib",
        "load_timeout_s",
        "shutdown_delay_s",
        "log_level",
        "access_log",
        "access_log_share",
    }
)


@dataclass(frozen=True)
class Changes:
    """The names of settings that differ, as models.NAME.KEY for those of one model.

    Attributes:
        live: That change at once.
        restart: That change when each worker is replaced.
        fixed: That only a start of the server changes.
    """

    live: tuple[str, ...]
    restart: tuple[str, ...]
    fixed: tuple[str, ...]

    def __str__(self) -> str:
        """What is logged."""
        parts = [
            f"{what}: {', '.join(names)}"
            for what, names in (
                ("changed", self.live),
                ("changed by restarting the workers, one by one", self.restart),
                ("unchanged until the server is started again", self.fixed),
            )
            if names
        ]
        return "; ".join(parts) or "nothing has changed"


def compare(before: Settings, after: Settings) -> Changes:
    """Returns how settings differ."""
    changed = sorted(_changed(before, after))
    own = {name: name.rpartition(".")[2] for name in changed}
    fixed = tuple(name for name in changed if name in _FIXED)
    live = tuple(name for name in changed if own[name] in _LIVE)
    restart = tuple(name for name in changed if name not in fixed and name not in live)
    return Changes(live, restart, fixed)


def merged(before: Settings, after: Settings) -> Settings:
    """Returns the settings after a change, with those before that a running server keeps."""
    return after.replace(**{name: before.values()[name] for name in _FIXED})


def _changed(before: Settings, after: Settings) -> Iterator[str]:
    now = after.values()
    yield from (name for name, value in before.values().items() if now[name] != value)
    for model in before.by_model.keys() | after.by_model.keys():
        old, new = before.by_model.get(model, {}), after.by_model.get(model, {})
        for key in old.keys() | new.keys():
            if old.get(key) != new.get(key):
                yield f"models.{model}.{key}"
