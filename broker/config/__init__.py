"""The configuration: `load` a file, get a `Config`, or a `ConfigError` with everything that is wrong with it."""

from broker.config.load import Loaded, load
from broker.config.model import (
    BrokerSettings,
    Config,
    HttpServer,
    InstructionsText,
    NameRules,
    NamingSettings,
    SecretText,
    Server,
    ServerBase,
    ServerSettings,
    StdioServer,
    StoreSettings,
    UriRules,
)
from broker.config.problem import ConfigError, Fault, Problem
from broker.config.secret import BadReferenceError, Secret, Sources, expand, reveal

__all__ = [
    "BadReferenceError",
    "BrokerSettings",
    "Config",
    "ConfigError",
    "Fault",
    "HttpServer",
    "InstructionsText",
    "Loaded",
    "NameRules",
    "NamingSettings",
    "Problem",
    "Secret",
    "SecretText",
    "Server",
    "ServerBase",
    "ServerSettings",
    "Sources",
    "StdioServer",
    "StoreSettings",
    "UriRules",
    "expand",
    "load",
    "reveal",
]
