"""The order of a graph's nodes, and their domains: ONNX is strict, ONNX Runtime runs files that are not.

Tools that insert nodes append them at the end (onnxconverter-common's conversion to half precision does).
"""

import heapq

import onnx


def reads(node: onnx.NodeProto) -> tuple[str, ...]:
    """Return the inputs by name, and the tensors that graphs inside the node capture."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in _bodies(attribute):
            names += _captured(graph)
    return tuple(names)


def sort_nodes(graph: onnx.GraphProto) -> list[int] | None:
    """Sort the nodes of a graph, and of the graphs inside them, so that each follows what it reads.

    Nodes keep their order where it allows that; those of a circle are left as they are, for the reader to refuse.

    Returns
    -------
    list of int or None
        The former index of every node; None where nothing moved.
    """
    for node in graph.node:
        for attribute in node.attribute:
            for body in _bodies(attribute):
                sort_nodes(body)
    order = _topological_order(graph)
    if order is None or order == list(range(len(graph.node))):
        return None
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes[index] for index in order)
    return order


def unify_domains(graph: onnx.GraphProto) -> None:
    """Let every node of ONNX's own domain name it as the empty text, which is the only name that the checker knows."""
    for node in graph.node:
        if node.domain == "ai.onnx":
            node.domain = ""
        for attribute in node.attribute:
            for body in _bodies(attribute):
                unify_domains(body)


def _topological_order(graph: onnx.GraphProto) -> list[int] | None:
    """Return the nodes in an order in which each follows what it reads; None where a circle allows none."""
    producer = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    before = [{producer[name] for name in reads(node) if name in producer} for node in graph.node]
    # Nearly every file is in order, which one look at each node shows.
    if all(max(sources, default=-1) < index for index, sources in enumerate(before)):
        return list(range(len(before)))
    after: dict[int, list[int]] = {}
    for index, sources in enumerate(before):
        for source in sources:
            after.setdefault(source, []).append(index)
    waiting = [len(sources) for sources in before]
    # A heap keeps the order of the file among the nodes that could be next.
    ready = [index for index, count in enumerate(waiting) if count == 0]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in after.get(index, ()):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, reader)
    return order if len(order) == len(before) else None


def _bodies(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    return ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)


def _captured(graph: onnx.GraphProto) -> list[str]:
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    names = [name for node in graph.node for name in reads(node)] + [value.name for value in graph.output]
    return [name for name in names if name not in own]
