"""Another broker on the same store, as a process: `child.py create DIRECTORY NAME COUNT`, or `child.py try DIRECTORY`.

`create` makes keys one after the other and prints the id of each once it is stored; COUNT 0: without end. `try` reads,
writes, reads again, and prints what became of each.
"""

import asyncio
import secrets
import sys
from pathlib import Path

from broker.core.caller import Role
from broker.stores.directory import DirectoryStore
from broker.stores.errors import StoreError
from broker.stores.location import Location
from broker.stores.opening import open_store
from broker.stores.rows import HashRow, KeyRow


async def create(store: DirectoryStore, name: str, number: int) -> None:
    key = KeyRow(secrets.token_hex(6), "acme", "data", f"{name}-{number}", Role.MEMBER, None, None, 1.0)
    async with store.changing() as change:
        await change.add(key)
        await change.add(HashRow(secrets.token_hex(32), key.id))
    print(key.id, flush=True)


async def attempt(store: DirectoryStore) -> None:
    print(f"{len(list((await store.load()).directory.places()))} keys")
    try:
        await create(store, "late", 0)
    except StoreError as error:
        print(f"{type(error).__name__}: {error}")
    print(f"{len(list((await store.load()).directory.places()))} keys")


async def main(what: str, directory: str, name: str = "", count: str = "0") -> None:
    state = Path(directory)
    store = await open_store(Location(state, state / "broker.db"))
    print("open", flush=True)
    number = 0
    try:
        if what == "try":
            await attempt(store)
        while what == "create" and (count == "0" or number < int(count)):
            await create(store, name, number)
            number += 1
    finally:
        await store.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
