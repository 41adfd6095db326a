"""Calls between processes: contracts, wire formats, peers, streams, routing.

A general RPC library that knows nothing of graphs; `afresh.remote` joins the two.
"""

from .client_peer import ClientPeer
from .contracts import (
    CallKind,
    MethodDefinition,
    NoWait,
    ServiceDefinition,
    Timeouts,
    describe,
    rpc_method,
    rpc_service,
)
from .exceptions import ExceptionPolicy, ExceptionRegistry, rpc_error
from .hub import DEFAULT_FORMATS, RpcHub
from .kinds import CallSupport
from .limits import Limits
from .middleware import Middleware, Proceed, Request
from .naming import DOTNET, PYTHON, DotnetNaming, NamingPolicy
from .origins import allow_origins, any_origin, same_host
from .peer import ConnectionState, Peer, current_peer
from .server_peer import ServerPeer
from .streams import RpcStream

__all__ = [
    "DEFAULT_FORMATS",
    "DOTNET",
    "PYTHON",
    "CallKind",
    "CallSupport",
    "ClientPeer",
    "ConnectionState",
    "DotnetNaming",
    "ExceptionPolicy",
    "ExceptionRegistry",
    "Limits",
    "MethodDefinition",
    "Middleware",
    "NamingPolicy",
    "NoWait",
    "Peer",
    "Proceed",
    "Request",
    "RpcHub",
    "RpcStream",
    "ServerPeer",
    "ServiceDefinition",
    "Timeouts",
    "allow_origins",
    "any_origin",
    "current_peer",
    "describe",
    "rpc_error",
    "rpc_method",
    "rpc_service",
    "same_host",
]
