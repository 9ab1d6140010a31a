"""The registered specs of one type, with their owners and the names that cannot be used."""

from collections.abc import Iterator
from typing import Generic, TypeVar

from bench.contracts.specs import BackboneSpec, Spec, StrategySpec
from bench.discovery.finding import OWN_DISTRIBUTION
from bench.errors import UserError, did_you_mean

SpecT = TypeVar("SpecT", bound=Spec)


class Registry(Generic[SpecT]):
    """The registered specs of one type, such as datasets.

    `spec_class.kind` is their singular name, such as `dataset`; `listing` the plural, as in `bench
    list datasets` and the hook `register_datasets`. `unusable` maps each registered name that
    cannot be used to the reason. `failures` are messages of the plugins that failed.
    """

    def __init__(self, spec_class: type[SpecT], listing: str) -> None:
        self.spec_class = spec_class
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
        """Return the distribution that registered `name`; None if the name is not registered."""
        return self._owners.get(name)

    def refuse_clash(self, spec: Spec, distribution: str) -> None:
        """Raise UserError if the name of a distribution's spec is already registered.

        The toolkit keeps its names. If two other distributions use a name, it becomes unusable.
        """
        owner = self.owner(spec.name)
        if owner is None:
            return
        if owner == OWN_DISTRIBUTION:
            raise UserError(f"The {spec.kind} name {spec.name!r} is reserved for the toolkit.")
        self.unusable[spec.name] = (
            f"The {spec.kind} name {spec.name!r} is used by two distributions, {owner!r}"
            f" and {distribution!r}. Uninstall one of them, or leave one out with"
            f" BENCH_BLOCK_PLUGINS={distribution}."
        )
        raise UserError(self.unusable[spec.name])

    def default(self) -> SpecT | None:
        """Return the spec to use if the user names none; None if no spec is the default."""
        return next((spec for spec in self if self.is_default(spec)), None)

    def require_default(self) -> SpecT:
        """Return the spec to use if the user names none; raise UserError if there is none."""
        if (spec := self.default()) is not None:
            return spec
        kind = self.spec_class.kind
        raise UserError(f"No plugin registers a default {kind}; choose one with --{kind}.")

    @staticmethod
    def is_default(spec: Spec) -> bool:
        """Return whether the spec is declared as the default of its kind."""
        return isinstance(spec, BackboneSpec | StrategySpec) and spec.default

    def get(self, name: str) -> SpecT:
        """Return the spec called `name`; raise UserError if it is unknown or unusable."""
        if name in self.unusable:
            raise UserError(self.unusable[name])
        if name not in self._specs:
            kind = self.spec_class.kind
            hints = "".join(f"\nIt may belong to a plugin that failed: {f}" for f in self.failures)
            raise UserError(
                f"Unknown {kind} {name!r}.{did_you_mean(name, self._specs)}"
                f" `bench list {self.listing}` shows all of them.{hints}"
            )
        return self._specs[name]

    def by_name(self) -> dict[str, SpecT]:
        """Return the specs by name, in order of registration."""
        return dict(self._specs)

    def __contains__(self, name: str) -> bool:
        return name in self._specs

    def __iter__(self) -> Iterator[SpecT]:
        return iter(self._specs[name] for name in sorted(self._specs))
