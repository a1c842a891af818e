"""All settings of the service, from the environment: read once, checked at start, one frozen object.

`load()` is for programs: a wrong setting ends the process with status 78 (EX_CONFIG of sysexits.h) and a message that
names the variable, what is wrong with it and what would be right. `read()` is the same as a function of a mapping.
`deploy/env.example` documents every variable.
"""

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from deploy import keys
from deploy.values import ConfigError, Keep, Networks, duration, keep, networks, words

EX_CONFIG = 78
SOCKET_PATH_LIMIT = 107
"""Bytes that a unix socket's path may have on Linux (sun_path of unix(7) is 108 with its NUL)."""

NAMES = {
    "MXFLEET_ENV": False,
    "MXFLEET_DATA": False,
    "MXFLEET_LISTEN": False,
    "MXFLEET_DATABASE_URL": True,
    "MXFLEET_REDIS_URL": True,
    "MXFLEET_SECRET_KEY": True,
    "MXFLEET_KEY_FILE": False,
    "MXFLEET_SHARDS": False,
    "MXFLEET_SITE": False,
    "MXFLEET_ALLOWED_HOSTS": False,
    "MXFLEET_ALLOWED_NETWORKS": False,
    "MXFLEET_TRUSTED_PROXIES": False,
    "MXFLEET_METRICS_NETWORKS": False,
    "MXFLEET_RECONCILE_INTERVAL": False,
    "MXFLEET_KEEP_JOBS": False,
    "MXFLEET_KEEP_DETAILS": False,
    "MXFLEET_KEEP_EVENTS": False,
    "MXFLEET_KEEP_ANSWERS": False,
    "MXFLEET_WAITING": False,
    "MXFLEET_WAITING_EACH": False,
    "MXFLEET_LOG": False,
    "MXFLEET_ACCESS_LOG": False,
    "MXFLEET_LIVENESS_FILE": False,
}
"""Every variable; True where `<name>_FILE` may name a file that holds the value (for secrets of an orchestrator)."""

LOOPBACK = "127.0.0.0/8,::1"
KNOWN_SECRETS = ("changeme", "secret", "django-insecure", "example", "default", "password", "xxxxxxxx")


@dataclass(frozen=True)
class Env:
    """The settings, checked. Paths are absolute, times are seconds.

    `database` is Django's dict of one connection. `redis_url` is in redis-py's form, `broker_url` in kombu's.
    `allowed_networks` None means the default of the address check. `metrics_networks`: from where /metrics needs no
    token. `waiting` and `waiting_each`: held answers at once, and streams at once, of an API process and of each
    caller. `own_services` are the names or addresses of the database and the broker, which no managed host may be.
    """

    production: bool
    data: Path
    listen: tuple[str, int]
    database: dict[str, Any] = field(repr=False)
    redis_url: str = field(repr=False)
    is_redis_embedded: bool
    secret_key: str = field(repr=False)
    key_file: Path
    shards: int
    site: str
    allowed_hosts: list[str]
    allowed_networks: Networks | None
    trusted_proxies: Networks
    metrics_networks: Networks
    reconcile_interval: int
    keep: Keep
    waiting: int
    waiting_each: int
    log: str
    has_access_log: bool
    liveness_file: Path | None
    own_services: tuple[str, ...]

    @property
    def broker_url(self) -> str:
        """The same Redis for kombu, which knows a unix socket only as `redis+socket://` with `virtual_host`."""
        parts = urlsplit(self.redis_url)
        if parts.scheme != "unix":
            return self.redis_url
        return f"redis+socket://{parts.path}?virtual_host={dict(parse_qsl(parts.query)).get('db', '0')}"

    @property
    def ssh_queues(self) -> list[str]:
        """The Celery queues of the SSH workers of this site, as jobs/queues.py names them."""
        return [f"ssh.{self.site}.{shard}" if self.site else f"ssh.{shard}" for shard in range(self.shards)]

    @property
    def redis_socket(self) -> Path:
        """The socket of the embedded Redis."""
        return Path(unquote(urlsplit(self.redis_url).path))


def load() -> Env:
    """The settings of this process, keys made on a first start. Ends the process (78) where one is wrong."""
    try:
        env = read(os.environ)
        keys.prepare(env.data, makes_keys=not env.production)
        return env
    except ConfigError as error:
        _stop(str(error))
    except OSError as error:
        _stop(f"MXFLEET_DATA: {error}; right would be a directory that this user may write")


def _stop(message: str) -> NoReturn:
    print(f"mxfleet: configuration: {message}", file=sys.stderr)
    sys.exit(EX_CONFIG)


