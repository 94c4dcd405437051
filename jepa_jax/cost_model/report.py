"""The cost report of a compiled step, as numbers and as text."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from jepa_jax import data
from jepa_jax.config import Config
from jepa_jax.cost_model import chips, collectives, flops, hlo, program
from jepa_jax.cost_model.memory import Memory
from jepa_jax.cost_model.roofline import Roofline, roofline
from jepa_jax.cost_model.topology import Topology
from jepa_jax.cost_model.traffic import traffic
from jepa_jax.models import attention

STRONGER = {"none": "dots", "dots": "full", "full": "level"}  # the next remat policy, which saves more memory


@dataclasses.dataclass(frozen=True)
class Report:
    """A step compiled for a topology.

    Attributes:
        config: settings of the run.
        topology: the target of the compilation.
        seconds: time to lower and compile.
        model_flops: FLOPs of the model, summed over chips.
        program_flops: FLOPs of the program, recomputation included, summed over chips.
        memory: bytes on a chip.
        state: bytes of the training state on a chip.
        traffic: bytes between a chip and its memory; None if the step does not fit.
        collectives: totals by kind; None if the step does not fit.
        unknown_loops: number of loops with an unknown trip count, counted once.
        attention: the attention that was compiled.
    """

    config: Config
    topology: Topology
    seconds: float
    model_flops: int
    program_flops: float
    memory: Memory
    state: int
    traffic: int | None
    collectives: Mapping[str, collectives.Total] | None
    unknown_loops: int
    attention: attention.Choice

    @property
    def chips(self) -> int:
        """Number of chips."""
        return len(self.topology.devices)

    @property
    def prefetched(self) -> int:
        """Bytes of prefetched batches on a chip."""
        clip = self.config.clip
        clips = 0 if data.renders_in_step(self.config.data) else self.config.batch_size
        return self.config.data.prefetch * clips * math.prod(clip.shape) // self.chips

    @property
    def used(self) -> int:
        """Bytes needed on a chip during training."""
        return self.memory.total + self.prefetched

    @property
    def limit(self) -> int | None:
        """Bytes available on a chip; None for a CPU."""
        return self.memory.limit or (self.topology.chip.hbm if self.topology.chip else None)

    @property
    def fits(self) -> bool:
        """Whether the step can run."""
        return self.memory.limit is None and (self.limit is None or self.used <= self.limit)

    @property
    def roofline(self) -> Roofline | None:
        """Times at the chip's peak rates; None for a CPU or if the step does not fit."""
        if self.topology.chip is None or self.traffic is None or self.collectives is None:
            return None
        sent = float(sum(total.sent for total in self.collectives.values()))
        return roofline(
            self.topology.chip, flops=self.program_flops / self.chips, traffic=float(self.traffic), sent=sent
        )


def build(config: Config, topology: Topology) -> Report:
    """Compiles the step and returns its report.

    Raises:
        ConfigError: invalid settings, or a mesh or batch that the devices do not divide.
    """
    return read(config, topology, program.compile_step(config, topology))


def read(config: Config, topology: Topology, compiled: program.Compiled) -> Report:
    """Returns the report of a compiled step."""
    parsed = hlo.parse(compiled.text) if compiled.text is not None else None
    communication = collectives.find(parsed, len(topology.devices)) if parsed else None
    return Report(
        config=config,
        topology=topology,
        seconds=compiled.seconds,
        model_flops=flops.model_flops(config),
        program_flops=flops.program_flops(config),
        memory=compiled.memory,
        state=program.bytes_on_a_chip(compiled.state),
        traffic=traffic(parsed) if parsed else None,
        collectives=collectives.by_kind(communication) if communication is not None else None,
        unknown_loops=parsed.unknown_loops if parsed else 0,
        attention=compiled.attention,
    )


def advice(report: Report) -> list[str]:
    """Returns changes that would make the step fit; empty if it fits."""
    if report.fits or report.limit is None:
        return []
    config, lines = report.config, []
    stronger = STRONGER.get(config.encoder.remat)
    if stronger:
        lines.append(f"--config.encoder.remat={stronger} keeps less for the backward pass")
    if report.state > report.limit / 4 and config.mesh.fsdp < report.chips:
        ways = min(report.chips, config.mesh.fsdp * math.ceil(4 * report.state / report.limit))
        ways = next(n for n in range(ways, report.chips + 1) if report.chips % n == 0)
        lines.append(f"--config.mesh.fsdp={ways} shards the training state further (now {_gib(report.state)} per chip)")
    per_clip = (report.used - report.state) / config.batch_size
    batch = int((report.limit - report.state) / per_clip) // report.chips * report.chips
    if batch > 0:
        lines.append(f"--config.batch_size={batch} or less, if activations shrink in proportion")
    if per_clip > 0 and report.limit > report.state:
        more = math.ceil(config.batch_size * per_clip / (report.limit - report.state) * report.chips)
        lines.append(f"a slice of about {2 ** math.ceil(math.log2(max(more, report.chips + 1)))} chips")
    if config.dtype == "float32":
        lines.append("--config.dtype=bfloat16 halves activations")
    return lines


