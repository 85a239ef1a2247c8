"""What makes a network the one that it is. Apart from loading, which need not know how code is told apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from microtome.closure import Places, closure
from microtome.importing import refuse_our_names
from microtome.networks.load import NetworkSpec


def network_digest(spec: NetworkSpec, file_digest: Callable[[Path], str]) -> str:
    """Digest of all that determines a network: factory, its code, arguments, weights by content.

    Does not import torch, so that an audit with nothing to do answers at once.

    Args:
        spec: where the network comes from.
        file_digest: content digest of a file, hexadecimal.

    Raises:
        InputError: its code imports a module of the user's own with the name of a package of ours.
    """
    file, code = spec.weights_file, closure([spec.load], Places(user=spec.root))
    refuse_our_names(code.definitions, spec.root, "network.load")
    content = {
        "load": spec.load,
        "code": code.digest,
        "arguments": dict(spec.arguments),
        "weights": file_digest(file) if file else spec.weights,
        "seed": None if file else spec.seed,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
