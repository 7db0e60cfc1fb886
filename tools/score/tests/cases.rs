//! A folder under `cases/` a behaviour: the command, its input, and what it must print.
//!
//! `UPDATE_CASES=1 cargo test` writes what is printed instead of comparing; read the difference before committing it.

use std::path::Path;
use std::process::Command;

fn check(case: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(case);
    let command = std::fs::read_to_string(folder.join("command")).unwrap();
    let mut words = command.split_whitespace();
    assert_eq!(words.next(), Some("cog-score"));
    let output =
        Command::new(env!("CARGO_BIN_EXE_cog-score")).args(words).current_dir(&folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let expected = folder.join("expected.md");
    if std::env::var_os("UPDATE_CASES").is_some() {
        std::fs::write(&expected, &printed).unwrap();
    }
    let expected = std::fs::read_to_string(&expected).unwrap();
    assert!(printed == expected, "{case}: expected\n{expected}\nprinted\n{printed}");
}

#[test]
fn pass() {
    check("pass");
}

#[test]
fn transfer() {
    check("transfer");
}

#[test]
fn latent() {
    check("latent");
}
