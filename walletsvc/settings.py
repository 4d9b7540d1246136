"""Settings. All of them come from the environment; env.example describes each."""

from datetime import timedelta
from decimal import Decimal
from operator import methodcaller
from pathlib import Path

from wallets import money
from wallets.observability.request_context import PROBE_PATHS
from walletsvc import environment as env
from walletsvc.version import VERSION

BASE_DIR = Path(__file__).resolve().parent.parent

# --- Security ---------------------------------------------------------------------------------------
SECRET_KEY = env.text("SECRET_KEY", None, ".{50,}", "at least 50 characters long", is_secret=True)
DEBUG = env.flag("DEBUG", "off")
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = env.words("CSRF_TRUSTED_ORIGINS")
HTTPS = env.flag("HTTPS", "on")
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_HSTS_SECONDS = env.number("HSTS_SECONDS", 31_536_000) if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SECURE_REDIRECT_EXEMPT = [f"^{path[1:]}$" for path in PROBE_PATHS]  # probes use plain HTTP
TRUST_PROXY = env.flag("TRUST_PROXY", "off")
if TRUST_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
X_FRAME_OPTIONS = "DENY"
CSRF_FAILURE_VIEW = "wallets.pages.error_pages.csrf_failure"
CORS_ALLOWED_ORIGINS = env.words("CORS_ALLOWED_ORIGINS")
CORS_URLS_REGEX = r"^/api/"
CORS_ALLOW_CREDENTIALS = False  # other origins use API keys, never a user's session
CORS_ALLOW_HEADERS = [
    *("accept", "authorization", "content-type", "idempotency-key", "if-match", "if-none-match"),
    *("last-event-id", "prefer", "traceparent", "tracestate", "x-request-id"),
]
CORS_EXPOSE_HEADERS = [
    *("allow", "content-disposition", "etag", "idempotent-replayed", "location", "preference-applied"),
    *("ratelimit", "ratelimit-policy", "retry-after", "traceresponse", "x-request-id"),
]
PASSWORD_HASHERS = ["wallets.access.passwords.Hasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
SESSION_COOKIE_AGE = env.number("SESSION_HOURS", 336, minimum=1) * 3600
LOGIN_URL = "/login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "/"
# Wrong passwords for an account from one address, and how long they lock it for this address.
LOGIN_LOCKOUT = env.rate("LOGIN_LOCKOUT", "5/15m")
AXES_ENABLED = LOGIN_LOCKOUT is not None
if LOGIN_LOCKOUT:
    AXES_FAILURE_LIMIT = LOGIN_LOCKOUT.hits
    AXES_COOLOFF_TIME = timedelta(seconds=LOGIN_LOCKOUT.seconds)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_USERNAME_CALLABLE = "wallets.access.people.account_of"
AXES_CLIENT_IP_CALLABLE = "wallets.access.limits.customer_of"
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = (
    False  # further attempts do not prolong the lock, which would keep the owner out
)
AXES_ENABLE_ADMIN = False  # our own pages show the lock
AXES_VERBOSE = False
# If on, operators need a second factor for everything.
ADMIN_OTP = env.flag("ADMIN_OTP", "off")
OTP_TOTP_ISSUER = "walletsvc"
RATE_LIMITS = {
    "key": env.rate("RATE_LIMIT_KEY", "off"),
    "user": env.rate("RATE_LIMIT_USER", "300/1m"),
    "address": env.rate("RATE_LIMIT_ADDRESS", "off"),
    "login": env.rate("RATE_LIMIT_LOGIN", "20/1m"),
    "signup": env.rate("RATE_LIMIT_SIGNUP", "20/1h"),
    "reset": env.rate("RATE_LIMIT_RESET", "5/1h"),
}

# --- Mail -------------------------------------------------------------------------------------------
MAIL = env.email("EMAIL_URL")  # None: no mail, so no reset of passwords and no verification of addresses
globals().update(MAIL or {})
EMAIL_TIMEOUT = 10
_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)"
PUBLIC_URL = env.text(  # the base of links in mails, and of the `type` of problems
    "PUBLIC_URL",
    form=rf"https?://{_HOST}(:[0-9]{{1,5}})?{'' if MAIL else '|'}",
    wanted=f"{'set, because EMAIL_URL is: ' if MAIL else ''}like https://wallets.example.com, without a path",
)
DEFAULT_FROM_EMAIL = env.text("EMAIL_FROM", "walletsvc@localhost")

