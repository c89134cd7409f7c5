# The app in a container. See docs/docker.md: no Docker engine was at hand, so this file has never been built.
#
#   docker build -t vitmae-search .
#   docker run --rm -p 127.0.0.1:8501:8501 -v vitmae-data:/data -v ~/Pictures:/photos:ro vitmae-search

FROM python:3.12-slim AS build
WORKDIR /src
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt build hatchling
COPY pyproject.toml README.md LICENSE app.py ./
COPY .streamlit .streamlit
COPY plugins plugins
COPY data data
COPY vitmae_search vitmae_search
RUN python -m build --wheel --no-isolation --outdir /wheels

FROM python:3.12-slim
# The package index to take torch from: pytorch.org names one for CPUs and one for each version of CUDA.
# Empty takes pip's own, which has the build with CUDA.
ARG TORCH_INDEX=
COPY constraints.txt /tmp/
# torch comes first, in the pinned version.
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' /tmp/constraints.txt)"
# What to install beside it, such as [postgresql,s3].
ARG EXTRAS=
COPY --from=build /wheels /tmp/wheels
RUN pip install --no-cache-dir -c /tmp/constraints.txt "$(echo /tmp/wheels/*.whl)$EXTRAS" && rm -r /tmp/wheels

# The library, the cache and downloaded models are kept in /data. The program does not run as root.
ENV VITMAE_SEARCH_DATA=/data \
    VITMAE_SEARCH_CACHE=/data/cache \
    HF_HOME=/data/huggingface
RUN useradd --create-home --uid 1000 vitmae && mkdir /data && chown vitmae /data
WORKDIR /app
USER vitmae
VOLUME /data
EXPOSE 8501

HEALTHCHECK --start-period=60s CMD python -c \
    "import socket; socket.create_connection(('127.0.0.1', 8501), 5).close()"

# Docker reaches the app on the container's network interface, so inside it listens on all of them, and asks for
# a password: VITMAE_SEARCH_PASSWORD, or that of the link that it prints. Publish the port on 127.0.0.1 of the
# host only.
CMD ["vitmae-search", "app", "--address", "0.0.0.0", "--port", "8501", "--no-browser", "--token"]
