//! With feature `cuda-prebuilt`: compiles every kernel for every architecture and lists the cubins.
//! Without it there is nothing to do, and no CUDA is needed.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA_PREBUILT").is_none() {
        return;
    }
    for path in ["compile.sh", "cuda"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let folder = out.join("cubin");
    let status = Command::new("./compile.sh").arg("--only").arg(&folder).status().expect("compile.sh starts");
    assert!(status.success(), "compile.sh: {status}");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .expect("compile.sh leaves a folder")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_suffix(".cubin")?.to_owned()))
        .collect();
    names.sort();
    let mut list = String::from(
        "/// Source, architecture, machine code.\npub const CUBINS: &[(&str, &str, &[u8])] = &[\n",
    );
    for name in names {
        let (source, architecture) = name.split_once('.').expect("named source.architecture.cubin");
        println!("cargo::rerun-if-changed={source}.cu");
        let path = folder.join(format!("{name}.cubin"));
        writeln!(list, "    ({source:?}, {architecture:?}, include_bytes!({path:?})),")
            .expect("a string grows");
    }
    list.push_str("];\n");
    std::fs::write(out.join("prebuilt.rs"), list).expect("OUT_DIR is writable");
}
