//! Compiles `checkpoint/checkpoint.c` into a shared library, which the launcher carries into its sandboxes.
//! It is C because it replaces variadic functions of the C library, and it must not drag a runtime into interpreters.

use std::path::PathBuf;

fn main() {
    let source = "checkpoint/checkpoint.c";
    println!("cargo:rerun-if-changed={source}");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo")).join("checkpoint.so");
    let compiler = cc::Build::new().warnings(true).get_compiler();
    let status = compiler
        .to_command()
        .args(["-O2", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", "-o"])
        .arg(&out)
        .args([source, "-ldl"])
        .status();
    match status {
        Ok(status) if status.success() => {}
        outcome => panic!("compiling {source}: {outcome:?}"),
    }
}
