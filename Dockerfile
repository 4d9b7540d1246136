# The image of the service. docker-compose.yml runs Liquibase, which creates the schema, before it.
FROM python:3.13-slim AS packages
COPY requirements.txt .
# Only wheels, so no compiler is needed. pip stays in this stage.
RUN python3 -m venv --without-pip /venv \
 && python3 -m pip --python=/venv/bin/python install \
        --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
        --require-hashes --only-binary=:all: --requirement=requirements.txt

# The packages of /venv as CycloneDX. It does not list the packages of the base image.
FROM packages AS sbom
COPY requirements-sbom.txt pyproject.toml ./
RUN python3 -m pip install \
        --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
        --require-hashes --only-binary=:all: --requirement=requirements-sbom.txt \
 && python3 -m cyclonedx_py environment --pyproject=pyproject.toml --output-reproducible --no-validate \
        --output-file=/sbom.json /venv/bin/python

# `docker build --target profiler`: an image with py-spy, which the service's image does not have.
FROM packages AS profiler
COPY requirements-profiler.txt .
RUN python3 -m pip --python=/venv/bin/python install \
        --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
        --require-hashes --only-binary=:all: --requirement=requirements-profiler.txt
ENV PATH=/venv/bin:$PATH

# The base image has the CA certificates with which the service calls webhooks, a broker and a collector.
FROM python:3.13-slim
LABEL org.opencontainers.image.title=walletsvc \
      org.opencontainers.image.version=0.7.0 \
      org.opencontainers.image.licenses=Apache-2.0
# A numeric id, so that an orchestrator can check that it is not root.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin walletsvc
COPY --from=packages /venv /venv
COPY --from=sbom /sbom.json /usr/share/doc/walletsvc/sbom.json
WORKDIR /app
COPY manage.py pyproject.toml LICENSE ./
COPY walletsvc walletsvc
COPY wallets wallets
# Compile the bytecode now: root owns the files, and the root file system may be read-only. Copied files have the
# permissions of the checkout, which may not let the service's user read them.
RUN python3 -m compileall -q walletsvc wallets && chmod -R a+rX,go-w .
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BIND=0.0.0.0:8000
USER 10001:10001
EXPOSE 8000
# Any response except a 5xx is healthy: without 127.0.0.1 in ALLOWED_HOSTS the service responds with 400.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "from http.client import HTTPConnection as Connection; \
                          service = Connection('127.0.0.1', 8000); \
                          service.request('GET', '/livez'); \
                          exit(service.getresponse().status >= 500)"]
# Without a shell: gunicorn is process 1 and receives the SIGTERM of `docker stop`.
CMD ["gunicorn", "--config=walletsvc/gunicorn.py", "--worker-tmp-dir=/dev/shm", "walletsvc.wsgi"]
