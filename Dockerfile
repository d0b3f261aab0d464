# The producer, the processors and the simulator; broker and registry have images of their own (docker-compose.yml), so no Java here.
# One base for both stages: what is built runs on the very Python that it was built with. Of tag and digest, the digest counts.
ARG PYTHON=python:3.13.15-slim-trixie@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285

FROM ${PYTHON} AS build
# for what has no wheel for the processor (faust-streaming on arm64); Debian serves one version, so none is named
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY schemas schemas
COPY producers producers
COPY processors processors
COPY infra infra
# what builds the wheel is held to the constraints too; the environment gets the wheel and what it needs, no pip
RUN pip install --no-cache-dir -c constraints.txt hatchling \
    && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel . \
    && python -m venv --without-pip /opt/infoway \
    && pip --python /opt/infoway/bin/python install --no-cache-dir -c constraints.txt /wheel/*.whl
# not in /source, whose processors would be compiled instead; whoever runs the image reads them
WORKDIR /
RUN /opt/infoway/bin/python -m processors.kernels.build && chmod -R go+rX /opt/infoway

FROM ${PYTHON}
# by number, so that a cluster can see that it is not root; a new volume over the spool's folder takes on its owner
RUN groupadd --gid 10001 infoway \
    && useradd --uid 10001 --gid infoway --no-create-home infoway \
    && install -d -o infoway -g infoway /var/lib/infoway
COPY --from=build /opt/infoway /opt/infoway
ENV PATH=/opt/infoway/bin:$PATH
USER 10001:10001
WORKDIR /var/lib/infoway
# asks what INFOWAY_HTTP serves, without the second that the command line takes to start; what serves nothing is healthy while it runs
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", "import os, sys, http.client as http; place = os.environ.get('INFOWAY_HTTP'); place or sys.exit(); connection = http.HTTPConnection('127.0.0.1', int(place.rpartition(':')[2]), timeout=4); connection.request('GET', '/livez'); sys.exit(connection.getresponse().status != 200)"]
CMD ["infoway-streams", "--help"]
