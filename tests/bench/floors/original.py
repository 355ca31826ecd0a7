"""The design that the service replaces: FastAPI, tasks in a dict, an asyncio task for each of them.

`scanning` looks at every task on each create to see what has expired, as the original did; `app`
leaves that out, and so keeps everything for ever.
"""

import asyncio
import os
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

SLOTS = int(os.environ.get("TASK_AGENT_INFERENCE__MAX_CONCURRENT_TASKS", "8"))
RETENTION = timedelta(hours=24)
MAX_TASKS = 10_000_000


class Submission(BaseModel):
    input: str | list[Any] | dict[str, Any]
    options: dict[str, Any] = Field(default_factory=dict)


class Submitted(BaseModel):
    task_id: str
    status: str


class TaskView(BaseModel):
    task_id: str
    status: str
    result: Any
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    error: str | None


@dataclass
class Task:
    task_id: str
    input: Any
    options: dict[str, Any]
    created_at: datetime
    status: str = "pending"
    result: Any = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    error: str | None = None


class Tasks:
    def __init__(self) -> None:
        self.by_id: dict[str, Task] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(SLOTS)

    def create(self, asked: Submission) -> Task:
        task = Task(str(uuid.uuid4()), asked.input, asked.options, datetime.now(UTC))
        self.by_id[task.task_id] = task
        running = asyncio.create_task(self._run(task))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return task

    def remove_expired(self) -> None:
        oldest = datetime.now(UTC) - RETENTION
        finished = [task for task in self.by_id.values() if task.completed_at]
        for task in finished:
            if task.completed_at and task.completed_at < oldest:
                del self.by_id[task.task_id]
        excess = max(0, len(self.by_id) - MAX_TASKS)
        for task in sorted(finished, key=lambda task: task.created_at)[:excess]:
            self.by_id.pop(task.task_id, None)

    async def _run(self, task: Task) -> None:
        async with self._slots:
            task.status, task.started_at = "running", datetime.now(UTC)
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(float(task.options.get("delay_seconds", 0)))
                task.result = {"output": f"Processed input: {task.input}"}
            task.status, task.completed_at = "completed", datetime.now(UTC)


def create_app(*, scan: bool) -> FastAPI:
    app, tasks = FastAPI(openapi_url=None), Tasks()

    @app.post("/api/v1/task/inference", status_code=202)
    async def submit(asked: Submission) -> Submitted:
        if scan:
            tasks.remove_expired()
        task = tasks.create(asked)
        return Submitted(task_id=task.task_id, status=task.status)

    @app.get("/api/v1/task/{task_id}")
    async def get(task_id: str) -> TaskView:
        if task_id not in tasks.by_id:
            raise HTTPException(404)
        return TaskView.model_validate(tasks.by_id[task_id], from_attributes=True)

    return app


app = create_app(scan=False)
scanning = create_app(scan=True)
