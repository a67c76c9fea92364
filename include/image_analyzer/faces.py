"""Assembly for people's faces: one picture at a time, quick answers, sessions that are kept open."""

from __future__ import annotations

import importlib
from typing import NamedTuple

from image_analyzer import wiring
from image_analyzer.clients.folder_store import FolderStore
from image_analyzer.clients.held_store import hold_picture
from image_analyzer.clients.shared_warehouse import SharedWarehouse
from image_analyzer.clients.snowflake_desk import SnowflakeDesk
from image_analyzer.clients.snowflake_session import TIMEOUTS_OF_FACES, Connect, pooled
from image_analyzer.guardrails import check_caption
from image_analyzer.ports import Captioner, ObjectStore, ReviewDesk
from image_analyzer.settings import Settings
from image_analyzer.steps.ledger import Ledger
from image_analyzer.steps.upload import DeskTools
from image_analyzer.workarea import WorkArea

_SESSIONS = 8
_LOOK_AGAIN_S = 0.3
_LOADED_WHEN_ASKED = ("openai", "pandas", "snowflake.connector.pandas_tools")


class Faces(NamedTuple):
    """What a face works with.

    Attributes:
        desk: None where no warehouse is set.
    """

    tools: DeskTools
    desk: ReviewDesk | None


def make_faces(settings: Settings) -> Faces:
    """Build everything once per process; clients connect when they are asked something.

    Raises:
        ConfigurationError: A setting is missing or wrong.
    """
    connect = None
    if settings.snowflake_account:
        connect = pooled(wiring.make_connect(settings, **TIMEOUTS_OF_FACES), _SESSIONS)
    return Faces(make_tools(settings, connect), SnowflakeDesk(connect) if connect else None)


def warm_up(settings: Settings) -> None:
    """Load what the first picture would wait seconds for: libraries of clients, the contract's rules of each language."""
    for name in _LOADED_WHEN_ASKED:
        importlib.import_module(name)
    for language in settings.caption_languages:
        check_caption("A cat sleeps on a chair.", language)


def make_tools(settings: Settings, connect: Connect | None) -> DeskTools:
    """Build what single pictures are captioned with: into the bucket and the table where they are set.

    The hint model is loaded once, the captioner built anew for each picture: its client belongs to one event loop.

    Args:
        connect: Opens sessions of the warehouse; None where there is none.
    """
    store = wiring.make_store(settings) if settings.s3_bucket else None
    kept: ObjectStore = store or FolderStore(settings.local_stack_dir / "ledger")
    work = wiring.make_work_area(settings) if store else WorkArea("s3://local/adhoc")

    waits = {"look_again_s": _LOOK_AGAIN_S, "wait_for_others_s": settings.openai_timeout_s}

    def make_owned(owner: str) -> Captioner:
        captioner = wiring.make_captioner(settings)
        return wiring.with_caps(settings, captioner, kept, root_uri=work.root_uri, run_uri=None, owner=owner)

    return DeskTools(
        store=store,
        bucket=settings.s3_bucket,
        kept=kept,
        work=work,
        ledger=Ledger(kept, work, wiring.stale_claim_s(settings)),
        warehouse=SharedWarehouse(connect) if connect else None,
        captioner=make_owned,
        adopter=lambda: wiring.make_adopter(settings, kept),
        hint_model=wiring.make_hint_model(settings),
        prepare=wiring.prepare_options(settings),
        options=wiring.caption_options(settings).model_copy(update=waits),
        hold=hold_picture,
    )
