"""Load a network from a factory and weights that cannot run code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from microtome.errors import InputError, suggest
from microtome.importing import named_object, said, users_code
from microtome.networks.zoo import is_timm, timm_factory

if TYPE_CHECKING:
    import torch

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class NetworkSpec:
    """Where a network comes from.

    Args:
        load: `package.module:factory`, which returns a `torch.nn.Module`; or `timm:NAME`, a network of timm's.
        arguments: keyword arguments of the factory.
        weights: a `.safetensors` file, a state dict (`.pth`, `.pt`, `.bin`), the name of torchvision weights, or None
            for the factory's own initialisation under `seed`.
        root: the directory relative paths start from, and where a module of the user's own is looked for.
        seed: of the factory's initialisation.
        layers: names that will be asked for; those of no module, such as `blocks.0.attn.proj.heads`, are put in. They
            change no answer, and so are no part of what the network is.
    """

    load: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    weights: str | None = None
    root: Path = Path()
    seed: int = 0
    layers: tuple[str, ...] = ()

    @property
    def weights_file(self) -> Path | None:
        """The weights as a file, or None where they are none or a torchvision name."""
        if self.weights is None or not self.weights.endswith(SUFFIXES):
            return None
        return self.root / self.weights


def load_network(spec: NetworkSpec) -> torch.nn.Module:
    """Build the network, put the weights in, and freeze it: eval mode, no parameter wants a gradient.

    Raises:
        InputError: the factory is not there or fails, gives no ordinary network in float32, the weights are no plain
            state dict, do not fit, or are not finite.
    """
    import torch

    from microtome.networks.soundness import refuse_not_finite, refuse_unfit
    from microtome.networks.taps import tap

    factory = _factory(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        given = ", ".join(f"{k}={v!r}" for k, v in spec.arguments.items())
        with users_code("network.load", f"{spec.load}({given}) failed"):
            module = factory(**spec.arguments)
    if not isinstance(module, torch.nn.Module):
        raise InputError(
            f"network.load: the factory must return a torch.nn.Module, got {type(module).__name__} from {spec.load}"
        )
    refuse_unfit(module, spec.load)
    if spec.weights is not None:
        state = _state_dict(spec)
        with users_code("network.weights", f"{spec.weights} cannot be put into {type(module).__name__}"):
            _fill(module, state, spec.weights)
    with users_code("network.load", f"{spec.load}: eval() failed"):
        module.eval()
    refuse_not_finite(module, f"network.weights: {spec.weights}" if spec.weights else f"network.load: {spec.load}")
    tap(module, spec.layers)
    if hasattr(getattr(module, "config", None), "return_dict"):  # of the package transformers
        module.register_forward_hook(_logits)
    return module.requires_grad_(False)


def _logits(_module: torch.nn.Module, _inputs: object, answer: object) -> object:
    """Of an answer that is an object of several things, as networks of the package transformers give it, the logits."""
    return getattr(answer, "logits", answer)


def _factory(spec: NetworkSpec) -> Callable[..., object]:
    if is_timm(spec.load):
        return timm_factory(spec.load, spec.arguments)
    factory: object = named_object(spec.load, spec.root, "network.load")
    if not callable(factory):
        raise InputError(f"network.load: {spec.load} must be callable, got {type(factory).__name__}")
    return factory


def _state_dict(spec: NetworkSpec) -> dict[str, torch.Tensor]:
    file = spec.weights_file
    if file is None and is_timm(spec.load):
        raise InputError(
            f"network.weights: must be a file ending in {', '.join(SUFFIXES)}, got {spec.weights!r}; weights of timm's "
            "networks are not fetched: download them, or leave the key out for random ones"
        )
    if file is None:
        return _torchvision_weights(str(spec.weights), spec.load)
    if not file.is_file():
        raise InputError(f"network.weights: no such file, got {str(spec.weights)!r} (looked for {file})")
    return _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)


def _read_safetensors(file: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except Exception as error:  # of a damaged header nearly any kind
        raise InputError(f"network.weights: {file} must be a safetensors file, got {_said(error)}") from error


def _read_pickle(file: Path) -> dict[str, torch.Tensor]:
    """A state dict, read by torch's restricted unpickler, which runs no code of the file's."""
    import torch

    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of a damaged file nearly any kind
        raise InputError(
            f"network.weights: {file} must hold a plain state dict (tensors only), got a file that holds more or is "
            f"damaged: {_said(error)}; save it again with torch.save(module.state_dict(), file), or as safetensors"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    ):
        raise InputError(
            f"network.weights: {file} must hold a plain state dict (name -> tensor), got {type(content).__name__}"
        )
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _said(error: BaseException) -> str:
    """What is wrong with a file, in one line that holds nothing but printable characters, as it may quote the file.

    Of what torch says the code that the file names, or its unpickler's own words; not the advice to load it regardless.
    """
    needed = re.search(r"nsupported (?:global: )?GLOBAL (\S+)", str(error))
    own = re.search(r"WeightsUnpickler error: (.+)", str(error))
    text = own[1] if own else said(error).partition(". In PyTorch")[0]
    return ascii(f"it needs {needed[1]}, which is code" if needed else text)[1:-1][:200]


def _torchvision_weights(name: str, load: str) -> dict[str, torch.Tensor]:
    from torchvision.models import get_model_weights

    from microtome.networks.fetched import fetched

    try:
        choices = get_model_weights(load.partition(":")[2])
    except ValueError as error:
        raise InputError(
            f"network.weights: must be a file ending in {', '.join(SUFFIXES)}, or a torchvision weights name for a "
            f"torchvision network, got {name!r}"
        ) from error
    member = name.rpartition(".")[2]
    names = [*choices.__members__, "DEFAULT"]
    if member not in names:
        raise InputError(f"network.weights: no torchvision weights {name!r}{suggest(member, names)}")
    return fetched(getattr(choices, member))


def _fill(module: torch.nn.Module, state: dict[str, torch.Tensor], source: str) -> None:
    import torch

    own = {name: held for name, held in module.state_dict().items() if isinstance(held, torch.Tensor)}
    faults = [f"missing {name}" for name in own if name not in state and not name.endswith("num_batches_tracked")]
    faults += [f"not in the network: {ascii(name)[1:-1]:.80}" for name in state if name not in own]
    faults += [fault for name, held in own.items() if name in state and (fault := _misfit(name, held, state[name]))]
    if faults:
        listed = "; ".join(faults[:8]) + (f"; and {len(faults) - 8} more" if len(faults) > 8 else "")
        raise InputError(f"network.weights: {source} does not fit the network: {listed}")
    module.load_state_dict(state, strict=False)


def _misfit(name: str, held: torch.Tensor, given: torch.Tensor) -> str:
    """Why a tensor of the file cannot take the place of the network's own; empty if it can.

    Whole numbers in the place of real ones are what quantised files hold: without their scale they mean nothing.
    """
    import torch

    if held.shape != given.shape:
        return f"{name} must be {tuple(held.shape)}, got {tuple(given.shape)}"
    if given.layout != torch.strided or given.is_quantized or given.is_meta:
        return f"{name} must be a plain tensor, got one that is sparse, quantised or on 'meta'"
    if held.is_floating_point() and (not given.is_floating_point() or given.element_size() == 1):
        return f"{name} must hold real numbers, got {given.dtype}; multiply quantised weights by their scale first"
    return ""
