//! Builds what the judge carries into its sandboxes:
//!
//! `checkpoint/checkpoint.c` as a shared library, for the container's fork servers. It is C because it replaces
//! variadic functions of the C library, and it must not drag a runtime into interpreters.
//!
//! Lua as WebAssembly, from the C sources of crate lua-src, so that a machine without namespaces has a sandbox at once.
//! Where clang cannot make WebAssembly the judge is built without, and says so when asked for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const LUA: &str = "lua-5.4";

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo"));
    checkpoint(&out);
    let lua = out.join("lua.wasm");
    let state = match lua_guest(&lua) {
        Ok(()) => "built in".into(),
        Err(reason) => {
            fs::write(&lua, "").expect("the output folder can be written");
            println!("cargo:warning=no Lua as WebAssembly: {reason}");
            // Whatever is installed may be what was missing.
            println!("cargo:rerun-if-changed=/usr/bin");
            reason
        }
    };
    println!("cargo:rustc-env=COGNATE_LUA_GUEST={}", state.replace('\n', " "));
}

fn checkpoint(out: &Path) {
    let source = "checkpoint/checkpoint.c";
    println!("cargo:rerun-if-changed=checkpoint");
    let compiler = cc::Build::new().warnings(true).get_compiler();
    let status = compiler
        .to_command()
        .args(["-O2", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", "-o"])
        .arg(out.join("checkpoint.so"))
        .args([source, "-ldl"])
        .status();
    match status {
        Ok(status) if status.success() => {}
        outcome => panic!("compiling {source}: {outcome:?}"),
    }
}

fn lua_guest(wasm: &Path) -> Result<(), String> {
    println!("cargo:rerun-if-changed=guests");
    println!("cargo:rerun-if-env-changed=COGNATE_GUEST_CLANG");
    let clang = std::env::var("COGNATE_GUEST_CLANG").unwrap_or_else(|_| "clang".into());
    let sources = lua_sources()?;
    let output = Command::new("guests/lua.sh")
        .args([clang.as_ref(), sources.as_os_str(), wasm.as_os_str()])
        .output()
        .map_err(|e| format!("guests/lua.sh: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().find(|l| !l.trim().is_empty()).unwrap_or("no word");
    Err(format!("{first} (apt install clang lld wasi-libc libclang-rt-dev-wasm32)"))
}

/// The folder of Lua's sources in crate lua-src, wherever cargo keeps it.
fn lua_sources() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").ok_or("no CARGO")?;
    let target = std::env::var("TARGET").map_err(|e| e.to_string())?;
    // Offline first: what this build needs is there, though not what other platforms and tests would need.
    let metadata = |more: &[&str]| {
        Command::new(&cargo)
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &target])
            .args(more)
            .output()
            .map_err(|e| format!("cargo metadata: {e}"))
    };
    let mut output = metadata(&["--offline"])?;
    if !output.status.success() {
        output = metadata(&[])?;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // "manifest_path":"…/lua-src-551.1.0/Cargo.toml"
    let manifest = text
        .split("\"manifest_path\":\"")
        .filter_map(|rest| rest.split('"').next())
        .find(|path| path.contains("/lua-src-"))
        .ok_or("crate lua-src not found")?;
    let folder = Path::new(manifest).parent().ok_or("crate lua-src has no folder")?;
    let entries = fs::read_dir(folder).map_err(|e| e.to_string())?.flatten();
    let found = entries
        .map(|e| e.path())
        .find(|p| p.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LUA)));
    found.ok_or_else(|| format!("no {LUA} in {}", folder.display()))
}
