# Three images of one lock: `airflow` (every Airflow component), `training` (it and MLflow), `faces` (add-on and service).
# Packages, those that build ours too, are installed from hashed locks only; no system package is needed, since all of them come as wheels.
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
# Everything that is written lies below /tmp (a tmpfs) or in a volume: containers run with a read-only file system.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    AIRFLOW_HOME=/tmp/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/app/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/app/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False
# By this name Airflow's Helm chart looks after its pods, as Apache's image has it.
RUN printf '#!/bin/sh\nexec "$@"\n' > /entrypoint && chmod 0755 /entrypoint
# A volume takes over owner and mode of the folder that it is mounted at first.
RUN useradd --uid 50000 --gid 0 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin analyzer \
    && install -d -o 50000 -g 0 -m 0775 /var/lib/image-analyzer/logs /var/lib/image-analyzer/models /var/lib/image-analyzer/mlflow
WORKDIR /app

FROM base AS build
COPY requirements-bootstrap.txt ./
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement requirements-bootstrap.txt \
    && /opt/build/bin/uv venv --quiet /opt/venv
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 VIRTUAL_ENV=/opt/venv
COPY pyproject.toml ./
COPY include ./include

FROM build AS airflow-packages
COPY requirements.txt ./
RUN /opt/build/bin/uv pip install --require-hashes --requirement requirements.txt \
    && /opt/build/bin/uv pip install --no-deps --no-build-isolation --editable .

FROM build AS training-packages
COPY requirements-train.txt ./
RUN /opt/build/bin/uv pip install --require-hashes --requirement requirements-train.txt \
    && /opt/build/bin/uv pip install --no-deps --no-build-isolation --editable .

FROM build AS faces-packages
COPY requirements-apps.txt ./
RUN /opt/build/bin/uv pip install --require-hashes --requirement requirements-apps.txt \
    && /opt/build/bin/uv pip install --no-deps --no-build-isolation --editable .

FROM base AS faces
COPY --from=faces-packages /opt/venv /opt/venv
COPY . .
USER 50000:0
CMD ["image-analyzer", "--help"]

FROM base AS training
COPY --from=training-packages /opt/venv /opt/venv
COPY . .
USER 50000:0
CMD ["airflow", "version"]

FROM base AS airflow
COPY --from=airflow-packages /opt/venv /opt/venv
COPY . .
USER 50000:0
CMD ["airflow", "version"]