# --- Metrics ----------------------------------------------------------------------------------------
METRICS = env.flag("METRICS", "on")
METRICS_TOKEN = env.text("METRICS_TOKEN", "", "|.{16,}", "at least 16 characters long", is_secret=True)

# --- Traces and error reports -----------------------------------------------------------------------
# OpenTelemetry's SDK reads its variables itself. They are checked here when the service starts.
_WEB_ADDRESS = (r"(https?://([^/?#]*@)?[^/?#@:]+.*)?", "http://… or https://…")
OTEL_EXPORTER_OTLP_ENDPOINT = env.text("OTEL_EXPORTER_OTLP_ENDPOINT", "", *_WEB_ADDRESS)
OTEL_EXPORTER_OTLP_HEADERS = env.text("OTEL_EXPORTER_OTLP_HEADERS", "")
OTEL_SERVICE_NAME = env.text("OTEL_SERVICE_NAME", "walletsvc")
OTEL_TRACES_SAMPLER = env.choice(
    "OTEL_TRACES_SAMPLER",
    "parentbased_always_on",
    (
        *("always_on", "always_off", "traceidratio"),
        *("parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"),
    ),
)
OTEL_TRACES_SAMPLER_ARG = env.read(
    "OTEL_TRACES_SAMPLER_ARG", "1", lambda raw: env.valid(value := float(raw), 0 <= value <= 1), "0 to 1"
)
SENTRY_DSN = env.text("SENTRY_DSN", "", *_WEB_ADDRESS, is_secret=True)
SENTRY_ENVIRONMENT = env.text("SENTRY_ENVIRONMENT", "production")

# --- Application ------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "wallets.apps.Unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_htmx",
    "django_otp",
    "django_otp.plugins.otp_totp",
    "django_otp.plugins.otp_static",
    "axes",
    "corsheaders",
    "wallets",
]
MIDDLEWARE = [
    *(["walletsvc.middleware.Measure"] if METRICS else []),
    "walletsvc.middleware.RequestId",
    *(["wallets.observability.spans.Spans"] if OTEL_EXPORTER_OTLP_ENDPOINT else []),
    "walletsvc.middleware.Headers",
    *(["corsheaders.middleware.CorsMiddleware"] if CORS_ALLOWED_ORIGINS else []),
    "walletsvc.middleware.Problems",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    # Only for pages and sessions; API requests with a key skip these.
    "walletsvc.middleware.StaticFiles",
    "walletsvc.middleware.Sessions",
    "walletsvc.middleware.Csrf",
    "walletsvc.middleware.Locale",
    "walletsvc.middleware.Authentication",
    "walletsvc.middleware.SecondFactor",
    "walletsvc.middleware.Messages",
]
SILENCED_SYSTEM_CHECKS = [
    "security.W003",  # looks for Django's CSRF middleware by name; ours is a subclass
    "axes.W002",  # not axes' middleware: wallets/access/people.py responds in our own format
]
ROOT_URLCONF = "walletsvc.urls"
WSGI_APPLICATION = "walletsvc.wsgi.application"
AUTH_USER_MODEL = "wallets.User"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
APPEND_SLASH = False
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("ru", "Русский")]
LOCALE_PATHS = [BASE_DIR / "wallets" / "locale"]
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True  # served from the installed packages, without collectstatic
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- Database ---------------------------------------------------------------------------------------
OPERATION_DEADLINE = env.seconds("OPERATION_DEADLINE", "10")
LOCK_PATIENCE = env.seconds("LOCK_PATIENCE", "0.5")
STATEMENT_TIMEOUT = env.timeout("STATEMENT_TIMEOUT_SECONDS", "5")


def _statement_timeout(seconds: float) -> str:
    return f" -c statement_timeout={int(seconds * 1000)}" if STATEMENT_TIMEOUT else ""


# The database cancels a request's statement before wallets/database_retry.py closes the connection, which
# would leave the statement running. For a batch the connection is closed first; then its commands run again.
_OF_REQUESTS = _statement_timeout(min(STATEMENT_TIMEOUT or 0, OPERATION_DEADLINE / 2))
_OF_BATCHES = _statement_timeout(2 * OPERATION_DEADLINE)


