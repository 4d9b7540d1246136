"""Settings. The environment sets them; env.example describes each variable."""

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
# How many wrong passwords from one address lock an account for this address, and for how long.
LOGIN_LOCKOUT = env.rate("LOGIN_LOCKOUT", "5/15m")
AXES_ENABLED = LOGIN_LOCKOUT is not None
if LOGIN_LOCKOUT:
    AXES_FAILURE_LIMIT = LOGIN_LOCKOUT.hits
    AXES_COOLOFF_TIME = timedelta(seconds=LOGIN_LOCKOUT.seconds)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_USERNAME_CALLABLE = "wallets.access.people.lockout_account"
AXES_CLIENT_IP_CALLABLE = "wallets.access.limits.lockout_address"
AXES_RESET_ON_SUCCESS = True
# Further attempts do not prolong a lockout: an attacker could keep the account owner out.
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_ENABLE_ADMIN = False  # wallets/admin shows the lockouts
AXES_VERBOSE = False
# If on, an operator has no rights without a second factor.
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
MAIL = env.email("EMAIL_URL")  # None: no mail, so neither password resets nor verified addresses
globals().update(MAIL or {})
EMAIL_TIMEOUT = 10
_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)"
PUBLIC_URL = env.text(  # the base of links in mails and of the `type` of problems, and the OpenAPI server
    "PUBLIC_URL",
    form=rf"https?://{_HOST}(:[0-9]{{1,5}})?{'' if MAIL else '|'}",
    wanted=f"{'set, because EMAIL_URL is: ' if MAIL else ''}like https://wallets.example.com, without a path",
)
DEFAULT_FROM_EMAIL = env.text("EMAIL_FROM", "walletsvc@localhost")

# --- Metrics ----------------------------------------------------------------------------------------
METRICS = env.flag("METRICS", "on")
METRICS_TOKEN = env.text("METRICS_TOKEN", "", "|.{16,}", "at least 16 characters long", is_secret=True)

# --- Traces and error reports -----------------------------------------------------------------------
# OpenTelemetry's SDK reads these variables itself; here they are only checked when the service starts.
_HTTP_URL = (r"(https?://([^/?#]*@)?[^/?#@:]+.*)?", "http://… or https://…")
OTEL_EXPORTER_OTLP_ENDPOINT = env.text("OTEL_EXPORTER_OTLP_ENDPOINT", "", *_HTTP_URL)
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
SENTRY_DSN = env.text("SENTRY_DSN", "", *_HTTP_URL, is_secret=True)
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
    *(["walletsvc.middleware.RequestMetrics"] if METRICS else []),
    "walletsvc.middleware.RequestId",
    *(["wallets.observability.spans.Spans"] if OTEL_EXPORTER_OTLP_ENDPOINT else []),
    "walletsvc.middleware.Headers",
    *(["corsheaders.middleware.CorsMiddleware"] if CORS_ALLOWED_ORIGINS else []),
    "walletsvc.middleware.Problems",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    # These skip API requests without a session.
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
    "axes.W002",  # axes' middleware is missing: wallets/access/people.py responds in our own format
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


# The database cancels a request's statement before wallets/database_retry.py closes the connection, because
# that would leave the statement running. A batch's connection is closed first; then its commands are retried.
_REQUEST_TIMEOUT = _statement_timeout(min(STATEMENT_TIMEOUT or 0, OPERATION_DEADLINE / 2))
_BATCH_TIMEOUT = _statement_timeout(2 * OPERATION_DEADLINE)


