"""Kill a command at a system call or at any time, look at the library as a person would, and go on.

After a kill, each look has a copy of the library of its own, so that none heals what the next one checks.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.faults import strace
from tests.faults.fork_server import Done, ForkServer
from tests.faults.power_cut import cut_power
from tests.faults.scenarios import Home, Scenario
from tests.faults.truth import Truth, wrong_hits

K = 5
FEW = 5
"""A call that is made this often at most is tried at each of its times; rarer calls are the delicate ones."""


@dataclass(frozen=True)
class Kill:
    """When to kill.

    Attributes:
        call: The system call, before it is done; empty for a time.
        number: Which of these calls, from 1.
        seconds: After the start.
        power: Whether what was not synced by then is lost, too.
    """

    call: str = ""
    number: int = 0
    seconds: float = 0.0
    power: bool = False

    def __str__(self) -> str:
        when = f"{self.call} number {self.number}" if self.call else f"{self.seconds:.3f} s"
        return f"{when}{', power cut' if self.power else ''}"


@dataclass
class Tally:
    """What the kills came to.

    Attributes:
        kills: Those that hit.
        late: Commands that ended before their kill.
        faults: What was wrong, one sentence each.
        seconds: What it took.
    """

    kills: Counter[str] = field(default_factory=Counter)
    late: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Target:
    """A scenario with the library before, how often its command makes each call, and the library after."""

    def __init__(self, scenario: Scenario, folder: Path, server: ForkServer, patches: Sequence[str]) -> None:
        """Run the command once, undisturbed.

        Args:
            scenario: What is interrupted.
            folder: For photos and libraries.
            server: Runs the commands.
            patches: See `broken_variants`; those of the command and all that follow.
        """
        self.scenario, self.server = scenario, server
        self.home = Home(folder, server, tuple(patches))
        scenario.prepare(self.home)
        self.command = scenario.command(self.home)
        self.before = Truth.of(self.copy("truth"))
        self.trial = folder / "trial"
        self.restore()
        started = time.monotonic()
        log = folder / "strace.log"
        server.start(self.command, self.environment(), patches=patches, traced=True)
        with strace.attached(server.pid, ["-e", "trace=" + ",".join((*strace.WRITING, "openat"))], log):
            done = server.wait()
        assert done.code == 0, done.err
        self.seconds = time.monotonic() - started
        self.log = log.read_text("utf-8", "replace")
        self.calls = strace.calls(self.log)
        self.after = Truth.of(self.trial)

    def kills(self, count: int, seed: int) -> Iterator[Kill]:
        """Spread kills over the calls and over the time of the command.

        Args:
            count: How many.
            seed: Of what is drawn.
        """
        draw = random.Random(f"{seed} {self.scenario.name} {self.home.patches}")
        points = [
            Kill(call, n)
            for call, times in self.calls.items()
            if call in strace.WRITING
            for n in range(1, times + 1)
        ]
        rare = [kill for kill in points if self.calls[kill.call] <= FEW or kill.call != "pwrite64"]
        often = [kill for kill in points if kill not in rare]
        draw.shuffle(rare)
        draw.shuffle(often)
        for number in range(count):
            if number % 5 == 4:
                yield Kill(seconds=draw.uniform(0, self.seconds))
            else:
                pool = rare if number % 2 and rare else often or rare
                kill = pool.pop() if pool else draw.choice(points)
                yield replace(kill, power=number % 3 == 0)

    def strike(self, kill: Kill, tally: Tally, breaking: Sequence[str] = ()) -> None:
        """Kill the command once, and record what was wrong afterwards.

        Args:
            kill: When.
            tally: Where it is counted.
            breaking: Broken variants of the command that is killed.
        """
        self.restore()
        if not self._kill(kill, breaking):
            tally.late += 1
            return
        tally.kills[self.scenario.name] += 1
        name = f"{self.scenario.name} ({'DELETE' if self.home.patches else 'WAL'}), {kill}"
        tally.faults += [f"{name}: {fault}" for fault in [*self.looks(), *self.goes_on()]]

    def _kill(self, kill: Kill, breaking: Sequence[str]) -> bool:
        patches = [*self.home.patches, *breaking]
        log = self.trial.with_suffix(".log")
        self.server.start(self.command, self.environment(), patches=patches, traced=bool(kill.call))
        if kill.call:
            options = ["-e", f"inject={kill.call}:signal=KILL:when={kill.number}"]
            traced = ",".join((*strace.WRITING, "openat")) if kill.power else kill.call
            with strace.attached(self.server.pid, ["-e", f"trace={traced}", *options], log):
                done = self.server.wait()
        else:
            time.sleep(kill.seconds)
            os.kill(self.server.pid, signal.SIGKILL)
            done = self.server.wait()
        if kill.power and done.code == -signal.SIGKILL:
            cut_power(log, self.trial)
        return done.code == -signal.SIGKILL

    def looks(self) -> Iterator[str]:
        """What a person's next command says, each in a library as the kill left it."""
        truth = Truth.of(self.copy("truth", self.trial))
        yield from self._lost(truth)
        yield from self._look("status", ["status"])
        yield from self._look("check", ["check"])
        query = next(filter(truth.is_as_on_disk, truth.searchable()), None)
        if query is not None:
            done = self._run_on_copy("search", ["search", query, "--json", "-k", str(K)])
            yield from complaints("search", done)
            if done.code == 0:
                yield from wrong_hits(truth, query, done.json["hits"], K)

    def _lost(self, truth: Truth) -> Iterator[str]:
        """Photos and vectors that are neither as before nor as after."""
        for path in self.before.photos.keys() | self.after.photos.keys():
            now = truth.photos.get(path)
            allowed = (self.before.photos.get(path), self.after.photos.get(path))
            # A moved photo's row may be called missing before it is found elsewhere.
            if now not in allowed:
                yield f"{path} is {now}, and not one of {allowed}"
        if truth.spaces:
            lacking = {digest for digest, _ in truth.photos.values()} - {
                digest for space, digest in truth.vectors if space == truth.spaces[0]
            }
            without = {digest for digest, _ in self.after.photos.values()} - {
                digest for space, digest in self.after.vectors if space == truth.spaces[0]
            }
            if lacking - without:
                yield f"{len(lacking - without)} contents have no vector"

    def goes_on(self) -> Iterator[str]:
        """Whether the same command comes to the end that it would have come to."""
        done = self._run(self.command, self.trial)
        if done.code:
            yield f"the same command again ends with {done.code}: {done.err[-300:]}"
            return
        yield from complaints("the same command again", done)
        yield from Truth.of(self.copy("truth", self.trial)).differences(self.after)
        done = self._run(["check"], self.trial)
        if done.code:
            yield f"check at the end: {done.out[-300:]}{done.err[-300:]}"

    def _look(self, name: str, arguments: Sequence[str]) -> Iterator[str]:
        yield from complaints(name, self._run_on_copy(name, arguments))

    def _run_on_copy(self, name: str, arguments: Sequence[str]) -> Done:
        return self._run(arguments, self.copy(name, self.trial))

    def _run(self, arguments: Sequence[str | os.PathLike[str]], library: Path) -> Done:
        environment = self.home.environment(library)
        return self.server.run(arguments, environment, patches=self.home.patches)

    def environment(self) -> dict[str, str]:
        """Variables of the command that is disturbed."""
        return self.home.environment(self.trial)

    def restore(self) -> None:
        """Put the library before the command into `trial`."""
        for folder in (self.trial, self.trial.with_suffix(".cache")):
            shutil.rmtree(folder, ignore_errors=True)
        if self.home.library.exists():
            shutil.copytree(self.home.library, self.trial)

    def copy(self, name: str, library: Path | None = None) -> Path:
        """Copy a library, so that a look at it changes nothing.

        Args:
            name: Of the copy.
            library: Its folder; None is the library before.
        """
        source, copy = library or self.home.library, self.home.folder / f"copy-{name}"
        shutil.rmtree(copy, ignore_errors=True)
        if source.exists():
            shutil.copytree(source, copy)
        return copy


def complaints(name: str, done: Done) -> Iterator[str]:
    """What is wrong with how a command ended. That a library is empty yet is no fault."""
    said = done.out + done.err
    if "Traceback" in said or done.code not in (0, 1):
        yield f"{name} ends with {done.code}: {said[-600:]}"
    elif "locked" in said or "unable to open" in said:
        yield f"{name} is locked out: {said[-900:]}"
    elif done.code == 1 and "has no photos yet" not in said:
        yield f"{name} ends with 1: {said[-900:]}"


def strike_all(targets: Sequence[Target], count: int, seed: int = 0) -> Tally:
    """Spread `count` kills over all targets.

    Args:
        targets: The scenarios.
        count: How many kills.
        seed: Of what is drawn.
    """
    tally = Tally()
    started = time.monotonic()
    rounds = [target.kills(10 * count, seed) for target in targets]
    for number in itertools.count():
        for target, kills in zip(targets, rounds, strict=True):
            if sum(tally.kills.values()) == count:
                tally.seconds = time.monotonic() - started
                return tally
            if number % target.scenario.every == 0:
                target.strike(next(kills), tally)
    raise AssertionError("never reached")
