//! Kernels from source to machine code: NVRTC the first time, then a cache on disk; or, with feature
//! `cuda-prebuilt`, cubins built into the program.

use std::ffi::{CString, c_char};
use std::path::{Path, PathBuf};

use cudarc::nvrtc::{result, sys};
use xxhash_rust::xxh3::xxh3_64;

use super::launch::CudaError;
use super::source::whole;

/// Flags besides the architecture. Any change makes other files in the cache.
const FLAGS: &[&str] = &["-std=c++17", "-default-device"];

/// The architecture's name for a device's compute capability: `sm_90a` and `sm_100a` for the
/// features that only they have.
pub fn architecture(major: i32, minor: i32) -> String {
    let own = matches!((major, minor), (9, 0) | (10, 0));
    format!("sm_{major}{minor}{}", if own { "a" } else { "" })
}

#[cfg(feature = "cuda-prebuilt")]
mod prebuilt {
    include!(concat!(env!("OUT_DIR"), "/prebuilt.rs"));
}

/// Machine code of `source`.cu for `architecture`: built in, from `cache`, or compiled now. A cache
/// that cannot be written costs the next start a compilation, no more.
pub fn cubin(source: &'static str, architecture: &str, cache: Option<&Path>) -> Result<Vec<u8>, CudaError> {
    #[cfg(feature = "cuda-prebuilt")]
    if let Some((.., cubin)) =
        prebuilt::CUBINS.iter().find(|(name, arch, _)| *name == source && *arch == architecture)
    {
        return Ok(cubin.to_vec());
    }
    let text = whole(source);
    let key = format!("{architecture}\n{FLAGS:?}\n{text}");
    let file = format!("{source}-{architecture}-{:016x}.cubin", xxh3_64(key.as_bytes()));
    let path = cache.map(|folder| folder.join(file));
    if let Some(cubin) = path.as_ref().and_then(|path| std::fs::read(path).ok()) {
        return Ok(cubin);
    }
    let cubin = compile(source, &text, architecture)?;
    if let Some(path) = path {
        // Whole or not at all: another process may be reading.
        let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
        let kept = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&unfinished, &cubin))
            .and_then(|()| std::fs::rename(&unfinished, &path));
        if kept.is_err() {
            let _ = std::fs::remove_file(&unfinished);
        }
    }
    Ok(cubin)
}

/// Where cubins are kept: `cognate/kernels` in the user's cache folder, if there is one.
pub fn cache_folder() -> Option<PathBuf> {
    let home = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = home("XDG_CACHE_HOME").or_else(|| Some(home("HOME")?.join(".cache")))?;
    Some(base.join("cognate/kernels"))
}

/// Whether NVRTC can be opened.
pub fn nvrtc_present() -> bool {
    // SAFETY: opening NVIDIA's library runs its initialisers, which ask nothing of the caller.
    unsafe { sys::is_culib_present() }
}

fn compile(source: &'static str, text: &str, architecture: &str) -> Result<Vec<u8>, CudaError> {
    if !nvrtc_present() {
        return Err(CudaError::Missing("NVRTC (libnvrtc.so)"));
    }
    let failed = |step: &str, error: result::NvrtcError| CudaError::Compile {
        source_name: source.into(),
        log: format!("{step}: {error:?}"),
    };
    let text = CString::new(text).expect("sources hold no zero byte");
    let name = CString::new(format!("{source}.cu")).expect("names hold no zero byte");
    let program = result::create_program(&text, Some(&name)).map_err(|e| failed("create", e))?;
    let mut options = vec![format!("--gpu-architecture={architecture}")];
    options.extend(FLAGS.iter().map(|&flag| flag.to_owned()));
    // SAFETY: `program` is alive until it is destroyed below; sizes are asked before buffers are given.
    unsafe {
        let outcome = result::compile_program(program, &options)
            .map_err(|error| CudaError::Compile {
                source_name: source.into(),
                log: result::get_program_log(program).map_or_else(
                    |_| format!("{error:?}"),
                    |log| {
                        let bytes: Vec<u8> = log.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
                        String::from_utf8_lossy(&bytes).into_owned()
                    },
                ),
            })
            .and_then(|()| {
                let mut size = 0;
                sys::nvrtcGetCUBINSize(program, &mut size).result().map_err(|e| failed("size", e))?;
                let mut cubin = vec![0u8; size];
                sys::nvrtcGetCUBIN(program, cubin.as_mut_ptr().cast::<c_char>())
                    .result()
                    .map_err(|e| failed("cubin", e))?;
                Ok(cubin)
            });
        // Nothing to do about a failure to free.
        let _ = result::destroy_program(program);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::source::{LAB, SOURCES};
    use super::*;

    /// `EM_CUDA` of an ELF header.
    const CUDA_MACHINE: [u8; 2] = 190u16.to_le_bytes();

    #[test]
    fn architectures_have_the_names_that_the_compiler_knows() {
        assert_eq!(architecture(8, 0), "sm_80");
        assert_eq!(architecture(9, 0), "sm_90a");
        assert_eq!(architecture(12, 0), "sm_120");
    }

    /// NVRTC needs no GPU: compile.sh runs this with the one that it installs. Set LD_LIBRARY_PATH to where another lies
    /// to hold that one to the sources.
    #[test]
    fn nvrtc_compiles_every_source_and_the_cache_spares_it() {
        if !nvrtc_present() {
            eprintln!("NOT RUN: NVRTC is not installed; the sources went through nvcc alone");
            return;
        }
        let folder = std::env::temp_dir().join(format!("cognate-cubins-{}", std::process::id()));
        // NAME_sm90a.cu is for that architecture alone.
        let own = |name: &str, architecture: &str| !name.ends_with("_sm90a") || architecture == "sm_90a";
        let work: Vec<(&str, &str)> = ["sm_80", "sm_90a", "sm_100a"]
            .into_iter()
            .flat_map(|architecture| SOURCES.iter().chain(LAB).map(move |(name, _)| (*name, architecture)))
            .filter(|(name, architecture)| own(name, architecture))
            .collect();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while let Some((name, architecture)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let first = cubin(name, architecture, Some(&folder)).expect("compiles");
                        assert_eq!(first[..4], *b"\x7fELF", "{name} for {architecture}: machine code");
                        assert_eq!(first[18..20], CUDA_MACHINE, "{name} for {architecture}: a GPU's");
                        assert!(cubin(name, architecture, Some(&folder)).expect("cached") == first);
                    }
                });
            }
        });
        let kept = || std::fs::read_dir(&folder).expect("the cache is there").filter_map(Result::ok);
        assert_eq!(kept().count(), work.len(), "a file a source and architecture, and nothing unfinished");
        // What is in the cache is what is used.
        let (name, _) = SOURCES[0];
        let mut entry =
            kept().filter(|e| e.file_name().to_string_lossy().starts_with(&format!("{name}-sm_90a-")));
        std::fs::write(entry.next().expect("one a source").path(), b"marked").expect("writable");
        assert_eq!(cubin(name, "sm_90a", Some(&folder)).expect("cached"), b"marked");
        std::fs::remove_dir_all(&folder).expect("removable");
    }

    #[test]
    fn a_source_that_does_not_compile_names_its_line() {
        if !nvrtc_present() {
            eprintln!("NOT RUN: NVRTC is not installed");
            return;
        }
        let error = compile("swiglu", "__global__ void f() { nonsense }", "sm_90a").expect_err("nonsense");
        assert!(error.to_string().contains("swiglu.cu(1): error"), "{error}");
    }
}
