"""The contract of every store: `domain.ports`, sentence by sentence, as tests.

Subclass it in a test module of yours; pytest does the rest:

    class TestMyStore(DurableStoreContract):
        def open_store(self, place: Path, clock: FakeClock) -> AbstractAsyncContextManager[Store]:
            return MyStore(MyOptions(path=str(place / "tasks.db")), clock)

`StoreContract` holds for every store, `DurableStoreContract` for one that remembers what it was
told when it is opened again, `EmbeddedStoreContract` for one that lives in one process and goes by
the clock it is given. Derive from all that fit. With
`pytest.register_assert_rewrite("adapters.testing")` in a conftest, a failure shows its values.

Which move is allowed from which status is read from `domain.task.TRANSITIONS`, and what it changes
from the moves of `domain.task.Task`: there is no second state machine in here.
"""

from adapters.testing.store_contract.cancelling import Cancelling
from adapters.testing.store_contract.claiming import Claiming
from adapters.testing.store_contract.deadlines import Deadlines
from adapters.testing.store_contract.durable import Durable
from adapters.testing.store_contract.embedded import Embedded
from adapters.testing.store_contract.hints import Hints
from adapters.testing.store_contract.leases import Leases
from adapters.testing.store_contract.listing import Listing
from adapters.testing.store_contract.moves import Moves
from adapters.testing.store_contract.reading import Reading
from adapters.testing.store_contract.recording import Recording
from adapters.testing.store_contract.repeating import Repeating
from adapters.testing.store_contract.rerouting import Rerouting
from adapters.testing.store_contract.retention import Retention
from adapters.testing.store_contract.settling import Settling
from adapters.testing.store_contract.submitting import Submitting
from adapters.testing.store_contract.waiting import Waiting

__all__ = ["DurableStoreContract", "EmbeddedStoreContract", "StoreContract"]


class StoreContract(
    Moves,
    Submitting,
    Repeating,
    Reading,
    Listing,
    Waiting,
    Claiming,
    Deadlines,
    Settling,
    Cancelling,
    Leases,
    Recording,
    Rerouting,
    Retention,
    Hints,
):
    """What holds for every store."""


class EmbeddedStoreContract(StoreContract, Embedded):
    """What holds for a store that lives in one process and goes by the clock it is given."""


class DurableStoreContract(StoreContract, Durable):
    """What holds for a store that remembers: closed in good order or killed, it forgets nothing."""
