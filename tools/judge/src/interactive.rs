//! Interactive tests: the judged program and the problem's interactor, each in its own sandbox, joined by two pipes.
//!
//! Which of the two ended first decides who is to blame, and must not depend on how fast the judge looks. Each launcher
//! therefore keeps the pipes open until it has noted its program's end: whatever the other side does about that end
//! happens after it.

use cognate_records::Status;

use crate::helper::{self, Grade, Helper};
use crate::sandbox::wire::Run;
use crate::sandbox::{Extras, Fault, Finished, Sandbox, descriptors};

/// Runs both. Gives the program's end, the interactor's, and whether the program's came first.
///
/// # Errors
/// When a sandbox fails.
pub fn run(
    sandbox: &mut dyn Sandbox,
    program: &Run,
    helper: &mut Helper,
    input: &[u8],
    answer: &[u8],
) -> Result<(Finished, Finished, bool), Fault> {
    let pipe = || descriptors::pipe().map_err(|e| Fault(format!("joining programs: {e}")));
    let (program_in, interactor_out) = pipe()?;
    let (interactor_in, program_out) = pipe()?;
    let wall = program.limits.wall_us;
    let (program, interactor) = std::thread::scope(|scope| {
        let interactor =
            scope.spawn(|| helper.run(input, b"", answer, Some(([interactor_in, interactor_out], wall))));
        let extras = Extras { ends: Some([program_in, program_out]), ..Extras::default() };
        let program = sandbox.run_with(program, b"", extras);
        (program, interactor.join())
    });
    let interactor = interactor.map_err(|_| Fault("the interactor's thread panicked".into()))??;
    let program = program?;
    Ok((program.finished, interactor.finished, program.ended_us < interactor.ended_us))
}

/// The verdict on an interactive test. `own` is how the program failed by itself.
///
/// # Errors
/// When the interactor failed.
pub fn grade(
    own: Option<Status>,
    interactor: &Finished,
    program_first: bool,
    presentation: bool,
) -> Result<Grade, Fault> {
    let outcome = &interactor.outcome;
    // A program that ended early breaks the interactor's pipe; Python has an exit code for that.
    let pipe = outcome.signal == Some(libc::SIGPIPE) || outcome.exit == Some(120);
    let broken = program_first && outcome.exceeded.is_none() && pipe;
    match own {
        Some(status) if program_first => Ok(Grade { status, score: None }),
        _ if broken => Ok(Grade { status: Status::WA, score: None }),
        Some(status) => {
            let said = helper::grade(interactor, presentation)?;
            let wrong = said.status != Status::AC;
            Ok(if wrong { said } else { Grade { status, score: None } })
        }
        None => helper::grade(interactor, presentation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::wire::Outcome;

    #[test]
    fn who_ended_first_is_to_blame() {
        let end = |exit, signal| Finished {
            outcome: Outcome { exit, signal, exceeded: None, cpu_us: 0, wall_us: 0, memory_kb: 0 },
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        let of = |own, code, first| grade(own, &end(Some(code), None), first, false).map(|g| g.status).ok();
        use Status::{AC, RE, TLE, WA};
        assert_eq!(of(None, 0, true), Some(AC));
        assert_eq!(of(None, 1, false), Some(WA));
        assert_eq!(of(Some(RE), 1, true), Some(RE));
        assert_eq!(of(Some(RE), 1, false), Some(WA));
        assert_eq!(of(Some(TLE), 0, false), Some(TLE));
        assert_eq!(of(Some(RE), 3, true), Some(RE));
        assert_eq!(of(None, 3, true), None);
        let broken = end(None, Some(libc::SIGPIPE));
        assert_eq!(grade(None, &broken, true, false).unwrap().status, WA);
        assert!(grade(None, &broken, false, false).is_err());
    }
}
