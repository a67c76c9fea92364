"""Before and beside a run's questions: does the server see, and what do test pictures make of the model."""

from __future__ import annotations

import logging

from image_analyzer.canaries import PROOF_LANGUAGE, calls_it_red, canaries, check_canary, red_square
from image_analyzer.captions import add_usage
from image_analyzer.errors import FatalError, ItemError, RetryableError
from image_analyzer.ports import Captioner, ObjectStore
from image_analyzer.prompts import CaptionRequest
from image_analyzer.records import Record, Usage
from image_analyzer.steps.asking import make_key
from image_analyzer.workarea import run_file_uri, sibling_uri

log = logging.getLogger(__name__)


class Proof(Record):
    """What test pictures showed, and what asking cost. Kept, so that a retry does not ask again.

    Attributes:
        asked_by: The manifest of the batch that asked and is billed for it.
    """

    asked_by: str
    problems: tuple[str, ...] = ()
    usage: Usage = Usage()


async def prove_sight(store: ObjectStore, manifest_uri: str, captioner: Captioner) -> Usage:
    """Have a server that is not known to see name the colour of a red square, once a run.

    Raises:
        FatalError: It does not: its captions would be inventions.
    """
    uri = run_file_uri(manifest_uri, "sight.json")
    if captioner.proven:
        return Usage()
    if content := store.read(uri):
        proof = Proof.model_validate_json(content)
        return proof.usage if proof.asked_by == manifest_uri else Usage()
    request = CaptionRequest(key=make_key("red-square", PROOF_LANGUAGE, captioner), thumbnail=red_square())
    answer = await captioner.caption(request)
    if not calls_it_red(answer):
        said = answer.text or answer.refusal or "nothing"
        raise FatalError(
            f"{captioner.model} does not see: shown a red square it said {said[:120]!r}. Check that the server at "
            "OPENAI_BASE_URL runs a vision model and takes images; OPENAI_PROBE=false skips this question"
        )
    store.write(uri, Proof(asked_by=manifest_uri, usage=answer.usage).model_dump_json().encode(), "application/json")
    return answer.usage


async def fly_canaries(store: ObjectStore, manifest_uri: str, captioner: Captioner, language: str) -> Proof:
    """Caption the test pictures and say what is wrong with the answers, once a batch."""
    uri = sibling_uri(manifest_uri, "canaries.json")
    if content := store.read(uri):
        return Proof.model_validate_json(content)
    problems: list[str] = []
    usage = Usage()
    for canary in canaries():
        key = make_key(f"canary-{canary.name}", language, captioner)
        try:
            answer = await captioner.caption(CaptionRequest(key=key, thumbnail=canary.jpeg))
        except (ItemError, RetryableError) as error:
            problems.append(f"canary “{canary.name}” has no answer: {error}")
            continue
        usage = add_usage(usage, answer.usage)
        if problem := check_canary(canary, answer, language):
            problems.append(problem)
    proof = Proof(asked_by=manifest_uri, problems=tuple(problems), usage=usage)
    store.write(uri, proof.model_dump_json().encode(), "application/json")
    log.info("canaries: %s", "; ".join(problems) or "all answered well")
    return proof
