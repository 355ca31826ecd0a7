"""The store for many machines: any number of API and worker processes on one PostgreSQL."""

from adapters.stores.postgres.store import PostgresOptions, PostgresTaskStore

__all__ = ["PostgresOptions", "PostgresTaskStore"]
