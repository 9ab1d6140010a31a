"""Look-up of specs by name, with the error that the user needs when a name is not there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from bench.contracts.specs import BackboneSpec, Spec, StrategySpec
from bench.errors import UserError, did_you_mean

SpecT = TypeVar("SpecT", bound=Spec)


class Registry(Generic[SpecT]):
    """The specs of one kind.

    Attributes:
        unusable: names that a plugin claimed and that cannot be used, with the reason.
        failures: the plugins that failed, each with its error.
    """

    def __init__(self, kind: type[SpecT], listing: str) -> None:
        self.kind = kind
        self.listing = listing
        self.unusable: dict[str, str] = {}
        self.failures: list[str] = []
        self._specs: dict[str, SpecT] = {}
        self._owners: dict[str, str] = {}

    def add(self, spec: SpecT, owner: str) -> None:
        """Add `spec`, registered by the distribution `owner`."""
        self._specs[spec.name] = spec
        self._owners[spec.name] = owner

    def owner(self, name: str) -> str | None:
        """Return the distribution that registered `name`."""
        return self._owners.get(name)

    def refuse_clash(self, spec: Spec, claimant: str, builtin: str) -> None:
        """Refuse a name that is taken (UserError); of two third parties, neither gets it.

        `claimant` is the later spec's distribution; `builtin`, the toolkit's own, keeps its names.
        """
        owner = self.owner(spec.name)
        if owner is None:
            return
        if owner == builtin:
            raise UserError(f"The {spec.kind} name {spec.name!r} is the toolkit's own.")
        self.unusable[spec.name] = (
            f"The {spec.kind} name {spec.name!r} is claimed by two distributions, {owner!r}"
            f" and {claimant!r}. Uninstall one of them, or leave one out with"
            f" BENCH_BLOCK_PLUGINS={claimant}."
        )
        raise UserError(self.unusable[spec.name])

    def default(self) -> SpecT | None:
        """Return the spec that is used where nobody names one."""
        return next((spec for spec in self if self.is_default(spec)), None)

    @staticmethod
    def is_default(spec: Spec) -> bool:
        """Return whether the spec claims to be the default of its kind."""
        return isinstance(spec, BackboneSpec | StrategySpec) and spec.default

    def get(self, name: str) -> SpecT:
        """Return the spec called `name`; `UserError`: the name is unknown, or its plugin failed."""
        if name in self.unusable:
            raise UserError(self.unusable[name])
        if name not in self._specs:
            kind = self.kind.kind
            failed = "".join(
                f"\nA plugin that failed may have meant to: {f}" for f in self.failures
            )
            raise UserError(
                f"Unknown {kind} {name!r}.{did_you_mean(name, self._specs)}"
                f" `bench list {self.listing}` shows all of them.{failed}"
            )
        return self._specs[name]

    def by_name(self) -> dict[str, SpecT]:
        """Return the specs by name, in the order of their registration."""
        return dict(self._specs)

    def __contains__(self, name: str) -> bool:
        return name in self._specs

    def __iter__(self) -> Iterator[SpecT]:
        return iter(self._specs[name] for name in sorted(self._specs))
