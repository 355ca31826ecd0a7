# The service as a container: `docker build -t task-agent .`
#
# It runs as user 10001, needs no writable root file system, and keeps SQLite on the volume /data.
# Written without an engine at hand: the steps were run by hand, the image was not built.

FROM python:3.11-slim AS build

RUN python -m venv /opt/task-agent
COPY requirements.txt /src/
RUN /opt/task-agent/bin/pip install --no-cache-dir --require-hashes -r /src/requirements.txt
COPY . /src/
RUN /opt/task-agent/bin/pip install --no-cache-dir --no-deps --no-build-isolation /src \
    && /opt/task-agent/bin/pip uninstall --yes setuptools pip


FROM python:3.11-slim

COPY --from=build /opt/task-agent /opt/task-agent
RUN mkdir --mode=0700 /data && chown 10001:10001 /data

# Others can reach 0.0.0.0, so a start is refused until security.allow_anonymous says that this is
# meant. `docker stop` kills after ten seconds, so the drain ends before them.
ENV PATH=/opt/task-agent/bin:$PATH \
    ENV=production \
    TASK_AGENT_SERVER__HOST=0.0.0.0 \
    TASK_AGENT_SERVER__DRAIN_SECONDS=7 \
    TASK_AGENT_STORE__PATH=/data/task-agent.db

USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000

# A worker answers here too, once TASK_AGENT_WORKER__PORT=8000.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "from http.client import HTTPConnection as To; to = To('127.0.0.1', 8000, timeout=2); to.request('GET', '/livez'); exit(to.getresponse().status != 200)"]

ENTRYPOINT ["task-agent"]
CMD ["serve"]
