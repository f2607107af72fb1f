"""The settings of a server, each defined once: for flag, variable, file and help."""

import dataclasses
from dataclasses import dataclass
from typing import Any


class SettingError(ValueError):
    """A setting is missing, unknown or out of range; str() names it, its value and the range."""


def _setting(
    default: Any,
    help_: str,
    *,
    group: str,
    metavar: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    metadata = {
        "help": help_,
        "group": group,
        "metavar": metavar,
        "low": low,
        "high": high,
        "choices": choices,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a server, validated; units are in the names."""

    host: str = _setting(
        "127.0.0.1", "address to listen on; 0.0.0.0 or :: for all", group="calls", metavar="ADDRESS"
    )
    port: int = _setting(
        50051,
        "port to listen on; 0 takes a free one",
        group="calls",
        metavar="PORT",
        low=0,
        high=65535,
    )
    front: str = _setting(
        "auto",
        "what speaks HTTP/2: grpcio everywhere, or native, in Rust, several times as fast; auto: "
        "native where it is installed and can do all that is asked for",
        group="calls",
        choices=("auto", "grpcio", "native"),
    )
    workers: int = _setting(
        0,
        "processes that share the port; 0: one for each CPU, or for every four with CUDA, as far "
        "as memory goes",
        group="calls",
        metavar="N",
        low=0,
        high=256,
    )
    pin: str = _setting(
        "auto",
        "auto keeps each worker on a CPU of its own if there is one for each and no quota",
        group="calls",
        choices=("auto", "off"),
    )
    heartbeat_s: float = _setting(
        5.0,
        "a worker that gives no sign of life for so long is killed and replaced",
        group="calls",
        metavar="S",
        low=0.5,
        high=3600.0,
    )
    max_message_bytes: int = _setting(
        0,
        "largest request; 0: 16 MiB, or down to 8 where memory is small",
        group="calls",
        metavar="BYTES",
        low=0,
        high=2**30,
    )
    max_stream_bytes: int = _setting(
        0,
        "bytes that the streams of each worker may hold together, requests without an answer and "
        "answers that are not read; beyond them streams are read more slowly; 0: 4 to 64 MiB, by "
        "the memory",
        group="calls",
        metavar="BYTES",
        low=0,
        high=2**33,
    )
    max_images: int = _setting(
        256, "most images in one request", group="calls", metavar="N", low=1, high=65536
    )
    max_pixels: int = _setting(
        2**26,
        "most pixels of a picture file, by its header; larger ones are not decoded",
        group="calls",
        metavar="N",
        low=1,
        high=2**32,
    )
    keepalive_s: int = _setting(
        60,
        "ping a silent connection after this; closed after 20 s without an answer",
        group="calls",
        metavar="S",
        low=10,
        high=7200,
    )
    max_connection_age_s: float = _setting(
        0.0,
        "ask clients to connect anew after this, so that a balancer spreads them; calls in flight "
        "are finished; grpcio front only; 0: never",
        group="calls",
        metavar="S",
        low=0.0,
        high=86400.0,
    )
    lame_duck_s: float = _setting(
        1.0,
        "when asked to stop, go on taking calls for at most this long while any come",
        group="calls",
        metavar="S",
        low=0.0,
        high=600.0,
    )
    grace_s: float = _setting(
        25.0,
        "time for calls in flight when asked to stop",
        group="calls",
        metavar="S",
        low=0.0,
        high=3600.0,
    )

    max_queue: int = _setting(
        4096,
        "images that may wait for each model version, or to be decoded; more are refused",
        group="batching",
        metavar="N",
        low=1,
        high=1_000_000,
    )
    max_queue_bytes: int = _setting(
        0,
        "bytes of files that may wait to be decoded, and of pixels that may wait for each model "
        "version; more are refused; 0: 4 to 256 MiB, by the memory",
        group="batching",
        metavar="BYTES",
        low=0,
        high=2**33,
    )
    max_batch: int = _setting(
        0,
        "most images in one run of the engine; fewer where more cost no less an image, and on CPU "
        "where they take longer than 60 ms; 0: 64 on CPU, 1024 on CUDA",
        group="batching",
        metavar="N",
        low=0,
        high=4096,
    )
    max_delay_ms: float = _setting(
        0.0,
        "longest wait for company; 0 runs what is there as soon as the engine is free",
        group="batching",
        metavar="MS",
        low=0.0,
        high=1000.0,
    )

    device: str = _setting(
        "auto",
        "auto takes CUDA where it works; cuda refuses to start without it",
        group="engine",
        choices=("auto", "cpu", "cuda"),
    )
    engine_threads: int = _setting(
        0,
        "threads of each engine on CPU; 0: the CPUs divided by the workers, and for a dear model "
        "up to eight while no other worker's engine is at work",
        group="engine",
        metavar="N",
        low=0,
        high=256,
    )

    max_device_bytes: int = _setting(
        0,
        "memory of the GPU that each model version may take in each worker, beside cuDNN's; 0: no "
        "limit",
        group="engine",
        metavar="BYTES",
        low=0,
        high=2**33,
    )
    decode_threads: int = _setting(
        0,
        "threads of each worker that decode images; 0: the CPUs divided by the workers",
        group="engine",
        metavar="N",
        low=0,
        high=256,
    )
    max_decoder_bytes: int = _setting(
        0,
        "memory that decoding one picture file may take, by its header; files that need more are "
        "not decoded; 0: 16 to 256 MiB, by the memory",
        group="engine",
        metavar="BYTES",
        low=0,
        high=2**33,
    )

    models: str = _setting(
        "", "folder of bundles, NAME/VERSION/model.onnx (required)", group="models", metavar="DIR"
    )
    versions: int = _setting(
        1, "newest versions of each model to serve", group="models", metavar="N", low=1, high=100
    )
    scan_s: float = _setting(
        1.0, "how often to look for new versions", group="models", metavar="S", low=0.1, high=3600.0
    )
    load_timeout_s: float = _setting(
        60.0,
        "longest time to load and warm up a version; one that takes longer is refused, and the "
        "worker that loads it replaced",
        group="models",
        metavar="S",
        low=1.0,
        high=86400.0,
    )

    log_level: str = _setting(
        "info",
        "least severe messages to log",
        group="log",
        choices=("debug", "info", "warning", "error"),
    )
    log_format: str = _setting(
        "text", "text for people, json for machines", group="log", choices=("text", "json")
    )

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            SettingError: naming the setting, its value and what is taken.
        """
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        if not self.models:
            raise SettingError("models: missing; give the folder of bundles, as --models DIR")


#: The definition of each setting, by its name.
FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def parse(field: "dataclasses.Field[Any]", value: object, origin: str) -> Any:
    """Returns a value as the type of its field, checked.

    Args:
        field: Of FIELDS.
        value: As it was given; a text is read.
        origin: How it was given, for messages.

    Raises:
        SettingError: It is not taken.
    """
    assert isinstance(field.type, type)
    if isinstance(value, str):
        try:
            value = field.type(value)
        except ValueError:
            kind = {int: "a whole number", float: "a number"}[field.type]
            raise SettingError(f"{origin}: {value!r} is not {kind}{_range(field)}") from None
    elif field.type is float and type(value) is int:
        value = float(value)
    _check(field, value, origin)
    return value


def _check(field: "dataclasses.Field[Any]", value: object, origin: str = "") -> None:
    origin = origin or field.name
    assert isinstance(field.type, type)
    if not isinstance(value, field.type) or isinstance(value, bool):
        raise SettingError(f"{origin}: {value!r} is not of type {field.type.__name__}")
    choices, low, high = (field.metadata[key] for key in ("choices", "low", "high"))
    if choices and value not in choices:
        raise SettingError(f"{origin}: {value!r} is not one of {', '.join(choices)}")
    # Written so that nan fails as well.
    if low is not None and isinstance(value, (int, float)) and not low <= value <= high:
        raise SettingError(f"{origin}: {value} is not within {low:g} to {high:.10g}")


def _range(field: "dataclasses.Field[Any]") -> str:
    low, high = field.metadata["low"], field.metadata["high"]
    return f" within {low:g} to {high:.10g}" if low is not None else ""


def address(host: str, port: int) -> str:
    """Host and port as one string, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
