"""The DAG: every stage that an audit asks for, what each reads, and what its digest depends on."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.auditfile import DatasetModel, FinetuningModel, GraphModel, PartsModel, StabilityModel, TreeModel
from microtome.closure import Places, closure
from microtome.datasets import FORMATS, Frame, open_dataset
from microtome.errors import InputError, suggest
from microtome.networks.load import load_network
from storage import RunStore
from tasks.index import SUBSET
from tasks.stage import Job
from tasks.stages import STAGES

if TYPE_CHECKING:
    from flows.plan import Plan

Jobs = dict[str, Job]
LOOKED_AT = 50  # records that tell whether a data set has landmarks


def build(plan: Plan) -> Jobs:
    """Every job of the audit, by name."""
    audit = plan.audit
    jobs: Jobs = {}
    if audit.stages.dissection:
        jobs |= _dissection(plan)
    if audit.stages.finetuning:
        jobs |= _finetuning(plan, audit.stages.finetuning)
    if audit.stages.stability:
        jobs |= _stability(plan, audit.stages.stability, jobs)
    if audit.stages.tree:
        jobs |= _tree(plan, audit.stages.tree, jobs)
    if audit.stages.graph:
        jobs |= _graph(plan, audit.stages.graph)
    if audit.stages.parts:
        jobs |= _parts(plan, audit.stages.parts, jobs)
    for name in ("saliency", "reliability", "features", "occlusion", "adversarial"):
        options = getattr(audit.stages, name)
        if options:
            jobs |= _pictures(plan, name, options, jobs)
    if audit.gates:
        if "dissection" not in jobs:
            raise InputError("gates: need stages.dissection, got none")
        jobs["gates"] = _gates(plan, jobs["dissection"])
    if not jobs:
        raise InputError("stages: must ask for at least one stage, got none")
    if audit.stages.report:
        jobs["report"] = _report(plan, jobs)
    return jobs


def _dissection(plan: Plan) -> Jobs:
    options = plan.audit.stages.dissection
    if options is None:
        return {}
    index, activations = _seen(plan, options.dataset, "stages.dissection.dataset")
    seen = {"index": index, "activations": activations}
    reach = activations.reach
    thresholds = _thresholds(plan, index, activations)
    lighting = {"tail": options.tail, "align": options.align, "inclusive": options.inclusive}
    all_images = {"all_images": options.denominator == "all-images"}
    seen = {**seen, "thresholds": thresholds}
    tally = Job(STAGES["tally"], {**lighting, **all_images}, seen, reach=reach)
    seen = {**seen, "tally": tally}
    chance = {"permutations": options.permutations, "seed": plan.audit.seed}
    jobs = [index, activations, thresholds, tally]
    if options.permutations:
        null = Job(STAGES["null"], {**lighting, **all_images, **chance}, seen, reach=reach)
        seen = {**seen, "null": null}
        jobs.append(null)
    summary = {"tail": options.tail, "min_iou": options.min_iou, "bootstrap": options.bootstrap}
    jobs.append(Job(STAGES["dissection"], {**summary, **all_images, **chance}, seen, reach=reach))
    return _named(*jobs)


def _stability(plan: Plan, options: StabilityModel, jobs: Mapping[str, Job]) -> Jobs:
    """Of the audit's network; and before and after fine-tuning, on the images that it did not train on."""
    index, activations = _seen(plan, options.dataset, "stages.stability.dataset")
    landmarks = Job(STAGES["landmarks"], inputs={"index": index}, reach=index.reach, variant=index.variant)
    parameters = {**options.model_dump(exclude={"dataset"}), "seed": plan.audit.seed}
    seen = {"index": index, "landmarks": landmarks, "activations": activations}
    found = [index, landmarks, activations, Job(STAGES["stability"], parameters, seen, reach=activations.reach)]
    tuning = plan.audit.stages.finetuning
    if tuning and tuning.dataset == options.dataset:
        before = {**seen, "split": jobs["finetuning"]}
        found.append(Job(STAGES["stability"], parameters, before, reach=activations.reach, variant="before"))
        for job in (job for job in jobs.values() if job.stage.name == "finetuning"):
            phase = job.variant or "interpretable"
            tuned = _activations(plan, index, finetuned=job, variant=phase)
            inputs = {"index": index, "landmarks": landmarks, "activations": tuned, "split": job}
            found += [tuned, Job(STAGES["stability"], parameters, inputs, reach=tuned.reach, variant=phase)]
    return _named(*found)


