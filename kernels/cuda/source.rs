//! The kernels' sources as one text each, so that NVRTC needs no file: `#include "cuda/x.cuh"` is
//! replaced by the header, once.

/// A kernel file's name without `.cu`, and its text.
pub type Source = (&'static str, &'static str);

macro_rules! files {
    ($($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("../", $name, ".cu")))),*] };
}

/// Every kernel file.
pub const SOURCES: &[Source] = files![
    "adamw",
    "adapter",
    "attention",
    "attention_backward_sm90a",
    "attention_sm90a",
    "bias",
    "classifier",
    "decode_attention",
    "embedding",
    "gather",
    "grad_norm",
    "policy_loss",
    "pooling",
    "rmsnorm",
    "rope",
    "sampling",
    "swiglu",
];

/// Attempts kept for comparison, in folders of their own.
pub const LAB: &[Source] = &[("attention_1_sm90a", include_str!("../lab/attention/attention_1_sm90a.cu"))];

const HEADERS: &[Source] = &[
    ("cuda/columns.cuh", include_str!("columns.cuh")),
    ("cuda/device.cuh", include_str!("device.cuh")),
    ("cuda/master.cuh", include_str!("master.cuh")),
    ("cuda/panels.cuh", include_str!("panels.cuh")),
    ("cuda/philox.cuh", include_str!("philox.cuh")),
    ("cuda/ptx.cuh", include_str!("ptx.cuh")),
    ("cuda/tile.cuh", include_str!("tile.cuh")),
    ("cuda/tma.cuh", include_str!("tma.cuh")),
    ("cuda/wgmma.cuh", include_str!("wgmma.cuh")),
];

/// The whole text of `name`.cu.
///
/// # Panics
/// Where there is no such file: names come from the launchers beside them.
pub fn whole(name: &str) -> String {
    let mut all = SOURCES.iter().chain(LAB);
    let (_, text) = all.find(|(n, _)| *n == name).expect("launchers name files of SOURCES or LAB");
    let mut out = String::new();
    append(&mut out, text, &mut Vec::new());
    out
}

fn append(out: &mut String, text: &str, seen: &mut Vec<&'static str>) {
    for line in text.lines() {
        let header = line.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"'));
        let header = header.and_then(|path| HEADERS.iter().find(|(name, _)| *name == path));
        match header {
            Some((name, _)) if seen.contains(name) => {}
            Some((name, text)) => {
                seen.push(name);
                append(out, text, seen);
            }
            None if line == "#pragma once" => {}
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_source_has_each_header_once_and_includes_none() {
        for (name, _) in SOURCES.iter().chain(LAB) {
            let text = whole(name);
            let device = text.split("#else").nth(1).expect("device.cuh has a side for the device");
            assert!(!device.contains("#include"), "{name}: an include is left");
            assert_eq!(text.matches("struct bf16 {").count(), 1, "{name}: ptx.cuh once");
        }
    }

    #[test]
    fn every_kernel_file_is_known() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("the folder is there")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| Some(name.strip_suffix(".cu")?.to_owned()))
            .collect();
        files.sort();
        assert_eq!(files, SOURCES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }
}
