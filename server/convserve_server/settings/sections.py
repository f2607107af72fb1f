"""The definition of every setting, in sections that follow a request's way through the server."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from convserve_server.settings.kinds import CollectorUrl, Hosts, Labels, Origins, Switch, Versions
from convserve_server.settings.setting import Section, Setting, setting
from convserve_store.location import is_url


@dataclass(frozen=True, kw_only=True)
class Listen(Section):
    """Where calls come from."""

    host: str = setting(
        "127.0.0.1", "address to listen on; 0.0.0.0 or :: for all", metavar="ADDRESS"
    )
    port: int = setting(
        50051, "port to listen on; 0: any free one", metavar="PORT", low=0, high=65535
    )
    front: str = setting(
        "auto",
        "implementation of HTTP/2: grpcio everywhere, or native, in Rust, several times as fast; "
        "auto: native where it is installed and can do all that is asked for",
        choices=("auto", "grpcio", "native"),
    )
    http_port: int = setting(
        0,
        "port for HTTP: REST, Open Inference, Connect, and a page for browsers; 0: none",
        metavar="PORT",
        low=0,
        high=65535,
    )
    http_origins: str = setting(
        "",
        "origins whose pages may call over HTTP, beside the server's own page, as "
        "https://example.org,https://example.com; *: any",
        metavar="ORIGINS",
        kind=Origins(),
    )
    http_max_connections: int = setting(
        1024,
        "most connections over HTTP at a time for each worker; more are refused",
        metavar="N",
        low=1,
        high=1_000_000,
    )
    keepalive_s: int = setting(
        60,
        "ping a silent connection after this; closed after 20 s without an answer; over HTTP it is "
        "closed after this",
        metavar="S",
        low=10,
        high=7200,
    )
    max_connection_age_s: float = setting(
        0.0,
        "ask clients to connect anew after this, so that a balancer spreads them; calls in flight "
        "are finished; 0: never",
        metavar="S",
        low=0.0,
        high=86400.0,
    )
    admin_socket: str = setting(
        "",
        "Unix socket for `convserve admin`, which only the user of the server may open; none: no "
        "administration",
        metavar="PATH",
    )
    repository_calls: str = setting(
        "off",
        "on: callers of Open Inference may load and unload the models whose control is explicit: "
        "with keys those with the permission admin, without keys all who reach the port",
        choices=("off", "on"),
    )
    http_hosts: str = setting(
        "",
        "names by which browsers may call the server over HTTP, beside localhost, addresses and "
        "the name of the machine, as models.example.org,server; *: any, as it is with TLS or keys",
        metavar="NAMES",
        kind=Hosts(),
    )


@dataclass(frozen=True, kw_only=True)
class Process(Section):
    """The processes of a server, and how they end."""

    workers: int = setting(
        0,
        "processes that share the port; 0: one for each CPU, or for every four with CUDA, as far "
        "as memory goes",
        metavar="N",
        low=0,
        high=256,
    )
    pin: str = setting(
        "auto",
        "auto: keep each worker on a CPU of its own if there is one for each and no quota",
        choices=("auto", "off"),
    )
    spare_cpus: str = setting(
        "auto",
        "auto: batches of a cheap model that wait also run on the CPUs of workers whose engines "
        "are idle",
        choices=("auto", "off"),
    )
    heartbeat_s: float = setting(
        5.0,
        "a worker that gives no sign of life for so long is killed and replaced",
        metavar="S",
        low=0.5,
        high=3600.0,
    )
    shutdown_delay_s: float = setting(
        0.0,
        "after a signal to stop, serve on for this long while health says NOT_SERVING, until "
        "balancers have noticed; a second signal ends it",
        metavar="S",
        low=0.0,
        high=600.0,
    )
    lame_duck_s: float = setting(
        1.0,
        "after a signal to stop, accept calls for at most this long while any come",
        metavar="S",
        low=0.0,
        high=600.0,
    )
    grace_s: float = setting(
        25.0,
        "after a signal to stop, time for calls in flight",
        metavar="S",
        low=0.0,
        high=3600.0,
    )


@dataclass(frozen=True, kw_only=True)
class Limits(Section):
    """The largest requests and images."""

    max_message_bytes: int = setting(
        0,
        "largest request; 0: 16 MiB, or down to 8 where memory is small",
        metavar="BYTES",
        low=0,
        high=2**30,
    )
    max_stream_bytes: int = setting(
        0,
        "bytes that the streams of each worker may hold together, requests without an answer and "
        "answers that are not read; beyond them streams are read more slowly; 0: 4 to 64 MiB, by "
        "the memory",
        metavar="BYTES",
        low=0,
        high=2**33,
    )
    max_images: int = setting(
        256,
        "most images in one request; if set, no more than max_queue",
        metavar="N",
        low=1,
        high=65536,
    )
    max_pixels: int = setting(
        2**26,
        "most pixels of an image file, by its header; larger ones are not decoded",
        metavar="N",
        low=1,
        high=2**32,
    )
    max_decoder_bytes: int = setting(
        0,
        "most memory for decoding one image file, by its header; files that need more are not "
        "decoded; 0: 16 to 256 MiB, by the memory",
        metavar="BYTES",
        low=0,
        high=2**33,
    )
    max_answer_bytes: int = setting(
        0,
        "largest answer of a model that is not a bundle, of the elements of its outputs; 0: four "
        "times max_message_bytes",
        metavar="BYTES",
        low=0,
        high=2**31 - 1,
    )
    max_streams: int = setting(
        1024,
        "calls at a time on one connection over gRPC; clients hold back the others once they know",
        metavar="N",
        low=16,
        high=4096,
    )
    max_connections: int = setting(
        4096,
        "most connections over gRPC at a time for each worker, on the native front with TLS or "
        "where other machines reach it; more are refused",
        metavar="N",
        low=1,
        high=1_000_000,
    )
    max_received_bytes: int = setting(
        0,
        "bytes that calls of all connections may hold in each worker, requests that are not whole "
        "yet, and 16 KiB for each call; beyond them the connection that holds most loses calls; "
        "native front with TLS or where other machines reach it; 0: 32 to 256 MiB, by the memory",
        metavar="BYTES",
        low=0,
        high=2**33,
    )
    max_connection_bytes: int = setting(
        0,
        "the same of one connection; 0: half of max_received_bytes",
        metavar="BYTES",
        low=0,
        high=2**33,
    )


@dataclass(frozen=True, kw_only=True)
class Batching(Section):
    """How images wait for an engine."""

    max_queue: int = setting(
        4096,
        "images that may wait for each model version, or to be decoded; more are refused",
        metavar="N",
        low=1,
        high=1_000_000,
        per_model=True,
    )
    max_queue_bytes: int = setting(
        0,
        "bytes of files that may wait to be decoded, and of pixels that may wait for each model "
        "version; more are refused; 0: 4 to 256 MiB, by the memory",
        metavar="BYTES",
        low=0,
        high=2**33,
    )
    max_batch: int = setting(
        0,
        "maximum batch size; 0: measured: up to 64 on CPU and 1024 on CUDA, smaller where a batch "
        "takes 2.5 ms and larger ones hardly save, or on CPU more than 60 ms",
        metavar="N",
        low=0,
        high=4096,
        per_model=True,
    )
    max_delay_ms: float = setting(
        0.0,
        "maximum batching delay; 0: run what is there as soon as the engine is free",
        metavar="MS",
        low=0.0,
        high=1000.0,
        per_model=True,
    )

    max_wait_ms: float = setting(
        0.0,
        "longest time that a call may wait for the engine or to be decoded; one that would wait "
        "longer is refused; 0: as long as its deadline allows",
        metavar="MS",
        low=0.0,
        high=3_600_000.0,
        per_model=True,
    )
    priority: str = setting(
        "interactive",
        "priority of calls that do not give theirs in the header field convserve-priority; batch "
        "calls use what interactive ones leave",
        choices=("interactive", "batch"),
        per_model=True,
    )
    batch_share: float = setting(
        0.1,
        "share of each engine, and of the threads that decode, that batch calls get at least while "
        "they wait",
        metavar="SHARE",
        low=0.0,
        high=1.0,
    )


@dataclass(frozen=True, kw_only=True)
class Engine(Section):
    """What computes, and with how many threads."""

    device: str = setting(
        "auto",
        "auto: CUDA where it works; cuda: refuse to start without it",
        choices=("auto", "cpu", "cuda"),
        per_model=True,
    )
    engine: str = setting(
        "auto",
        "what runs bundles on the CPU; auto: OpenVINO for those of bfloat16 and int8 where it is "
        "installed and the CPU has matrix units, else ONNX Runtime; openvino: refuse to start "
        "without it",
        choices=("auto", "onnxruntime", "openvino"),
        per_model=True,
    )
    engine_threads: int = setting(
        0,
        "threads of each engine on CPU; 0: the CPUs divided by the workers, and for an expensive "
        "model (1 ms or more per image) up to eight while the engines of all other workers are "
        "idle",
        metavar="N",
        low=0,
        high=256,
        per_model=True,
    )
    max_device_bytes: int = setting(
        0,
        "most memory of the GPU for each model version in each worker, beside cuDNN's; 0: no limit",
        metavar="BYTES",
        low=0,
        high=2**33,
    )
    decode_threads: int = setting(
        0,
        "threads of each worker that decode images; 0: the CPUs divided by the workers",
        metavar="N",
        low=0,
        high=256,
    )


@dataclass(frozen=True, kw_only=True)
class Models(Section):
    """Which models are served."""

    folder: str = setting(
        "",
        "folder of bundles, NAME/VERSION/model.onnx, or the URL of one on object storage, as "
        "s3://BUCKET/FOLDER (required)",
        name="models",
        metavar="DIR",
    )
    cache: str = setting(
        "",
        "with models on object storage: folder for copies of those that are served, which the "
        "next start then has; one for each server; none: a temporary one",
        name="models_cache",
        metavar="DIR",
    )
    max_cache_mib: int = setting(
        16384,
        "with models on object storage: most MiB of the copies; versions beyond are not served",
        metavar="MIB",
        low=1,
        high=2**26,
    )
    poll_s: float = setting(
        10.0,
        "with models on object storage: how often to ask it for new versions; less often while it "
        "does not answer",
        metavar="S",
        low=1.0,
        high=86400.0,
    )
    versions: int | Literal["all"] | tuple[int, ...] = setting(
        1,
        "versions of each model to serve: N newest, or all; in the file also a list, as [3, 5]",
        metavar="N",
        kind=Versions(most=100),
        per_model=True,
    )
    control: str = setting(
        "poll",
        "what has versions loaded and unloaded: poll: what is in the folder, as it changes; none: "
        "what is there at the start; explicit: only `convserve admin`, and callers where "
        "repository_calls is on",
        choices=("poll", "explicit", "none"),
        per_model=True,
    )
    rollout: str = setting(
        "newest",
        "which version answers calls that ask for none: newest: the newest, as soon as it is "
        "loaded; label: the one that the label stable names in NAME/labels.json beside the "
        "versions, where `convserve label` moves it for all servers",
        choices=("newest", "label"),
        per_model=True,
    )
    unload_after_s: float = setting(
        0.0,
        "unload a model that nobody has asked for so long, until the next call; 0: never",
        metavar="S",
        low=0.0,
        high=2_592_000.0,
        per_model=True,
    )
    scan_s: float = setting(
        1.0, "how often to look for new versions", metavar="S", low=0.1, high=3600.0
    )
    load_timeout_s: float = setting(
        60.0,
        "longest time to load and warm up a version; one that needs longer is refused, and the "
        "worker that loads it replaced",
        metavar="S",
        low=1.0,
        high=86400.0,
    )
    state_dir: str = setting(
        "",
        "folder for what the server has measured of models, so that it need not at the next "
        "start; one for each server; none: kept in memory",
        metavar="DIR",
    )
    max_model_bytes: int = setting(
        2**33,
        "most bytes of a version, its model file and its external data; larger ones are refused "
        "unread",
        metavar="BYTES",
        low=1,
        high=2**33,
    )

    @property
    def on_store(self) -> bool:
        """Whether they are on object storage."""
        return is_url(self.folder)

    @property
    def path(self) -> Path:
        """The folder on this machine that is served from."""
        return Path(self.cache if self.on_store else self.folder)


@dataclass(frozen=True, kw_only=True)
class Log(Section):
    """What is logged."""

    log_level: str = setting(
        "info",
        "least severe messages to log",
        choices=("debug", "info", "warning", "error"),
    )
    log_format: str = setting(
        "text", "text for people, json for machines", choices=("text", "json")
    )
    access_log: str = setting(
        "off",
        "log a line for each call that fails by a fault, a deadline or a limit, at most 10 a "
        "second for each worker; or for all",
        choices=("off", "errors", "all"),
    )
    access_log_share: float = setting(
        1.0,
        "share of the calls that end well of which access_log = all logs a line",
        metavar="SHARE",
        low=0.0,
        high=1.0,
    )


@dataclass(frozen=True, kw_only=True)
class Security(Section):
    """Who may call, and how what passes is protected."""

    tls_cert: str = setting(
        "",
        "file with the certificate of the server, and those between it and its authority (PEM); "
        "all ports then speak TLS alone; read again when it changes; none: no TLS",
        metavar="FILE",
    )
    tls_key: str = setting("", "file with the private key of tls_cert (PEM)", metavar="FILE")
    tls_client_ca: str = setting(
        "",
        "file with the authorities that sign the certificates of clients (PEM): mutual TLS; none: "
        "clients show no certificate",
        metavar="FILE",
    )
    tls_clients: str = setting(
        "required",
        "with tls_client_ca: whether each client must show a certificate, or may",
        choices=("required", "optional"),
    )
    keys: str = setting(
        "",
        "file of the keys of callers: their names, what they may do, and how often (TOML); read "
        "again when it changes; none: whoever reaches a port may call",
        metavar="FILE",
    )
    insecure: bool = setting(
        False,
        "listen on an address that other machines reach although there are neither TLS nor keys",
        kind=Switch(),
    )
    reflection: str = setting(
        "on", "whether callers may list services and messages by reflection", choices=("off", "on")
    )
    require_signature: str = setting(
        "",
        "file with public keys, or certificates of authorities (PEM), one of which must have "
        "signed each bundle; one that is unsigned, wrongly signed or changed is refused; read "
        "again when it changes; none: bundles need no signature",
        metavar="FILE",
    )


@dataclass(frozen=True, kw_only=True)
class Telemetry(Section):
    """What others see of the server: metrics and traces."""

    metrics_port: int = setting(
        0, "port for metrics, a page for Prometheus; 0: none", metavar="PORT", low=0, high=65535
    )
    metrics_host: str = setting(
        "127.0.0.1", "address for metrics; 0.0.0.0 or :: for all", metavar="ADDRESS"
    )
    metrics_key_file: str = setting(
        "",
        "file with the key that readers of metrics must send, as a bearer token; none: no key",
        metavar="FILE",
    )
    drift_sample: float = setting(
        2.0,
        "images a second that each worker looks at, of each model version whose manifest says what "
        "its training's pictures are like: for the metrics of drift; 0: none",
        metavar="IMAGES",
        low=0.0,
        high=1000.0,
    )
    traces: str = setting(
        "",
        "where to send traces by OTLP over gRPC, as http://collector:4317, or with https; none: no "
        "traces",
        metavar="URL",
        kind=CollectorUrl(),
    )
    trace_share: float = setting(
        0.0,
        "share of the calls without a traceparent that are traced; those with one follow its flag",
        metavar="SHARE",
        low=0.0,
        high=1.0,
    )


#: What makes sense for one model only: keys of [models.NAME], without flag and variable.
OF_ONE_MODEL = (
    Setting(
        name="labels",
        section="models",
        attribute="labels",
        type=object,
        default={},
        help="a call may ask for a label in place of a version; one of a version that is not "
        "loaded has no effect until it is",
        metavar="{LABEL = VERSION, ...}",
        kind=Labels(),
        per_model=True,
    ),
)
