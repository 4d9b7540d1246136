# The service alone. Its schema comes from liquibase/, which docker-compose.yml runs before it.
FROM python:3.13-slim AS packages
COPY requirements.txt .
# Wheels only: nothing is compiled, no compiler needed. pip itself stays behind in this stage.
RUN python3 -m venv --without-pip /venv \
 && python3 -m pip --python=/venv/bin/python install \
        --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
        --require-hashes --only-binary=:all: --requirement=requirements.txt

# What /venv holds, as CycloneDX. Whatever the base image brings is for its own list.
FROM packages AS sbom
COPY requirements-sbom.txt pyproject.toml ./
RUN python3 -m pip install \
        --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
        --require-hashes --only-binary=:all: --requirement=requirements-sbom.txt \
 && python3 -m cyclonedx_py environment --pyproject=pyproject.toml --output-reproducible --no-validate \
        --output-file=/sbom.json /venv/bin/python

# `docker build --target profiler`: py-spy beside the service, which its own image does without.
FROM packages AS profiler
COPY requirements-profiler.txt .
RUN python3 -m pip --python=/venv/bin/python install \
        --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
        --require-hashes --only-binary=:all: --requirement=requirements-profiler.txt
ENV PATH=/venv/bin:$PATH

# The base brings CA certificates, for what the service calls itself: webhooks, a broker, a collector.
FROM python:3.13-slim
LABEL org.opencontainers.image.title=walletsvc \
      org.opencontainers.image.version=0.7.0 \
      org.opencontainers.image.licenses=Apache-2.0
# A number, so that an orchestrator can see that it is not root.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin walletsvc
COPY --from=packages /venv /venv
COPY --from=sbom /sbom.json /usr/share/doc/walletsvc/sbom.json
WORKDIR /app
COPY manage.py pyproject.toml LICENSE ./
COPY walletsvc walletsvc
COPY wallets wallets
# All bytecode is made here: the files are root's, and the root file system may be read-only. What is copied
# has the permissions of the checkout, which other users may not be able to read.
RUN python3 -m compileall -q walletsvc wallets && chmod -R a+rX,go-w .
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BIND=0.0.0.0:8000
USER 10001:10001
EXPOSE 8000
# Any answer but a 5xx is a sign of life: ALLOWED_HOSTS need not name 127.0.0.1, nor the refusal be a failure.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "from http.client import HTTPConnection as Connection; \
                          service = Connection('127.0.0.1', 8000); \
                          service.request('GET', '/livez'); \
                          exit(service.getresponse().status >= 500)"]
# No shell in between: gunicorn is process 1 and gets the SIGTERM of `docker stop`.
CMD ["gunicorn", "--config=walletsvc/gunicorn.py", "--worker-tmp-dir=/dev/shm", "walletsvc.wsgi"]