def _database(statement_timeout: str, **options: object) -> dict[str, object]:
    """Return the database with a connection policy. Commits are durable, whatever the server's default.

    A transaction waits for a lock only for a short time; its work is retried until OPERATION_DEADLINE. It
    does not hold a lock for long either: the server ends a session whose client has vanished inside a
    transaction.
    """
    database = env.database("DATABASE_URL")
    policy = {
        "application_name": "walletsvc",
        "connect_timeout": env.number("DATABASE_CONNECT_TIMEOUT", 3, minimum=1),
        "options": f"-c synchronous_commit=on -c lock_timeout={int(LOCK_PATIENCE * 1000)}"
        f" -c idle_in_transaction_session_timeout={int(OPERATION_DEADLINE / 2 * 1000)}{statement_timeout}"
        # A client host that has vanished does not keep the locks of its sessions,
        " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3",
        # and a database host that has vanished does not block this service.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": int(OPERATION_DEADLINE / 2 * 1000),
    }
    return database | {
        "OPTIONS": {**database.get("OPTIONS", {}), **policy, **options}
    }  # the URL sets sslmode


_POOL_MIN = env.number("DATABASE_POOL_MIN", 1)
_POOL = {
    "min_size": _POOL_MIN,
    "max_size": env.number("DATABASE_POOL_MAX", 4, minimum=max(1, _POOL_MIN)),
    "timeout": OPERATION_DEADLINE / 4,  # then the request retries until its deadline
    # The pool would wait twice as long after every failed attempt to connect, for minutes in the end. So it
    # gives up at once, and begins anew.
    "reconnect_timeout": 0.5,
    "reconnect_failed": methodcaller("check"),
}
# Committer and reader: one permanent connection each in every process, with prepared statements.
_OWN = {"server_side_binding": True, "prepare_threshold": 3}
DATABASES = {
    # The pool keeps the connections, and health checks replace those that a restarted database has cut.
    "default": _database(_OF_REQUESTS, pool=_POOL) | {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": True},
    "ledger": _database(_OF_BATCHES, **_OWN) | {"CONN_MAX_AGE": None},
    "reader": _database(_OF_REQUESTS, **_OWN) | {"CONN_MAX_AGE": None},
}
# Liquibase owns the schema: no application has Django migrations.
MIGRATION_MODULES = {app.rpartition(".")[2]: None for app in INSTALLED_APPS}

# --- Ledger -----------------------------------------------------------------------------------------
DEFAULT_CURRENCY = env.choice("DEFAULT_CURRENCY", "RUB", money.OPENABLE)
GROUP_COMMIT = env.flag("GROUP_COMMIT", "on")
GROUP_COMMIT_BATCH = env.number("GROUP_COMMIT_BATCH", 1000, minimum=1)
GROUP_COMMIT_QUEUE = env.number("GROUP_COMMIT_QUEUE", 16_384, minimum=1)
INBOX_PENDING_PER_WALLET = env.number("INBOX_PENDING_PER_WALLET", 10_000, minimum=1)
MAX_AMOUNT = env.read(
    "MAX_AMOUNT",
    "1000000000000",
    lambda raw: env.valid(value := Decimal(raw), 0 < value <= 10**15),
    "more than 0 and at most 1000000000000000",
)

# --- Events -----------------------------------------------------------------------------------------
EVENTS_SOURCE = env.text("EVENTS_SOURCE", "walletsvc")
_BROKER = r"(\[[0-9A-Fa-f:.]+\]|[^][\s:/?#@,]+)(:[0-9]+)?"
EVENTS_BROKER_URL = env.text(
    "EVENTS_BROKER_URL",
    form=rf"((amqps?://([^\s:/?#@]+:[^\s/?#@]*@)?{_BROKER}(/[^\s/?#]*)?|kafka://{_BROKER}(,{_BROKER})*)(\?[^\s#]*)?)?",
    wanted="amqp://user:password@host:port/vhost, amqps://… or kafka://host:port,host:port;"
    " what is no letter or digit in a name or password is percent-encoded",
    is_secret=True,
)
EVENTS_RETRY_DAYS = env.number("EVENTS_RETRY_DAYS", 3, minimum=1)
WEBHOOK_TARGETS = env.choice("WEBHOOK_TARGETS", "public", ("public", "any"))

# --- API --------------------------------------------------------------------------------------------
API_ACCESS = env.choice("API_ACCESS", "key", ("open", "key"))
MAX_BODY_BYTES = env.number("MAX_BODY_BYTES", 1_048_576, minimum=1024)
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES
DATA_UPLOAD_MAX_NUMBER_FIELDS = 300  # of a form or query; a list in the admin has at most 200 rows to select
FILE_UPLOAD_HANDLERS = [
    "django.core.files.uploadhandler.MemoryFileUploadHandler"
]  # the service has no file uploads
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["wallets.access.authentication.ApiAccess"],
    "DEFAULT_PERMISSION_CLASSES": ["wallets.access.authentication.MayUseApi"],
    "DEFAULT_RENDERER_CLASSES": ["wallets.api.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "wallets.api.negotiation.ByAccept",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "wallets.error_mapping.exception_handler",
    "URL_FORMAT_OVERRIDE": None,
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "walletsvc",
    "VERSION": VERSION,
    "DESCRIPTION": "Wallets and the money in them: deposits, withdrawals and their history.",
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": [],
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_PATCH": False,
    "PATH_CONVERTER_OVERRIDES": {"id": {"type": "string", "format": "uuid"}},
    # The default hook would extract and number the enums of pydantic's schemas.
    "POSTPROCESSING_HOOKS": ["wallets.api.openapi.with_required_bodies", "wallets.api.openapi.with_links"],
    "OAS_VERSION": "3.1.0",  # its schemas are JSON Schema, as pydantic writes it
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}

# --- Admin ------------------------------------------------------------------------------------------
UNFOLD = {
    "SITE_TITLE": "walletsvc",
    "SITE_HEADER": "walletsvc",
    "SITE_SYMBOL": "account_balance_wallet",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "/static/pages/icon.svg"}],
    "SITE_URL": "/",
    "ACCOUNT": {
        "navigation": [
            {"title": "Change password", "link": "/admin/password_change/"},
            {"title": "Second factor", "link": "/admin/second-factor/"},
        ]
    },
}