def read(environ: Mapping[str, str]) -> Env:
    """The settings that a mapping describes. Raises ConfigError."""
    values = _values(environ)
    database_url = values.get("MXFLEET_DATABASE_URL", "")
    production = _environment(values) or database_url.startswith(("postgresql:", "postgres:"))
    data = Path(values.get("MXFLEET_DATA", "var")).absolute()
    listen = _listen(values.get("MXFLEET_LISTEN", "127.0.0.1:8000"))
    redis_url = values.get("MXFLEET_REDIS_URL", "")
    database, database_hosts = _database(database_url, data)
    broker, broker_host = _redis(redis_url or f"unix://{runtime_directory(data)}/redis.sock")
    return Env(
        production=production,
        data=data,
        listen=listen,
        database=database,
        redis_url=broker,
        is_redis_embedded=not redis_url,
        secret_key=_secret_key(values, production, data),
        key_file=_key_file(values, production, data),
        shards=_shards(values.get("MXFLEET_SHARDS", "")),
        site=_site(values.get("MXFLEET_SITE", "")),
        allowed_hosts=words(values, "MXFLEET_ALLOWED_HOSTS") or _own_names(listen[0]),
        allowed_networks=networks(values, "MXFLEET_ALLOWED_NETWORKS") or None,
        trusted_proxies=networks(values, "MXFLEET_TRUSTED_PROXIES"),
        metrics_networks=networks({"MXFLEET_METRICS_NETWORKS": LOOPBACK} | values, "MXFLEET_METRICS_NETWORKS"),
        reconcile_interval=duration(values, "MXFLEET_RECONCILE_INTERVAL", "30s"),
        keep=keep(values),
        waiting=_number("MXFLEET_WAITING", values.get("MXFLEET_WAITING", "400"), 10_000),
        waiting_each=_number("MXFLEET_WAITING_EACH", values.get("MXFLEET_WAITING_EACH", "100"), 10_000),
        log=_one_of("MXFLEET_LOG", values.get("MXFLEET_LOG", "text"), ("text", "json")),
        has_access_log=_one_of("MXFLEET_ACCESS_LOG", values.get("MXFLEET_ACCESS_LOG", "on"), ("on", "off")) == "on",
        liveness_file=Path(file).absolute() if (file := values.get("MXFLEET_LIVENESS_FILE")) else None,
        own_services=tuple(name for name in (*database_hosts, broker_host) if name and not name.startswith("/")),
    )


def runtime_directory(data: Path) -> Path:
    """Where the embedded Redis has its socket: short, private to the user, the same for each process of one `data`."""
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    if os.geteuid() == 0:
        return Path("/run") / f"mxfleet-{digest}"
    own = os.environ.get("XDG_RUNTIME_DIR")
    return Path(own) / f"mxfleet-{digest}" if own else Path("/tmp") / f"mxfleet-{os.geteuid()}-{digest}"  # noqa: S108 - made 0700 and its owner checked by the supervisor


