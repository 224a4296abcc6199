# The `resurgence` command in an image, as a user without rights, meant to run on a read-only root file system. Its text is
# tested; no test builds or runs it.
#
#   docker build -t resurgence --target cuda .
#   docker build -t resurgence --target cpu --build-arg TORCH_INDEX=URL .       # URL of an index with CPU-only torch
#   docker run --rm --read-only --tmpfs /tmp -v resurgence-store:/store -v "$PWD:/project" resurgence gate --policy policy.yaml
#
# Models, images and judgments are in /store. With a GPU add --gpus all; torch's own wheel contains CUDA's libraries.
# The host's folder is /project; its files must be readable for the user 10001, and reports/ writable.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY resurgence_harness resurgence_harness
RUN pip install --no-cache-dir "build>=1.2" && python -m build --wheel --outdir /wheel .

FROM python:${PYTHON}-slim AS common
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 \
    HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib RESURGENCE_STORE=/store
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin resurgence \
    && install -d -o resurgence -g resurgence /store /project

FROM common AS cpu
ARG TORCH_INDEX=""
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch>=2.8"
COPY --from=wheel /wheel /wheel
RUN pip install --no-cache-dir /wheel/*.whl
USER 10001
VOLUME /store
WORKDIR /project
ENTRYPOINT ["resurgence"]
CMD ["--help"]

FROM common AS cuda
COPY --from=wheel /wheel /wheel
RUN pip install --no-cache-dir /wheel/*.whl
USER 10001
VOLUME /store
WORKDIR /project
ENTRYPOINT ["resurgence"]
CMD ["--help"]