def text(report: Report) -> str:
    """Formats the report for the terminal."""
    config, topology = report.config, report.topology
    lines = [
        f"{config.recipe}, encoder {config.encoder.size}, "
        f"{config.clip.frames}×{config.clip.height}×{config.clip.width}, "
        f"batch {config.batch_size}, {config.dtype}, remat {config.encoder.remat}, attention "
        f"{report.attention.kind}, fsdp {config.mesh.fsdp}, for {topology.name} ({report.chips} chips)",
        *([f"attention            auto: {report.attention}"] if config.encoder.attention == "auto" else []),
        f"compiled in          {report.seconds:.0f} s",
        f"model FLOPs          {_si(report.model_flops)}FLOP per step, "
        f"{_si(report.model_flops / config.batch_size)}FLOP per clip",
        f"compiled FLOPs       {_si(report.program_flops)}FLOP per step; model ÷ compiled "
        f"{report.model_flops / report.program_flops:.2f}",
        *_memory_lines(report),
        *_collective_lines(report),
        *_roofline_lines(report),
    ]
    if report.unknown_loops:
        lines.append(f"note                 {report.unknown_loops} loops with unknown trip count, counted once")
    return "\n".join(lines)


def _memory_lines(report: Report) -> list[str]:
    memory = report.memory
    parts = f"arguments {_gib(memory.arguments)} (state {_gib(report.state)}), temporary {_gib(memory.temporary)}, "
    parts += f"program {_gib(memory.program)}, prefetched batches {_gib(report.prefetched)}"
    lines = [f"memory per chip      {_gib(report.used)}: {parts}"]
    if report.limit is not None:
        over = report.used - report.limit
        lines.append(
            f"                     fits in {_gib(report.limit)}, {_gib(-over)} to spare"
            if report.fits
            else f"                     DOES NOT FIT in {_gib(report.limit)}: {_gib(over)} over. Try one of:"
        )
    return lines + [f"                       {line}" for line in advice(report)]


def _collective_lines(report: Report) -> list[str]:
    if report.collectives is None:
        return []
    lines = [
        f"{kind:<20} {total.count} per step, {_si(total.payload)}B; a chip sends {_si(total.sent)}B"
        for kind, total in report.collectives.items()
    ]
    return lines or ["collectives          none"]


def _roofline_lines(report: Report) -> list[str]:
    lines = [] if report.traffic is None else [f"memory traffic       {_si(report.traffic)}B per step and chip"]
    roof, chip = report.roofline, report.topology.chip
    if roof is None or chip is None:
        return lines
    busy = ", ".join(f"{name} {1e3 * value:.1f} ms" for name, value in dataclasses.asdict(roof).items())
    rate = report.config.batch_size / roof.seconds
    utilisation = report.model_flops / (roof.seconds * report.chips * chip.flops)
    hours = report.config.steps * roof.seconds / 3600
    if roof.binds == "memory" and report.config.encoder.attention == "xla":
        lines.append("                       --config.encoder.attention=auto reduces it if attention causes most of it")
    return [
        *lines,
        f"roofline             {busy}: {roof.binds} binds",
        f"at most              {rate:,.0f} clips/s, {100 * utilisation:.0f} % of the chips' peak",
        f"{report.config.steps:,} steps".ljust(20) + f" at least {hours:.2f} h, {hours * report.chips:,.1f} chip-hours",
        f"chip                 {chip.name}: {_si(chip.flops)}FLOP/s bf16, {_gib(chip.hbm)} at "
        f"{_si(chip.hbm_bandwidth)}B/s, "
        f"{_si(chip.ici_bandwidth)}B/s to other chips ({chip.source})",
    ]


COLUMNS = (
    "batch",
    "remat",
    "attention",
    "memory per chip",
    "fits",
    "compiled FLOPs",
    "compute",
    "memory",
    "network",
    "clips/s ≤",
    "s",
)


def table_row(report: Report) -> list[str]:
    """Returns one row of a sweep, in the order of `COLUMNS`."""
    roof = report.roofline
    times = [f"{1e3 * t:.1f} ms" for t in (roof.compute, roof.memory, roof.network)] if roof else ["–"] * 3
    fits = "yes" if report.fits else f"no, {_gib(report.used - (report.limit or 0))} over"
    rate = f"{report.config.batch_size / roof.seconds:,.0f}" if roof else "–"
    setting = [str(report.config.batch_size), report.config.encoder.remat, report.attention.kind]
    return [
        *setting,
        _gib(report.used),
        fits,
        f"{_si(report.program_flops)}FLOP",
        *times,
        rate,
        f"{report.seconds:.0f}",
    ]


def markdown_row(cells: Sequence[str]) -> str:
    """Formats a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def _gib(value: int | float) -> str:
    return f"{value / chips.GIB:.2f} GiB"


def _si(value: int | float) -> str:
    """Formats a number with three digits and an SI prefix: 36.1 T."""
    power = min(max(int(math.log10(value) // 3), 0), 5) if value > 0 else 0
    return f"{value / 1000**power:.3g} {['', 'k', 'M', 'G', 'T', 'P'][power]}"
