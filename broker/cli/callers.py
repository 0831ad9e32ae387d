"""What only this machine can tell of the callers of a configuration: whether their keys could be verified here."""

from dataclasses import replace

from broker.compiled import state_directory
from broker.config import Loaded, Problem, directory_of
from broker.identity.key_secret import NoKeySecret, read_key_secret


def with_advice(loaded: Loaded) -> Loaded:
    """The same, with a warning if there are keys in the file that nobody could come in with."""
    config = loaded.config
    keys = next(directory_of(config.organizations).places(), None)
    if keys is None or config.identity.key_secret is not None:
        return loaded
    try:
        if read_key_secret(state_directory(config)) is not None:
            return loaded
        why = "there are keys, and nothing to verify them with: nobody can come in with one"
        remedy = "Set it, or make keys here: mcp-broker key create --for-file."
    except NoKeySecret as error:
        why, _, remedy = str(error).partition(". ")
    found = Problem(str(loaded.path), None, "identity.key_secret", why, remedy)
    return replace(loaded, warnings=(*loaded.warnings, found))