def _values(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables of the env file, overridden by the environment, with `_FILE` contents put in. Empty means not set."""
    found = _env_file(environ["MXFLEET_ENV_FILE"]) if environ.get("MXFLEET_ENV_FILE") else {}
    found |= {name: environ[name] for name in _settable() if environ.get(name)}
    for name in (name for name, has_file in NAMES.items() if has_file):
        path = found.pop(f"{name}_FILE", "")
        if path and name in found:
            raise ConfigError(name, f"{name} and {name}_FILE are both set", "one of the two")
        if path:
            found[name] = _content(f"{name}_FILE", path)
    return {name: value for name, value in found.items() if value}


def _settable() -> list[str]:
    return [*NAMES, *(f"{name}_FILE" for name, has_file in NAMES.items() if has_file)]


def _content(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(variable, f"{path} cannot be read ({error})", "a readable UTF-8 file") from None


def _env_file(path: str) -> dict[str, str]:
    """`NAME=value` lines; empty lines and lines that begin with # are left out, one pair of quotes is taken off."""
    found = {}
    for number, line in enumerate(_content("MXFLEET_ENV_FILE", path).splitlines(), 1):
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not name or name.startswith("#"):
            continue
        if not equals or name not in _settable():
            raise ConfigError("MXFLEET_ENV_FILE", f"{path} line {number}: {name!r} is no setting", "NAME=value lines")
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        found[name] = value[1:-1] if quoted else value
    return found


def _environment(values: Mapping[str, str]) -> bool:
    return _one_of("MXFLEET_ENV", values.get("MXFLEET_ENV", "development"), ("development", "production")) == (
        "production"
    )


def _one_of(variable: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ConfigError(variable, f"{value!r} is unknown", " or ".join(allowed))
    return value


def _listen(value: str) -> tuple[str, int]:
    host, _, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError("MXFLEET_LISTEN", f"{value!r} is no address and port", "127.0.0.1:8000 or [::1]:8000")
    return host, int(port)


def _own_names(host: str) -> list[str]:
    names = ["localhost", "127.0.0.1", "[::1]"]
    return names if host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::") else [host, *names]  # noqa: S104 - compared, not bound


def _split(variable: str, url: str, right: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(variable, f"is no URL ({error})", right) from None
    return parts


def _database(url: str, data: Path) -> tuple[dict[str, Any], list[str]]:
    """Django's connection settings, and the hosts of the database: names, addresses or directories of sockets."""
    right = "postgresql://user:password@host:5432/name or postgresql:///name?host=/run/postgresql"
    if not url:
        return _sqlite(data / "mxfleet.sqlite3"), []
    parts = _split("MXFLEET_DATABASE_URL", url, right)
    name = unquote(parts.path.removeprefix("/"))
    if parts.scheme == "sqlite" and not parts.netloc and name:
        return _sqlite(Path("/") / name), []
    if parts.scheme not in ("postgresql", "postgres") or not name or "/" in name:
        raise ConfigError("MXFLEET_DATABASE_URL", f"{parts.scheme or 'this'} is no usable database URL", right)
    options = dict(parse_qsl(parts.query))
    host = parts.hostname or options.pop("host", "")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": str(parts.port or options.pop("port", "")),
        "CONN_HEALTH_CHECKS": True,
        # Each statement is sent apart from its values, and from its third time on is parsed and planned no more.
        "OPTIONS": {"connect_timeout": 5, **options, "server_side_binding": True, "prepare_threshold": 3},
    }, _servers(host, options.get("hostaddr", ""))


def _servers(hosts: str, addresses: str) -> list[str]:
    """Where libpq connects to: to its address (hostaddr) rather than to what its name resolves to, where it has one."""
    pairs = zip_longest(hosts.split(","), addresses.split(","), fillvalue="")
    return [address or host for host, address in pairs]


def _sqlite(path: Path) -> dict[str, Any]:
    """IMMEDIATE and WAL: with Django's defaults 184 of 480 concurrent writes failed as locked, with these none.

    FULL: what is committed has to outlive a power cut, for what is done on a host after that does.
    """
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
        },
    }


def _redis(url: str) -> tuple[str, str]:
    """The URL, and the host where it is reached by network."""
    right = "redis://host:6379/0, rediss://:password@host:6380/0 or unix:///run/redis/redis.sock?db=0"
    parts = _split("MXFLEET_REDIS_URL", url, right)
    if parts.scheme == "unix" and not parts.netloc and parts.path:
        if len(os.fsencode(unquote(parts.path))) > SOCKET_PATH_LIMIT:
            raise ConfigError(
                "MXFLEET_REDIS_URL", "the socket's path is too long", f"a path of at most {SOCKET_PATH_LIMIT} bytes"
            )
        return url, ""
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise ConfigError("MXFLEET_REDIS_URL", f"{parts.scheme or 'this'} is no usable Redis URL", right)
    return url, parts.hostname


def _secret_key(values: Mapping[str, str], production: bool, data: Path) -> str:
    right = "at least 50 random characters, for example of: openssl rand -base64 48"
    value = values.get("MXFLEET_SECRET_KEY", "")
    if not value and production:
        raise ConfigError("MXFLEET_SECRET_KEY", "production needs one and none is set", right)
    if not value:
        return keys.secret_key(data)
    if len(value) < 50 or len(set(value)) < 12 or any(known in value.lower() for known in KNOWN_SECRETS):
        raise ConfigError("MXFLEET_SECRET_KEY", "is short, has little variety or is a known default", right)
    return value


def _key_file(values: Mapping[str, str], production: bool, data: Path) -> Path:
    """The file's path, its content checked: a service without its keys must not start and then lose credentials."""
    value = values.get("MXFLEET_KEY_FILE", "")
    if not value and production:
        raise ConfigError("MXFLEET_KEY_FILE", "production needs one and none is set", keys.RIGHT)
    path = Path(value).absolute() if value else data / keys.KEY_FILE
    try:
        if value or path.exists():
            keys.check_key_file(path)
    except (OSError, ValueError) as error:
        raise ConfigError("MXFLEET_KEY_FILE", str(error), keys.RIGHT) from None
    return path


def _shards(value: str) -> int:
    return _number("MXFLEET_SHARDS", value or str(len(os.sched_getaffinity(0))), 256)


def _number(variable: str, value: str, most: int) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= most:
        raise ConfigError(variable, f"{value!r} is no number that is taken here", f"1 to {most}")
    return int(value)


def _site(value: str) -> str:
    if value and not (value.isascii() and value.replace("-", "").replace("_", "").isalnum() and len(value) <= 63):
        raise ConfigError("MXFLEET_SITE", f"{value!r} is no site", "up to 63 letters, digits, - and _")
    return value
