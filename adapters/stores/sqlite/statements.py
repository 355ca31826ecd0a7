"""The statements of this folder's `.sql` files, by name."""

from typing import Final

from adapters.sql_files import statements_of

SQL: Final = statements_of(__package__)
