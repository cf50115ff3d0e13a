# Text to speech as a service: docker build --build-arg VARIANT=cpu|cuda -t higgs-rt .
# docs/deployment.md says how to run it, and what of this file has been tried.
ARG VARIANT=cpu
ARG CUDA=13.0.1

FROM python:3.12-slim-bookworm AS build-cpu
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
ENV CMAKE_ARGS="-DHIGGS_RT_CUDA=OFF"

FROM nvidia/cuda:${CUDA}-devel-ubuntu24.04 AS build-cuda
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
# Compute capabilities, with semicolons; 90 is an H100 or H200.
ARG CUDA_ARCHITECTURES=90
ENV CMAKE_ARGS="-DHIGGS_RT_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=${CUDA_ARCHITECTURES}"

# The base is one of the stages above.
# hadolint ignore=DL3006
FROM build-${VARIANT} AS build
# serve: speaks with stored voices. serve,voices: encodes recordings too, which brings torch; an
# index with torch's CPU build in PIP_EXTRA_INDEX_URL spares the GPU libraries that it comes with.
ARG EXTRAS=serve
ARG PIP_EXTRA_INDEX_URL=""
RUN python3 -m venv /opt/higgs-rt
WORKDIR /src
COPY CMakeLists.txt pyproject.toml README.md LICENSE ./
COPY cmake cmake
COPY csrc csrc
COPY python python
RUN PIP_EXTRA_INDEX_URL="${PIP_EXTRA_INDEX_URL}" \
    /opt/higgs-rt/bin/pip install --no-cache-dir ".[${EXTRAS}]" \
    && /opt/higgs-rt/bin/higgs-rt --version

FROM python:3.12-slim-bookworm AS run-cpu

FROM nvidia/cuda:${CUDA}-runtime-ubuntu24.04 AS run-cuda
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*

# hadolint ignore=DL3006
FROM run-${VARIANT}
LABEL org.opencontainers.image.title="higgs_rt" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/higgs-rt /opt/higgs-rt
RUN useradd --uid 10001 --user-group --home-dir /data --create-home --shell /usr/sbin/nologin higgs
ENV PATH=/opt/higgs-rt/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    HIGGS_RT_VOICES=/data/voices \
    XDG_CACHE_HOME=/data/cache
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# Alive; /readyz says whether there is room for more. A large model takes a while to load.
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["higgs-rt"]
CMD ["serve", "--host", "0.0.0.0"]
