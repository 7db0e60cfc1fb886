//! The filter of `launcher/seccomp.rs` as OCI runtimes take it: a list of what is allowed, all else ENOSYS.
//!
//! The kernel reads 32 bits of most arguments and libseccomp compares 64, so "not equal" would let a value with other
//! upper bits pass. What must not be said is put as all that may: masked comparisons that cover every other number.

use serde_json::{Value, json};

use crate::launcher::seccomp::{NO_CLONE, listed};

/// A condition on one argument: these bits have this value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bits {
    argument: u32,
    mask: u64,
    value: u64,
}

/// A call that passes when all conditions hold; several rules on a call are alternatives.
type Rule = (&'static str, Vec<Bits>);

const LOW: u64 = 0xffff_ffff;

fn is(argument: u32, value: u32) -> Bits {
    Bits { argument, mask: LOW, value: value.into() }
}

fn without(argument: u32, flags: u32) -> Bits {
    Bits { argument, mask: flags.into(), value: 0 }
}

/// Conditions one of which holds for each number but these: for each bit of one of them, the numbers that have the same
/// bits above it and the other one there, where no other of them is among those.
fn others(argument: u32, values: &[u32]) -> Vec<Bits> {
    let mut found: Vec<Bits> = Vec::new();
    for value in values {
        for bit in 0..32 {
            let mask = u32::MAX << bit;
            let prefix = (value ^ 1 << bit) & mask;
            let bits = Bits { argument, mask: mask.into(), value: prefix.into() };
            if values.iter().all(|v| v & mask != prefix) && !found.contains(&bits) {
                found.push(bits);
            }
        }
    }
    found
}

/// Calls that pass by their arguments: what `seccomp::verdict` says, in other words (a test compares them).
fn rules(memory_files: bool) -> Vec<Rule> {
    let core = libc::RLIMIT_CORE;
    let mut rules = vec![
        ("clone", vec![without(0, NO_CLONE as u32)]),
        ("mmap", vec![without(3, libc::MAP_HUGETLB as u32)]),
        ("personality", vec![is(0, u32::MAX)]),
        ("personality", vec![is(0, 0)]),
        // A limit may be read, whichever it is.
        ("prlimit64", vec![is(0, 0), Bits { argument: 2, mask: u64::MAX, value: 0 }]),
    ];
    if memory_files {
        rules.push(("memfd_create", vec![without(1, libc::MFD_HUGETLB)]));
    }
    let not_core = others(1, &[core]).into_iter().map(|bits| ("prlimit64", vec![is(0, 0), bits]));
    rules.extend(not_core);
    rules.extend(others(0, &[core]).into_iter().map(|bits| ("setrlimit", vec![bits])));
    let typing = [libc::TIOCSTI as u32, libc::TIOCLINUX as u32];
    rules.extend(others(1, &typing).into_iter().map(|bits| ("ioctl", vec![bits])));
    rules
}

/// The object `linux.seccomp`. Files in memory only where a control group counts them.
pub fn seccomp(memory_files: bool) -> Value {
    let allow = "SCMP_ACT_ALLOW";
    let names: Vec<&str> = listed().map(|(name, _)| name).collect();
    let mut calls = vec![json!({ "names": names, "action": allow })];
    for (name, conditions) in rules(memory_files) {
        let arguments: Vec<Value> = conditions
            .iter()
            .map(|c| json!({ "index": c.argument, "value": c.mask, "valueTwo": c.value, "op": "SCMP_CMP_MASKED_EQ" }))
            .collect();
        calls.push(json!({ "names": [name], "action": allow, "args": arguments }));
    }
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::ENOSYS, "syscalls": calls })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launcher::seccomp::tests::decide;
    use crate::launcher::seccomp::{ALLOW, ARCHITECTURE, Refusals, filter};

    const BY_ARGUMENT: [(&str, i64); 7] = [
        ("clone", libc::SYS_clone),
        ("mmap", libc::SYS_mmap),
        ("personality", libc::SYS_personality),
        ("prlimit64", libc::SYS_prlimit64),
        ("memfd_create", libc::SYS_memfd_create),
        ("setrlimit", libc::SYS_setrlimit),
        ("ioctl", libc::SYS_ioctl),
    ];

    fn passes(rules: &[Rule], number: i64, arguments: [u64; 4]) -> bool {
        if listed().any(|(_, n)| n == number) {
            return true;
        }
        let Some((name, _)) = BY_ARGUMENT.iter().find(|(_, n)| *n == number) else { return false };
        let holds = |c: &Bits| arguments[c.argument as usize] & c.mask == c.value;
        rules.iter().any(|(called, conditions)| called == name && conditions.iter().all(holds))
    }

    #[test]
    fn it_says_what_the_launchers_filter_says() {
        let flags = [
            0,
            17,
            0x80,
            libc::CLONE_PARENT as u32,
            libc::CLONE_NEWUSER as u32,
            libc::CLONE_VM as u32,
            libc::MAP_HUGETLB as u32,
            libc::MFD_HUGETLB,
            libc::TIOCSTI as u32,
            libc::TIOCLINUX as u32,
            libc::TCGETS as u32,
            libc::TIOCSTI as u32 ^ 1,
            libc::TIOCSTI as u32 | 1 << 31,
            u32::MAX,
            libc::ADDR_NO_RANDOMIZE as u32,
        ];
        let values: Vec<u32> = (0..20).chain(flags).collect();
        for memory_files in [true, false] {
            let (program, rules) = (filter(memory_files, Refusals::default()), rules(memory_files));
            for number in 0..600_i64 {
                let by_argument = BY_ARGUMENT.iter().any(|(_, n)| *n == number);
                let values = if by_argument { &values[..] } else { &[0, 7] };
                let third: &[u32] = if number == libc::SYS_prlimit64 { &[0, 7] } else { values };
                for (a, b, c) in values
                    .iter()
                    .flat_map(|a| values.iter().flat_map(move |b| third.iter().map(move |c| (a, b, c))))
                {
                    let arguments = [*a, *b, *c, *c];
                    let wanted = decide(&program, ARCHITECTURE, number as u32, arguments) == ALLOW.k;
                    let found = passes(&rules, number, arguments.map(u64::from));
                    assert_eq!(found, wanted, "{number} {arguments:?}");
                }
            }
        }
    }

    #[test]
    fn upper_halves_that_the_kernel_does_not_read_change_nothing() {
        let rules = rules(true);
        let upper = |low: u32| u64::from(low) | 1 << 40;
        assert!(!passes(&rules, libc::SYS_ioctl, [0, upper(libc::TIOCSTI as u32), 0, 0]));
        assert!(passes(&rules, libc::SYS_ioctl, [0, upper(libc::TCGETS as u32), 0, 0]));
        assert!(!passes(&rules, libc::SYS_setrlimit, [upper(libc::RLIMIT_CORE), 0, 0, 0]));
        // The address of a new limit has 64 bits that count.
        assert!(!passes(&rules, libc::SYS_prlimit64, [0, u64::from(libc::RLIMIT_CORE), 1 << 40, 0]));
    }

    #[test]
    fn every_number_but_those_is_among_the_others() {
        let conditions = others(0, &[0x5412, 0x541c]);
        let holds = |n: u32| conditions.iter().any(|c| u64::from(n) & c.mask == c.value);
        assert!((0..0x1_0000).all(|n| holds(n) != [0x5412, 0x541c].contains(&n)));
        assert!(holds(u32::MAX) && holds(0x8000_5412));
    }
}
