"""What plan, run and check do and print."""

import argparse
import sys

from convserve_scoring.errors import InputError
from convserve_scoring.progress import Progress

#: Failed shards, and the like, that are named.
_MOST_NAMED = 20

#: Exit status where not every image has its row, once.
INCOMPLETE = 3


def plan(options: argparse.Namespace) -> int:
    """Makes a plan; returns the exit status."""
    from convserve_scoring.planning import MAX_IMAGES, Request, make_plan

    if not 1 <= options.shard_images <= MAX_IMAGES:
        raise InputError(
            f"--shard-images: expected 1 to {MAX_IMAGES:,}, got {options.shard_images:,}"
        )
    request = Request(
        source=options.source,
        target=options.target,
        model=options.model,
        shard_images=options.shard_images,
        path_column=options.path_column,
        bytes_column=options.bytes_column,
        device=options.device,
        batch=options.batch,
        hang_s=options.hang_s,
    )
    made = make_plan(request, lambda line: print(f"convserve-score: {line}", file=sys.stderr))
    print(
        f"{_count(made.images, 'image')} in {_count(len(made.shards), 'shard')}, to be scored by "
        f"{made.model.name} version {made.model.version}; next: convserve-score run "
        f"{options.target}"
    )
    return 0


def run(options: argparse.Namespace) -> int:
    """Scores; returns the exit status."""
    from convserve_scoring import running
    from convserve_scoring.work import Result, State

    if options.of < 1 or not 0 <= options.index < options.of:
        raise InputError(
            f"--index: expected 0 to {max(0, options.of - 1)} for --of {options.of}, "
            f"got {options.index}"
        )
    share = running.share_of(options.target, options.index, options.of)
    again = f"a shard is begun {share.plan.max_attempts} times at the most"
    progress = Progress(share.images, share.images_there)

    def report(result: Result) -> None:
        if result.state in (State.DONE, State.THERE):
            progress.add(result.images, result.bad)
        elif result.state is State.AGAIN:
            progress.say(f"convserve-score: {result.shard}: {result.error}; {again}")

    try:
        outcome = running.run(
            options.target,
            share,
            options.engine,
            report,
            workers=options.workers,
            address=options.address,
            retry_failed=options.retry_failed,
        )
    except KeyboardInterrupt:
        progress.say("convserve-score: stopped; go on with the same command")
        raise
    finally:
        progress.close()
    print(
        f"{_count(outcome.done, 'shard')} with {_count(outcome.images, 'image')} scored, "
        f"{outcome.bad:,} of them with an error; {outcome.there:,} done before, "
        f"{len(outcome.failed):,} failed"
    )
    _name(f"failed after {share.plan.max_attempts} attempts", outcome.failed)
    return INCOMPLETE if outcome.failed else 0


def check(options: argparse.Namespace) -> int:
    """Compares the rows with the plan; returns the exit status."""
    from convserve_scoring.checking import check as compare

    found = compare(options.target)
    print(
        f"whole shards: {found.done:,} of {found.shards:,}; images planned: {found.images:,}; "
        f"rows with an error: {found.bad:,}"
    )
    if found.lost or found.repeated:
        print(f"in the others {found.lost:,} rows are lost, {found.repeated:,} repeated")
    _name("not scored yet", dict.fromkeys(found.missing, ""))
    _name("failed", found.failed)
    _name("not what was planned", found.wrong)
    _name("rows of no shard", dict.fromkeys(found.strange, ""))
    return 0 if found.whole else INCOMPLETE


def _name(what: str, names: dict[str, str]) -> None:
    if not names:
        return
    print(f"{what}: {len(names):,}")
    for name, why in list(names.items())[:_MOST_NAMED]:
        print(f"  {name}: {why}" if why else f"  {name}")
    if len(names) > _MOST_NAMED:
        print(f"  and {len(names) - _MOST_NAMED:,} more")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