def _pictures(plan: Plan, name: str, options: Any, others: Mapping[str, Job]) -> Jobs:
    """A stage that looks at pictures; those that look at units too read the maps and the top images."""
    index = _index(plan, options.dataset, f"stages.{name}.dataset")
    parameters = {**options.model_dump(exclude={"dataset"}), "seed": plan.audit.seed, "device": plan.device}
    reach = {**index.reach, **_network_reach(plan)}
    if name in ("saliency", "reliability"):
        return _named(index, Job(STAGES[name], parameters, {"index": index}, _network_content(plan), reach))
    activations = _activations(plan, index, variant=index.variant)
    inputs = {"index": index, "activations": activations}
    jobs = [index, activations]
    if name in ("features", "occlusion"):
        inputs["thresholds"] = _thresholds(plan, index, activations)
    else:
        inputs |= _explained(plan, options.dataset, others)
    jobs += list(inputs.values())
    return _named(*jobs, Job(STAGES[name], parameters, inputs, _network_content(plan), reach))


def _explained(plan: Plan, dataset: str, jobs: Mapping[str, Job]) -> Jobs:
    """What the audit knows of this network on the same pictures: an attack is looked at through it."""
    stages = plan.audit.stages
    found: Jobs = {}
    if stages.dissection and stages.dissection.dataset == dataset:
        found |= {needed: jobs[needed] for needed in ("thresholds", "dissection")}
    if stages.tree and not stages.finetuning and stages.tree.dataset == dataset:
        found["tree"] = jobs["tree"]
    if stages.graph and stages.graph.dataset == dataset:
        found["graph"] = jobs["graph"]
    return found


def _thresholds(plan: Plan, index: Job, activations: Job) -> Job:
    options = plan.audit.stages.dissection
    keep = max(0.01, options.tail if options else 0.0)
    inputs = {"index": index, "activations": activations}
    return Job(STAGES["thresholds"], {"keep": keep}, inputs, reach=activations.reach, variant=index.variant)


def _finetuning(plan: Plan, options: FinetuningModel) -> Jobs:
    """The interpretable network, and its controls: the same without the loss, with and without the mask."""
    inputs, reach = _two_sets(plan, options.dataset, options.negatives, "stages.finetuning")
    model = plan.audit.network
    shared = options.model_dump(exclude={"dataset", "negatives", "controls", "strength", "mask"})
    shared |= {
        "backbone": model.load,
        "arguments": model.arguments,
        "size": list(model.input.size),
        "seed": plan.audit.seed,
        **_arithmetic(plan),
    }
    reach |= {"weights": model.weights}
    mask = options.mask.model_dump() if options.mask else None
    jobs = [*inputs.values()]
    for variant, strength, masked in (
        ("", options.strength, mask),
        ("twin", 0.0, mask),
        ("plain", 0.0, None),
    ):
        if not variant or variant in options.controls:
            parameters = {**shared, "strength": strength, "mask": masked}
            jobs.append(Job(STAGES["finetuning"], parameters, inputs, _network_content(plan), reach, variant))
    return _named(*jobs)


def _tree(plan: Plan, options: TreeModel, jobs: Mapping[str, Job]) -> Jobs:
    """Of the fine-tuned network on the pictures that it saw and did not see, or of the audit's own."""
    tuning = plan.audit.stages.finetuning
    if tuning and (options.dataset, options.negatives) not in (("main", None), (tuning.dataset, tuning.negatives)):
        raise InputError("stages.tree.dataset, negatives: are those of finetuning, got others; leave them out")
    dataset, negatives = (tuning.dataset, tuning.negatives) if tuning else (options.dataset, options.negatives)
    inputs, reach = _two_sets(plan, dataset, negatives, "stages.tree")
    needed = list(inputs.values())
    content = {} if tuning else _network_content(plan)
    category = options.category or (tuning.category if tuning else None)
    if tuning:
        inputs = {**inputs, "finetuned": jobs["finetuning"]}
    elif plan.audit.stages.dissection:
        inputs = {**inputs, "dissection": jobs["dissection"]}
    layer = options.layer or ("extra_mask" if tuning else _only_layer(plan))
    parameters = {
        **options.model_dump(exclude={"dataset", "negatives"}),
        "category": category,
        "layer": layer,
        "seed": plan.audit.seed,
        "folds": 5,
        "fold": 0,
        **_arithmetic(plan),
    }
    return _named(*needed, Job(STAGES["tree"], parameters, inputs, content, reach))


