"""The brokers and puppets of the hostile tests serve here too."""

from tests.hostile.conftest import broker_of, nothing_is_left, puppet

__all__ = ["broker_of", "nothing_is_left", "puppet"]
