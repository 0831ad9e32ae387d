"""Keys in a store that is there before the broker starts: a hundred thousand, made as rows and not one by one."""

import os
import time
from pathlib import Path
from typing import Any, Final

from sqlalchemy import insert

from bench.settings import KEY_SECRET, TEAMS
from broker.config import Secret
from broker.identity.keys import ENTROPY, hash_of, mint
from broker.stores import tables
from broker.stores.location import FILE, Location
from broker.stores.opening import open_store

BATCH: Final = 10_000


async def keys(state: Path, count: int, wanted: int) -> list[str]:
    """Put so many keys into the store below `state`, in the teams of `settings`; the texts of `wanted` of them at most.

    The others have hashes of nothing: to mint a hundred thousand takes longer than to measure with them.
    """
    texts: list[str] = []
    rows: list[dict[str, Any]] = []
    for number in range(count):
        key_id, digest = f"stored{number}", os.urandom(32).hex()
        if number < wanted:
            made = mint(os.urandom(ENTROPY))
            key_id, text = made.id, made.text.reveal()
            texts.append(text)
            digest = hash_of(text, Secret(KEY_SECRET))
        place = {"organization": "acme", "team": f"t{number % TEAMS}", "name": f"stored{number}", "role": "member"}
        rows.append({"id": key_id, "hash": digest, "created": time.time(), **place})
    store = await open_store(Location(state, state / FILE))
    try:
        async with store.database.writing() as connection:
            for begin in range(0, count, BATCH):
                batch = rows[begin : begin + BATCH]
                columns = [{name: row[name] for name in row if name != "hash"} for row in batch]
                await connection.execute(insert(tables.keys), columns)
                hashes = [{"hash": row["hash"], "key_id": row["id"]} for row in batch]
                await connection.execute(insert(tables.key_hashes), hashes)
    finally:
        await store.aclose()
    return texts
