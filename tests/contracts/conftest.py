"""A failed assertion of a shipped contract shows its values, as those in this folder do."""

import pytest

pytest.register_assert_rewrite("adapters.testing")