def _graph(plan: Plan, options: GraphModel) -> Jobs:
    index, activations = _seen(plan, options.dataset, "stages.graph.dataset")
    inputs = {"index": index, "activations": activations, **_landmarks(index)}
    parameters = {**options.model_dump(exclude={"dataset"}), "seed": plan.audit.seed, **_arithmetic(plan)}
    return _named(*inputs.values(), Job(STAGES["graph"], parameters, inputs, reach=activations.reach))


def _parts(plan: Plan, options: PartsModel, jobs: Mapping[str, Job]) -> Jobs:
    """Of units, and of the graph's nodes where there is a graph of the same pictures."""
    index, activations = _seen(plan, options.dataset, "stages.parts.dataset")
    inputs = {"index": index, "activations": activations, **_landmarks(index)}
    graph = plan.audit.stages.graph
    if graph and (graph.dataset, graph.category) == (options.dataset, options.category):
        inputs["graph"] = jobs["graph"]
    parameters = {**options.model_dump(exclude={"dataset"}), "seed": plan.audit.seed, **_arithmetic(plan)}
    return _named(*inputs.values(), Job(STAGES["parts"], parameters, inputs, reach=activations.reach))


def _landmarks(index: Job) -> Jobs:
    """The landmarks of a data set; nothing where it has none."""
    dataset = index.reach["dataset"]()
    if not any(dataset.landmarks(number) for number in range(min(len(dataset.records), LOOKED_AT))):
        return {}
    return {"landmarks": Job(STAGES["landmarks"], inputs={"index": index}, reach=index.reach, variant=index.variant)}


def _only_layer(plan: Plan) -> str:
    layers = plan.audit.network.layers
    if len(layers) != 1 or any(sign in layers[0] for sign in "*?["):
        raise InputError(f"stages.tree.layer: must name one layer, got {', '.join(layers)} under network.layers")
    return layers[0]


def _two_sets(plan: Plan, dataset: str, negatives: str | None, key: str) -> tuple[Jobs, dict[str, Any]]:
    """Indices of a data set and of what it is told from, and how to reach them and the network."""
    inputs = {"index": _index(plan, dataset, f"{key}.dataset")}
    reach = {**_network_reach(plan), **inputs["index"].reach}
    if negatives:
        inputs["negatives"] = _index(plan, negatives, f"{key}.negatives")
        reach |= {f"negatives_{name}": inputs["negatives"].reach[name] for name in ("dataset", "frame")}
    return inputs, reach


def _arithmetic(plan: Plan) -> dict[str, Any]:
    """What decides how sums round: the device, and on a CPU the threads that they are split over."""
    return {"device": plan.device, "threads": plan.threads if plan.device == "cpu" else 0}


def _named(*jobs: Job) -> Jobs:
    return {job.name: job for job in jobs}


def _seen(plan: Plan, dataset: str, key: str) -> tuple[Job, Job]:
    """A data set's index, and the network's maps of it."""
    index = _index(plan, dataset, key)
    return index, _activations(plan, index, variant=index.variant)


def _activations(plan: Plan, index: Job, *, finetuned: Job | None = None, variant: str = "") -> Job:
    """Maps of the audit's layers; of a fine-tuned network, of its two interpretable layers."""
    execution = plan.audit.execution
    inputs = {"index": index} if finetuned is None else {"index": index, "finetuned": finetuned}
    subset = {name: index.parameters[name] for name in SUBSET if name in index.parameters}
    layers = plan.audit.network.layers if finetuned is None else ["top_map", "extra_map"]
    parameters = {"layers": layers, "precision": execution.precision, "device": plan.device, **subset}
    reach = {
        **index.reach,
        **_network_reach(plan),
        "shard_images": execution.shard_images,
        "compression": execution.storage,
    }
    content = _network_content(plan) if finetuned is None else {}
    return Job(STAGES["activations"], parameters, inputs, content, reach, variant)