def _database(statement_timeout: str, **options: object) -> dict[str, object]:
    """Return an entry of DATABASES, with timeouts. Commits are durable even if the server's default differs.

    A transaction waits LOCK_PATIENCE for a lock; then its work is retried until OPERATION_DEADLINE. The
    server ends a session that stays idle in a transaction, so that a lost client does not keep its locks.
    """
    database = env.database("DATABASE_URL")
    policy = {
        "application_name": "walletsvc",
        "connect_timeout": env.number("DATABASE_CONNECT_TIMEOUT", 3, minimum=1),
        "options": f"-c synchronous_commit=on -c lock_timeout={int(LOCK_PATIENCE * 1000)}"
        f" -c idle_in_transaction_session_timeout={int(OPERATION_DEADLINE / 2 * 1000)}{statement_timeout}"
        # The server notices a client host that has vanished, and releases its locks,
        " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3",
        # and this service notices a database host that has vanished.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": int(OPERATION_DEADLINE / 2 * 1000),
    }
    from_url = database.get("OPTIONS", {})  # such as sslmode
    return database | {"OPTIONS": {**from_url, **policy, **options}}


_POOL_MIN = env.number("DATABASE_POOL_MIN", 1)
_POOL = {
    "min_size": _POOL_MIN,
    "max_size": env.number("DATABASE_POOL_MAX", 4, minimum=max(1, _POOL_MIN)),
    "timeout": OPERATION_DEADLINE / 4,  # then the request retries until its deadline
    # The pool would double its wait after each failed attempt to connect, up to minutes. So it gives up after
    # 0.5 s and starts again.
    "reconnect_timeout": 0.5,
    "reconnect_failed": methodcaller("check"),
}
# Committer and reader have one permanent connection each in every process, with prepared statements.
_PERMANENT = {"server_side_binding": True, "prepare_threshold": 3}
DATABASES = {
    # The pool keeps connections open; health checks replace those that a database restart has closed.
    "default": _database(_REQUEST_TIMEOUT, pool=_POOL) | {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": True},
    "ledger": _database(_BATCH_TIMEOUT, **_PERMANENT) | {"CONN_MAX_AGE": None},
    "reader": _database(_REQUEST_TIMEOUT, **_PERMANENT) | {"CONN_MAX_AGE": None},
}
# Liquibase owns the schema, so Django's migrations are disabled for every application.
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
    " special characters in the name or password as %XX",
    is_secret=True,
)
EVENTS_RETRY_DAYS = env.number("EVENTS_RETRY_DAYS", 3, minimum=1)
WEBHOOK_TARGETS = env.choice("WEBHOOK_TARGETS", "public", ("public", "any"))

# --- API --------------------------------------------------------------------------------------------
API_ACCESS = env.choice("API_ACCESS", "key", ("open", "key"))
MAX_BODY_BYTES = env.number("MAX_BODY_BYTES", 1_048_576, minimum=1024)
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES
DATA_UPLOAD_MAX_NUMBER_FIELDS = 300  # of a form or query; a list in the admin has at most 200 rows to select
# No temporary files: the service has no file uploads.
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.MemoryFileUploadHandler"]
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
    "POSTPROCESSING_HOOKS": [
        "wallets.api.document_hooks.with_server_and_tags",
        "wallets.api.document_hooks.with_query_components",
        "wallets.api.document_hooks.without_titles",
        "wallets.api.document_hooks.with_required_bodies",
        "wallets.api.document_hooks.with_shared_problems",
        "wallets.api.document_hooks.with_links",
    ],
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
        "django.request": {"level": "ERROR"},  # the access log has the refused requests
        "django.security.csrf": {"level": "ERROR"},  # its warnings quote Origin and Referer
        "opentelemetry.trace": {"level": "ERROR"},  # its warnings quote tracestate
        # It logs the usernames of login attempts; the admin lists them under *Wrong passwords*.
        "axes": {"level": "ERROR"},
        "wallets.requests": {"handlers": ["stdout"], "level": "INFO", "propagate": False},
        # At DEBUG these log parameters of queries and URLs.
        "django.db.backends": {"level": "INFO"},
        "django.template": {"level": "INFO"},
        "urllib3": {"level": "INFO"},
        "pika": {"level": "CRITICAL"},  # it logs a long ERROR for each attempt; the relay logs one line
    },
}