# --- Server -----------------------------------------------------------------------------------------
BIND = env.read(
    "BIND",
    "127.0.0.1:8000",
    lambda raw: env.valid(raw, raw.startswith("unix:/") or 0 < int(raw.rpartition(":")[2]) < 2**16),
    "host:port or unix:/path",
)
WORKERS = env.number("WORKERS", 2, minimum=1)
WORKER_CONNECTIONS = env.number("WORKER_CONNECTIONS", 1000, minimum=1)
WORKER_TIMEOUT = env.number("WORKER_TIMEOUT", 60, minimum=1)
GRACEFUL_TIMEOUT = env.number("GRACEFUL_TIMEOUT", 30, minimum=1)
KEEPALIVE = env.number("KEEPALIVE", 75, minimum=1)
CLIENT_TIMEOUT = env.seconds("CLIENT_TIMEOUT", "60")
ACCESS_LOG = env.flag("ACCESS_LOG", "off")
LOG_LEVEL = env.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
LOG_FORMAT = env.choice("LOG_FORMAT", "json", ("json", "line"))
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {"()": "wallets.observability.logs.Json"},
        "line": {"()": "wallets.observability.logs.Line"},
    },
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT},
        "stdout": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT, "stream": "ext://sys.stdout"},
    },
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django": {"handlers": [], "propagate": True},
        "django.request": {"level": "ERROR"},  # refusals are in the access log if ACCESS_LOG is set
        "django.security.csrf": {"level": "ERROR"},  # it quotes Origin and Referer
        "opentelemetry.trace": {"level": "ERROR"},  # it quotes tracestate
        "axes": {
            "level": "ERROR"
        },  # it logs names of login attempts; the admin lists them under *Wrong passwords*
        "wallets.requests": {"handlers": ["stdout"], "level": "INFO", "propagate": False},
        # At DEBUG these log parameters of queries and URLs.
        "django.db.backends": {"level": "INFO"},
        "django.template": {"level": "INFO"},
        "urllib3": {"level": "INFO"},
        "pika": {"level": "CRITICAL"},  # it logs a long ERROR for every attempt; our own line is enough
    },
}
