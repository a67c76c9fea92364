"""Which objects are new or changed, and how they are cut into batches."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping

from image_analyzer.ports import DiscoverQuery, ObjectStore, StaleQuery, Warehouse
from image_analyzer.prices import Price, estimate_usd
from image_analyzer.prompts import PROMPT_VERSION
from image_analyzer.records import BatchRef, ManifestEntry, ObjectRef, Plan, Reason, Record, RunRequest, Steps
from image_analyzer.workarea import WorkArea, make_manifests, plan_batches

log = logging.getLogger(__name__)


class PlanOptions(Record):
    """How a plan is made.

    Attributes:
        most_batches: Airflow's `max_map_length`.
        replace_offline: Captions of the offline describer count as missing, since a real captioner is set now.
        price: Of the model; None if captions cost nothing.
        model, detail: What captions would be asked for with now; empty for the offline describer.
        hint_model: Name of the hint model; empty without one.
        half_price: The mode that captions are asked for in if they cost half; empty if they cost all.
        max_run_cost_usd: What the run may spend; None for any sum.
    """

    batch_size: int
    most_batches: int
    thumbnail_px: int
    replace_offline: bool
    price: Price | None
    model: str = ""
    detail: str = ""
    hint_model: str = ""
    half_price: str = ""
    max_run_cost_usd: float | None = None


def list_landing(store: ObjectStore, work: WorkArea, bucket: str, prefix: str) -> Iterator[ObjectRef]:
    """Yield the objects under a prefix, our own files left out."""
    own = work.root_uri + "/"
    return (obj for obj in store.list_objects(bucket, prefix) if not obj.uri.startswith(own))


def listing_mark(store: ObjectStore, work: WorkArea, bucket: str, prefix: str) -> str:
    """Return a digest of the listing: it differs when an object was added, replaced or deleted."""
    digest = hashlib.sha256()
    for obj in list_landing(store, work, bucket, prefix):
        digest.update(f"{obj.key}\0{obj.etag}\0{obj.last_modified_at.isoformat()}\n".encode())
    return digest.hexdigest()


def find_missing(
    store: ObjectStore, warehouse: Warehouse, work: WorkArea, request: RunRequest, *, replace_offline: bool
) -> tuple[int, list[ManifestEntry]]:
    """Return how many objects are listed, of the wanted days, and those that lack something, at most `request.limit`."""
    listed = 0

    def counted() -> Iterator[ObjectRef]:
        nonlocal listed
        for obj in list_landing(store, work, request.bucket, request.prefix):
            if request.concerns(obj.last_modified_at):
                listed += 1
                yield obj

    replace = replace_offline and request.steps is Steps.CAPTIONS
    query = DiscoverQuery(request.languages, request.steps, replace, request.limit)
    entries = warehouse.select_missing(counted(), query)
    return listed, entries


def find_stale(
    warehouse: Warehouse, request: RunRequest, options: PlanOptions
) -> tuple[list[ManifestEntry], Mapping[Reason, int]]:
    """Return pictures of IMAGE_RESULTS to run again, at most `request.limit`, and how many rows by reason."""
    query = StaleQuery(
        languages=request.languages,
        # Without a model nothing that a model wrote is stale.
        reasons=tuple(
            r for r in request.reprocess if options.model or r not in (Reason.MODEL, Reason.PROMPT, Reason.POLICY)
        ),
        prefix_uri=f"s3://{request.bucket}/{request.prefix.removeprefix('/')}",
        prompt_version=PROMPT_VERSION,
        model=options.model,
        detail=options.detail,
        hint_model=options.hint_model,
        from_day=request.from_day,
        to_day=request.to_day,
    )
    pictures = warehouse.select_stale(query)[: request.limit]
    return [picture.entry for picture in pictures], Counter(r for picture in pictures for r in picture.reasons)


def reason_notes(counts: Mapping[Reason, int], options: PlanOptions) -> list[str]:
    """Return one line for each reason: how many captions, and what they may cost at most."""
    notes = []
    for reason in Reason:
        if count := counts.get(reason, 0):
            usd = (
                0.0
                if reason is Reason.HINT or not options.price
                else estimate_usd(options.price, count, options.thumbnail_px)
            )
            only = " (checked again; only what breaks the new policy is asked for)" if reason is Reason.POLICY else ""
            notes.append(f"{reason}: {count} captions, at most ${usd:.4f}{only}")
    return notes


def empty_plan(request: RunRequest, options: PlanOptions) -> Plan:
    """Return the plan of a night in which `sense` saw nothing new."""
    return Plan(
        run_id=request.run_id,
        steps=request.steps,
        dry_run=request.dry_run,
        listed=0,
        images=0,
        captions=0,
        batch_size=options.batch_size,
        estimated_cost_usd=0.0,
        batches=(),
        notes=("no new pictures",),
    )


def discover(
    store: ObjectStore, warehouse: Warehouse, work: WorkArea, request: RunRequest, options: PlanOptions
) -> Plan:
    """Plan a run and write one manifest per batch; a dry run writes nothing."""
    notes: list[str] = []
    free = 0
    if request.reprocess:
        entries, counts = find_stale(warehouse, request, options)
        listed, free = len(entries), counts.get(Reason.HINT, 0)
        notes += reason_notes(counts, options)
    else:
        listed, entries = find_missing(store, warehouse, work, request, replace_offline=options.replace_offline)
    size, batches = plan_batches(entries, options.batch_size, options.most_batches)
    if size != options.batch_size:
        notes.append(f"BATCH_SIZE raised from {options.batch_size} to {size}: more than {options.most_batches} batches")
    refs = []
    for manifest in make_manifests(
        request.run_id, request.steps, batches, canaries=request.canaries, reprocess=bool(request.reprocess)
    ):
        uri = work.batch_uri(request.run_id, manifest.batch_id, "manifest.json")
        if not request.dry_run:
            store.write(uri, manifest.model_dump_json().encode(), "application/json")
        refs.append(BatchRef(batch_id=manifest.batch_id, uri=uri, images=len(manifest.entries)))
    pairs = sum(len(entry.languages) for entry in entries)
    captions = pairs - free if request.steps is Steps.CAPTIONS else 0
    most_usd = estimate_usd(options.price, captions, options.thumbnail_px) if options.price else 0.0
    if options.half_price and request.dry_run:
        notes.append(f"half of that, ${most_usd / 2:.4f}, as far as {options.half_price} answers")
    if options.max_run_cost_usd is not None and most_usd > options.max_run_cost_usd:
        notes.append(
            f"up to ${most_usd:.4f} is more than MAX_RUN_COST_USD={options.max_run_cost_usd:g}: what does not fit will wait"
        )
    plan = Plan(
        run_id=request.run_id,
        steps=request.steps,
        dry_run=request.dry_run,
        listed=listed,
        images=len(entries),
        captions=captions,
        batch_size=size,
        estimated_cost_usd=most_usd,
        batches=tuple(refs),
        notes=tuple(notes),
        reprocess=request.reprocess,
    )
    log.info(
        "plan: %d objects listed, %d to do in %d batches, %d captions, at most $%s",
        listed, plan.images, len(refs), captions, plan.estimated_cost_usd,
    )  # fmt: skip
    for note in notes:
        log.warning("plan: %s", note)
    return plan
