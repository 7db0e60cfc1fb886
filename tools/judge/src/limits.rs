//! Limits of a run, and when passing one may be the fault of what ran beside it.

use cognate_languages::Language;
use cognate_records::{Limits, Problem, Test};

use crate::protections::{Protection, Protections};
use crate::sandbox::wire::{Exceeded, Outcome, RunLimits};

/// Compilers are trusted with more than programs, but not with everything.
pub const COMPILE: RunLimits = RunLimits {
    cpu_us: 60_000_000,
    wall_us: 180_000_000,
    memory_bytes: 2 << 30,
    processes: 256,
    file_bytes: 512 << 20,
    output_bytes: 4 << 20,
};

/// Checker programs and interactors.
pub const HELPER: RunLimits = RunLimits {
    cpu_us: 10_000_000,
    wall_us: 60_000_000,
    memory_bytes: 1 << 30,
    processes: 64,
    file_bytes: 64 << 20,
    output_bytes: 1 << 20,
};

/// What the toolchain needs, on top of what the program may use.
fn with_toolchain(limits: RunLimits, language: &Language) -> RunLimits {
    RunLimits {
        memory_bytes: scale(limits.memory_bytes, language.memory_factor) + (language.startup_mb << 20),
        processes: limits.processes + language.startup_processes,
        ..limits
    }
}

fn scale(value: u64, factor: f64) -> u64 {
    (value as f64 * factor) as u64
}

/// The limits of a test: its own, else the problem's, else the command line's; each field by itself.
pub fn of_test(defaults: &Limits, problem: &Problem, test: &Test, language: &Language) -> RunLimits {
    let layers = [test.limits.as_ref(), problem.limits.as_ref(), Some(defaults)];
    let given = |of: fn(&Limits) -> Option<u64>| layers.iter().flatten().find_map(|l| of(l));
    let pick = |of: fn(&Limits) -> Option<u64>, builtin: u64| given(of).unwrap_or(builtin);
    let cpu_ms = scale(pick(|l| l.cpu_ms, 2000), language.cpu_factor) + language.startup_ms;
    let limits = RunLimits {
        cpu_us: cpu_ms * 1000,
        wall_us: given(|l| l.wall_ms).unwrap_or(cpu_ms * 3 + 1000) * 1000,
        memory_bytes: pick(|l| l.memory_mb, 512) << 20,
        processes: pick(|l| l.processes, 32),
        file_bytes: pick(|l| l.file_mb, 64) << 20,
        output_bytes: pick(|l| l.output_kb, 16 * 1024) << 10,
    };
    with_toolchain(limits, language)
}

/// The limits of a checker program or an interactor.
pub fn of_helper(language: &Language) -> RunLimits {
    let cpu_us = scale(HELPER.cpu_us, language.cpu_factor) + language.startup_ms * 1000;
    with_toolchain(RunLimits { cpu_us, ..HELPER }, language)
}

/// Processors that share caches, memory or a core make the same instructions take longer.
const CONTENTION: f64 = 1.5;
/// A program that used less than this share of its CPU limit when the wall backstop stopped it was waiting by itself.
const COMPUTING: f64 = 0.1;

/// The limits of a first run: what passes the CPU limit by less than contention explains is seen to its end.
pub fn lenient(limits: RunLimits) -> RunLimits {
    RunLimits { cpu_us: scale(limits.cpu_us, CONTENTION), ..limits }
}

/// True when a run within [`lenient`] limits must be repeated, alone and within `limits`, to be judged.
pub fn borderline(limits: &RunLimits, outcome: &Outcome) -> bool {
    match outcome.exceeded {
        Some(Exceeded::Cpu) => false,
        Some(Exceeded::Wall) => outcome.cpu_us >= scale(limits.cpu_us, COMPUTING),
        _ => outcome.cpu_us > limits.cpu_us,
    }
}

/// The limits that a run has under these protections: one that is off is out of reach, though not so far that a test
/// could harm the machine.
pub fn under(protections: Protections, given: RunLimits) -> RunLimits {
    let pick = |limit, value: u64, far: u64| if protections.has(limit) { value } else { value.max(far) };
    RunLimits {
        cpu_us: pick(Protection::CpuLimit, given.cpu_us, given.cpu_us * 3),
        wall_us: pick(Protection::WallLimit, given.wall_us, given.wall_us * 3),
        memory_bytes: pick(Protection::MemoryLimit, given.memory_bytes, 2 << 30),
        processes: pick(Protection::ProcessLimit, given.processes, 1000),
        file_bytes: pick(Protection::FileLimit, given.file_bytes, 1 << 30),
        output_bytes: pick(Protection::OutputLimit, given.output_bytes, 1 << 28),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cognate_languages::Languages;

    #[test]
    fn the_nearest_limit_counts_and_the_toolchain_gets_its_share() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        std::fs::write(
            &path,
            "[python]\ncpu_factor = 2.5\nmemory_factor = 2.0\nstartup_ms = 50\nstartup_mb = 16\n",
        )
        .unwrap();
        let table = Languages::with_user_file(&path).unwrap();
        let python = table.get("python").unwrap();
        let limits = |cpu_ms, memory_mb| Limits { cpu_ms, memory_mb, ..Limits::default() };
        let problem = Problem { limits: Some(limits(Some(1000), None)), ..Problem::default() };
        let test = Test { limits: Some(limits(None, Some(100))), ..Test::default() };
        let of = of_test(&limits(Some(7), Some(9)), &problem, &test, python);
        assert_eq!((of.cpu_us, of.wall_us), (2_550_000, 8_650_000));
        assert_eq!(of.memory_bytes, 216 << 20);
        let plain =
            of_test(&Limits::default(), &Problem::default(), &Test::default(), table.get("c").unwrap());
        assert_eq!(
            (plain.cpu_us / 1_000_000, plain.memory_bytes >> 20),
            (2, 512 + table.get("c").unwrap().startup_mb)
        );
    }

    #[test]
    fn what_contention_may_explain_is_borderline() {
        let limits = RunLimits { cpu_us: 1000, ..COMPILE };
        let outcome = |exceeded, cpu_us| Outcome {
            exit: Some(0),
            signal: None,
            exceeded,
            cpu_us,
            wall_us: 0,
            memory_kb: 0,
        };
        assert_eq!(lenient(limits).cpu_us, 1500);
        for (exceeded, cpu_us, again) in [
            (None, 1000, false),
            (None, 1001, true),
            (Some(Exceeded::Cpu), 1501, false),
            (Some(Exceeded::Wall), 99, false),
            (Some(Exceeded::Wall), 100, true),
            (Some(Exceeded::Output), 900, false),
            (Some(Exceeded::Memory), 1200, true),
        ] {
            assert_eq!(borderline(&limits, &outcome(exceeded, cpu_us)), again, "{exceeded:?} {cpu_us}");
        }
    }
}
