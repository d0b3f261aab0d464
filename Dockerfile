# The producer, the processors and the simulator; broker and registry have images of their own (docker-compose.yml), so no Java here.
# not slim: where a dependency has no wheel for the processor (faust-streaming on arm64), it is compiled
FROM python:3.13 AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY schemas schemas
COPY producers producers
COPY processors processors
COPY infra infra
RUN python -m venv /opt/infoway && /opt/infoway/bin/pip install --no-cache-dir -c constraints.txt .

FROM python:3.13-slim
RUN useradd --create-home infoway
COPY --from=build /opt/infoway /opt/infoway
ENV PATH=/opt/infoway/bin:$PATH
USER infoway
WORKDIR /home/infoway
CMD ["infoway-streams", "--help"]