def _network_reach(plan: Plan) -> dict[str, Any]:
    scale = plan.audit.network.input.model_dump()
    return {"network": partial(load_network, plan.network), "input": scale, "root": plan.base}


def _network_content(plan: Plan) -> dict[str, str]:
    scale = plan.audit.network.input
    return {
        "network": plan.network.digest(plan.digests.of),
        "scale": json.dumps([scale.mean, scale.std]),
        "torch": importlib.metadata.version("torch"),
    }


def _index(plan: Plan, name: str, key: str) -> Job:
    """The index of a data set: one job, however many stages read it; a data set is opened and hashed once."""
    if name not in plan.indices:
        plan.indices[name] = _new_index(plan, name, key)
    return plan.indices[name]


def _new_index(plan: Plan, name: str, key: str) -> Job:
    named = plan.audit.named_datasets
    if name not in named:
        raise InputError(f"{key}: no data set {name!r}{suggest(name, list(named))}")
    model = named[name]
    size = plan.audit.network.input
    frame = Frame(size.size, size.resize, model.crop, model.crop_margin, model.mask_size)
    root = plan.base / model.root if model.root else None
    opener = partial(open_dataset, model.format, root, model.options, base=plan.base)
    subset = {"split": model.split, "limit": model.limit}
    if model.categories is not None:
        subset["categories"] = model.categories
    parameters = {"frame": [frame.size, frame.resize, frame.crop, frame.margin, frame.masks], **subset}
    content = {"dataset": _dataset_digest(plan, model, root, opener)}
    reach = {"dataset": opener, "frame": frame}
    return Job(STAGES["index"], parameters, content=content, reach=reach, variant="" if name == "main" else name)


def _dataset_digest(plan: Plan, model: DatasetModel, root: Path | None, opener: Any) -> str:
    """Digest of a data set by content: its files, its options, and the code of its format."""
    code = closure([FORMATS.get(model.format, model.format)], Places(user=plan.base)).digest
    digest = hashlib.sha256(json.dumps([model.format, code, model.options], sort_keys=True, default=str).encode())
    for file in opener().files():
        name = file.relative_to(root).as_posix() if root and file.is_relative_to(root) else file.name
        digest.update(f"{name}\0{plan.digests.of(file)}\0".encode())
    return digest.hexdigest()


def _gates(plan: Plan, dissection: Job) -> Job:
    gates = [gate.model_dump() for gate in plan.audit.gates]
    folder = _baseline(plan) if any(gate["max_drop"] for gate in gates) else None
    content = {"baseline": folder or "none"}
    return Job(STAGES["gates"], {"gates": gates}, {"dissection": dissection}, content, {"baseline_folder": folder})


def _baseline(plan: Plan) -> str | None:
    """The dissection of the run to compare with: the named one, else the last of the same audit."""
    named = {gate.baseline for gate in plan.audit.gates if gate.baseline}
    if len(named) > 1:
        raise InputError(f"gates.baseline: must be one run for all gates, got {', '.join(sorted(named))}")
    run_id = next(iter(named), None)
    run = RunStore(plan.files).find(run_id or plan.audit.name)
    if run is None and run_id:
        raise InputError(f"gates.baseline: no run {run_id!r} in this workspace; see `microtome runs`")
    stage = run.stages.get("dissection") if run else None
    return str(stage["folder"]) if stage else None


def _report(plan: Plan, jobs: Mapping[str, Job]) -> Job:
    options = plan.audit.stages.report
    if options is None:
        raise InputError("stages.report: is not asked for")
    audit = plan.audit.model_dump(mode="json", exclude={"execution", "workspace"}, exclude_none=True)
    reach = {name: job.reach for name, job in jobs.items()}
    return Job(STAGES["report"], {"top_images": options.top_images, "audit": audit}, dict(jobs), reach=reach)
