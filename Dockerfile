# docker build --build-arg VERSION=1.2.3 -t ibma-app .
# The base's python3 runs it; any Debian or Ubuntu whose python3 is 3.11 or newer will do.
ARG BASE_IMAGE=debian:trixie-slim

FROM ${BASE_IMAGE} AS builder
# Debian's own packages, at whatever version the base image's release has
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
# the path of the final image: an environment cannot be moved
RUN python3 -m venv /opt/ibma
# what others wrote comes first, so that this layer lasts while our own code changes; without their tests, the sources
# of what is compiled, and the names in the largest library that only a debugger reads (60 MB)
COPY pyproject.toml docker/list_requirements.py /src/docker/
RUN /opt/ibma/bin/python /src/docker/list_requirements.py templateflow dask > /src/requirements.txt \
    && /opt/ibma/bin/pip install --no-cache-dir -r /src/requirements.txt \
    && find /opt/ibma -type d -name tests -path '*/site-packages/*' -prune -exec rm -rf {} + \
    && find /opt/ibma -path '*/site-packages/*' -regex '.*\.\(c\|cpp\|h\|hpp\|pxd\|pyx\)' -delete \
    && strip /opt/ibma/lib/python3*/site-packages/llvmlite/binding/libllvmlite.so
# --mask template needs templates: PREFETCH=1 brings the brain masks of the two MNI spaces along
# (the same question that the app asks: every resolution, since TemplateFlow fetches what it lists)
ARG PREFETCH=0
ENV TEMPLATEFLOW_HOME=/opt/templateflow
RUN mkdir -p /opt/templateflow \
    && if [ "${PREFETCH}" = 1 ]; then \
        /opt/ibma/bin/python -c "from templateflow import api; [api.get(space, desc='brain', suffix='mask', extension=['.nii.gz'], raise_empty=True) for space in ('MNI152NLin2009cAsym', 'MNI152NLin6Asym')]"; \
    fi \
    && chmod -R a+rX /opt/templateflow
COPY . /src
# no git in here: the version comes from outside
ARG VERSION=0+unknown
RUN SETUPTOOLS_SCM_PRETEND_VERSION="${VERSION}" /opt/ibma/bin/pip install --no-cache-dir --no-deps /src \
    && /opt/ibma/bin/pip check \
    && /opt/ibma/bin/pip uninstall -y pip
# compile the kernels ahead, for any CPU of this architecture and for those of the last ten years (a fifth faster; where
# the builder's own is older, the second round finds all done); the demo is the rest of them, and the image's first test
RUN for names in generic "x86-64-v3 generic"; do \
        export IBMA_CPU_NAMES="${names}" \
        && /opt/ibma/bin/python /src/docker/compile_kernels.py \
        && /opt/ibma/bin/ibma-demo /tmp/demo \
        && rm -rf /tmp/demo || exit 1; \
    done \
    && chmod -R a+rX /opt/ibma

FROM ${BASE_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && apt-get clean && rm -rf /var/lib/apt/lists/* /var/log/*
COPY --from=builder /opt/ibma /opt/ibma
COPY --from=builder /opt/templateflow /opt/templateflow
ARG VERSION=0+unknown
RUN echo "${VERSION}" > /version
# No USER: any uid works. Caches (matplotlib's fonts) go below HOME, which is writable with `--tmpfs /tmp`; under
# Apptainer HOME is the user's own, so that nobody's caches meet in a /tmp that all share.
ENV PATH=/opt/ibma/bin:$PATH \
    HOME=/tmp \
    IBMA_CPU_NAMES="x86-64-v3 generic" \
    LANG=C.UTF-8 \
    MPLBACKEND=Agg \
    PYTHONNOUSERSITE=1 \
    TEMPLATEFLOW_HOME=/opt/templateflow
LABEL org.opencontainers.image.title="ibma-app" \
      org.opencontainers.image.description="A BIDS-App that combines fMRI statistic maps" \
      org.opencontainers.image.authors="The ibma-app developers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
ENTRYPOINT ["ibma-app"]
