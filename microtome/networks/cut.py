"""A network cut at one layer: its answer with another output of that layer, the layers below computed once.

Where the modules around the layer can be traced (torch.fx), the network is a graph of values. What does not depend on
the layer's output is computed once for a batch, also where it goes past the layer (a skip connection); what depends on
it is computed anew for each output that takes the place of the layer's own. The batch stays as it is, so that every
operation sees the same shapes as in the plain forward pass. Where the network cannot be traced, or the cut one answers
otherwise than the plain one with a hook, the whole network is run for each output, and `reason` says why.

Where few units differ from an output that was read before, and a convolution alone reads them, only what differs is
convolved, w * (y + d) = w * y + w * d: the same but for rounding, some 1e-7.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import fx, nn
from torch.nn import functional

ROUNDING = 1e-6  # of the largest value, within which a cut network must answer as the plain one does
SHARED_ROUNDING = 1e-5  # the same where a sum is made of two parts
FEW = 4  # times as many units as differ the layer has, where their part alone is read


@dataclass(frozen=True)
class Below:
    """What the layers below made of a batch.

    Args:
        batch: (pictures, 3, height, width), normalised.
        output: of the layer.
        values: further ones that what lies above needs, by their place in the graph.
    """

    batch: torch.Tensor
    output: torch.Tensor
    values: Mapping[fx.Node, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """An output of the layer that others are like, but for few units.

    Args:
        below: of the batch.
        output: of the layer.
        read: what the convolution that reads it makes of it; None where there is none.
    """

    below: Below
    output: torch.Tensor
    read: torch.Tensor | None = None


class Cut(ABC):
    """A network cut at a layer; `reason` says why the whole network is run for each output, empty where it is not."""

    reason = ""

    @abstractmethod
    def below(self, batch: torch.Tensor) -> Below:
        """Run a batch, (pictures, 3, height, width), up to the layer."""

    @abstractmethod
    def above(self, below: Below, output: torch.Tensor) -> torch.Tensor:
        """The network's answer, (pictures, classes), where the layer puts out `output`; it may be changed in place."""

    def start(self, below: Below, output: torch.Tensor) -> Start:
        """An output from which others differ in few units."""
        return Start(below, output)

    def differing(self, start: Start, axis: int, units: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """The network's answer where some units have other values.

        Args:
            start: what all others have.
            axis: dimension of the output along which its units lie.
            units: their numbers.
            values: an output of the layer with these units alone.
        """
        return self.above(start.below, start.output.index_copy(axis, units, values))


class GraphCut(Cut):
    """A network cut in its graph.

    Args:
        module: the network, in eval mode.
        layer: dotted name; called once in a forward pass.

    Raises:
        ValueError: the layer stands not just once in the graph.
    """

    def __init__(self, module: nn.Module, layer: str) -> None:
        target = module.get_submodule(layer)
        self._graph = fx.GraphModule(module, _Around(target).trace(module))
        nodes = [node for node in self._graph.graph.nodes if _calls(self._graph, node, target)]
        if len(nodes) != 1:
            raise ValueError(f"the layer must stand once in the network's graph, got {len(nodes)}")
        (self._layer,) = nodes
        self._above = _dependent(self._layer)
        self._below = [node for node in self._graph.graph.nodes if node not in self._above]
        self._needed = [node for node in self._below if node is not self._layer and self._above & set(node.users)]
        self._reader = _reader(self._graph, self._layer)

    def below(self, batch: torch.Tensor) -> Below:
        """As in `Cut`."""
        run = fx.Interpreter(self._graph, garbage_collect_values=False)
        run.args_iter = iter([batch])
        for node in self._below:
            run.env[node] = run.run_node(node)
        return Below(batch, run.env[self._layer], {node: run.env[node] for node in self._needed})

    def above(self, below: Below, output: torch.Tensor) -> torch.Tensor:
        """As in `Cut`."""
        return self._onwards(below, self._layer, output)

    def start(self, below: Below, output: torch.Tensor) -> Start:
        """As in `Cut`."""
        return Start(below, output, self._reader.read(output) if self._reader else None)

    def differing(self, start: Start, axis: int, units: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """As in `Cut`."""
        few = 0 < FEW * len(units) <= start.output.shape[axis]
        if self._reader is None or start.read is None or not few:
            return super().differing(start, axis, units, values)
        moved = self._reader.read(values - start.output.index_select(axis, units), units)
        return self._onwards(start.below, self._reader.node, moved.add_(start.read), self._reader.passed)

    def without_reader(self) -> GraphCut:
        """Itself, reading every output whole."""
        self._reader = None
        return self

    def _onwards(
        self, below: Below, node: fx.Node, output: torch.Tensor, passed: Sequence[fx.Node] = ()
    ) -> torch.Tensor:
        """From a node's value on; what was passed on the way to it is left out."""
        values = {node: value if node.op == "get_attr" else _copied(value) for node, value in below.values.items()}
        known = {**dict.fromkeys(self._below), **dict.fromkeys(passed), **values, node: output}
        answer: torch.Tensor = fx.Interpreter(self._graph).run(below.batch, initial_env=known)
        return answer


class WholeNetwork(Cut):
    """The plain forward pass, with a hook in the layer's place.

    Args:
        module: the network, in eval mode.
        layer: dotted name.
        reason: why it is not cut.
    """

    def __init__(self, module: nn.Module, layer: str, reason: str = "") -> None:
        self._module, self._target, self.reason = module, module.get_submodule(layer), reason

    def below(self, batch: torch.Tensor) -> Below:
        """As in `Cut`."""
        found: list[torch.Tensor] = []
        with self._hooked(lambda _module, _inputs, output: found.append(output.clone())):
            self._module(batch)
        return Below(batch, found[-1])

    def above(self, below: Below, output: torch.Tensor) -> torch.Tensor:
        """As in `Cut`."""
        with self._hooked(lambda *_: output):
            answer: torch.Tensor = self._module(below.batch)
        return answer

    @contextlib.contextmanager
    def _hooked(self, hook) -> Iterator[None]:  # type: ignore[no-untyped-def]  # torch's own kind of hook
        handle = self._target.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


def cut_at(module: nn.Module, layer: str, batch: torch.Tensor) -> Cut:
    """A network cut at a layer, looked at with a batch: in its graph, or else run whole.

    Args:
        module: the network, in eval mode.
        layer: dotted name; called once in a forward pass, with a tensor as its output.
        batch: (pictures, 3, height, width), normalised; a few pictures do.
    """
    try:
        cut = GraphCut(module, layer)
    except Exception as error:  # of a forward that torch.fx cannot follow nearly any kind
        return WholeNetwork(module, layer, f"it cannot be traced ({type(error).__name__})")
    whole = WholeNetwork(module, layer)
    try:
        with torch.inference_mode():
            if not _agree(cut, whole, batch):
                return WholeNetwork(module, layer, "cut at this layer it answers otherwise")
            return cut if _shares(cut, whole, batch) else cut.without_reader()
    except Exception as error:  # of a graph that was followed wrongly nearly any kind
        return WholeNetwork(module, layer, f"cut at this layer it fails ({type(error).__name__})")


def _agree(cut: GraphCut, whole: WholeNetwork, batch: torch.Tensor) -> bool:
    """Whether both answer alike: with the layer's own output, with half of its values, and with none."""
    one, other = cut.below(batch), whole.below(batch)
    half = torch.rand(one.output.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    for kept in (torch.ones_like(half), half, torch.zeros_like(half)):
        given = one.output * kept.to(one.output)
        wanted = whole.above(other, given.clone())
        if not _near(cut.above(one, given), wanted, ROUNDING):
            return False
    return True


def _shares(cut: GraphCut, whole: WholeNetwork, batch: torch.Tensor) -> bool:
    """Whether the answer without a unit's values is the same where only the difference is read."""
    below, axis = cut.below(batch), 1  # a convolution reads units along the first dimension after the pictures
    start = cut.start(below, below.output)
    for unit in torch.tensor([[0], [below.output.shape[axis] - 1]], device=batch.device):
        none = torch.zeros_like(below.output.index_select(axis, unit))
        wanted = whole.above(below, below.output.index_copy(axis, unit, none))
        if not _near(cut.differing(start, axis, unit, none), wanted, SHARED_ROUNDING):
            return False
    return True


def _near(found: torch.Tensor, wanted: torch.Tensor, share: float) -> bool:
    return float((found - wanted).abs().max()) <= share * float(wanted.abs().max())


class _Around(fx.Tracer):
    """Follows sequences and the modules that hold the layer; all others are operations, whatever they do inside."""

    def __init__(self, target: nn.Module) -> None:
        super().__init__()
        self._target = target

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        holds = any(inner is self._target for inner in m.modules())
        return m is self._target or not (holds or type(m) is nn.Sequential)


@dataclass(frozen=True)
class _Convolution:
    """The convolution that alone reads a layer's output.

    Args:
        node: its place in the graph.
        passed: what lies between and changes nothing.
        module: the convolution.
    """

    node: fx.Node
    passed: Sequence[fx.Node]
    module: nn.Conv2d

    def read(self, values: torch.Tensor, units: torch.Tensor | None = None) -> torch.Tensor:
        """What it makes of an output; of some units alone, without its bias."""
        conv = self.module
        weight, bias = (conv.weight, conv.bias) if units is None else (conv.weight[:, units], None)
        return functional.conv2d(values, weight, bias, conv.stride, conv.padding, conv.dilation)


def _reader(graph: fx.GraphModule, layer: fx.Node) -> _Convolution | None:
    """The convolution that alone reads a layer, over what changes nothing in eval mode; None where there is none."""
    passed: list[fx.Node] = []
    users = list(layer.users)
    while len(users) == 1 and users[0].op == "call_module":
        (node,) = users
        module = graph.get_submodule(str(node.target))
        if isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros":
            return _Convolution(node, passed, module)
        if not isinstance(module, nn.Dropout | nn.Dropout2d | nn.Identity):
            return None
        passed.append(node)
        users = list(node.users)
    return None


def _calls(graph: fx.GraphModule, node: fx.Node, target: nn.Module) -> bool:
    return node.op == "call_module" and graph.get_submodule(str(node.target)) is target


def _dependent(node: fx.Node) -> set[fx.Node]:
    """The nodes that depend on one."""
    found: set[fx.Node] = set()
    waiting = list(node.users)
    while waiting:
        user = waiting.pop()
        if user not in found:
            found.add(user)
            waiting += user.users
    return found


def _copied(value: object) -> object:
    """A value that may be changed in place."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    return type(value)(map(_copied, value)) if isinstance(value, list | tuple) else value
