# The producer and the processors; broker and registry have images of their own (docker-compose.yml).
FROM python:3.13-slim
RUN useradd --create-home infoway
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY schemas schemas
COPY producers producers
COPY processors processors
COPY infra infra
RUN pip install --no-cache-dir -c constraints.txt .
USER infoway
WORKDIR /home/infoway
ENTRYPOINT []
CMD ["infoway-streams", "--help"]
