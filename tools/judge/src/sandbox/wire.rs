//! What the judge and its launchers say to each other: frames on a Unix socket, a JSON header and blobs of bytes.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::protections::Protections;

/// Bound on one blob, in bytes: whatever the other side says, memory stays bounded.
const MAX_BLOB: u64 = 1 << 31;

/// The first message to a launcher. Blob: the checkpoint library.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// Folders of the host that are shown read-only beside the system's own, and where.
    pub mounts: Vec<(PathBuf, PathBuf)>,
    /// Root folder of an image, shown instead of the host's own folders.
    pub rootfs: Option<PathBuf>,
    /// Folder of the host that is shown as /cache.
    pub cache: Option<PathBuf>,
    /// Ids that programs run under inside; `None` where only one id could be mapped.
    pub ids: Option<(u32, u32)>,
    pub cgroup: Option<CgroupFiles>,
    pub protections: Protections,
    pub walls: Walls,
}

/// What stands between a program and the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Walls {
    /// Namespaces and mounts.
    Namespaces,
    /// Landlock alone, with a folder of the worker's own, which exists.
    Landlock { folder: PathBuf },
}

/// Counters of the worker's control group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CgroupFiles {
    pub cpu: PathBuf,
    pub memory: PathBuf,
    /// Version 2 has other file names and formats.
    pub unified: bool,
}

/// An interpreter that is forked for each run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// One server is kept for each name.
    pub name: String,
    pub arguments: Vec<String>,
    pub environment: Vec<String>,
    /// File name of the program in /box.
    pub source: String,
    pub mode: String,
    pub canary: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Empties /box and writes files; a blob a file.
    Place { names: Vec<String>, server: Option<Server> },
    /// Runs a command. Blob: stdin.
    Run(Run),
    /// The same with files put into its working folder and read back from it. Blobs: stdin, the files. With `joined`,
    /// descriptors follow (descriptors.rs) that are its stdin and stdout.
    RunWith { run: Run, files: Vec<String>, fetch: Vec<String>, joined: bool },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    pub arguments: Vec<String>,
    pub environment: Vec<String>,
    pub limits: RunLimits,
    pub kind: Kind,
    /// Name of the fork server to use, where one stands.
    pub server: Option<String>,
}

/// What the command may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A test: /tmp only.
    Test,
    /// Compilation: /tmp and /box.
    Compile,
    /// Toolchain preparation, trusted: /tmp, /box and /cache.
    Prepare,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunLimits {
    pub cpu_us: u64,
    pub wall_us: u64,
    pub memory_bytes: u64,
    pub processes: u64,
    pub file_bytes: u64,
    pub output_bytes: u64,
}

/// The limit that ended a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exceeded {
    Cpu,
    Wall,
    Memory,
    Output,
}

/// Blobs: stdout, stderr.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    pub exit: Option<i32>,
    pub signal: Option<i32>,
    pub exceeded: Option<Exceeded>,
    pub cpu_us: u64,
    pub wall_us: u64,
    pub memory_kb: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The launcher entered its user namespace and waits for the id maps.
    Namespace,
    Ready,
    /// Files are in place. `server` says why no fork server stands, where one was asked for.
    Placed {
        server: Option<String>,
    },
    Ran(Outcome),
    /// Blobs: stdout, stderr, and those of the asked files that are there. `ended_us`: when the main process was seen
    /// to have ended, on the monotonic clock, in microseconds.
    RanWith {
        outcome: Outcome,
        fetched: Vec<bool>,
        ended_us: u64,
    },
    /// The sandbox failed; the program is not to blame.
    Fault(String),
}

/// # Errors
/// When the other side is gone.
pub fn send(out: &mut impl Write, header: &impl Serialize, blobs: &[&[u8]]) -> io::Result<()> {
    let header = serde_json::to_vec(header)?;
    let mut frame = Vec::with_capacity(16 + header.len() + blobs.iter().map(|b| b.len() + 8).sum::<usize>());
    frame.extend((header.len() as u64).to_le_bytes());
    frame.extend((blobs.len() as u64).to_le_bytes());
    for blob in blobs {
        frame.extend((blob.len() as u64).to_le_bytes());
    }
    frame.extend(&header);
    for blob in blobs {
        frame.extend(*blob);
    }
    out.write_all(&frame)
}

fn read_length(input: &mut impl Read) -> io::Result<usize> {
    let mut bytes = [0; 8];
    input.read_exact(&mut bytes)?;
    match u64::from_le_bytes(bytes) {
        n if n <= MAX_BLOB => Ok(n as usize),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long")),
    }
}

fn read_blob(input: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    input.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// # Errors
/// When the other side is gone or speaks nonsense.
pub fn receive<T: DeserializeOwned>(input: &mut impl Read) -> io::Result<(T, Vec<Vec<u8>>)> {
    let header = read_length(input)?;
    let count = read_length(input)?;
    if count > 4096 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many blobs"));
    }
    let lengths = (0..count).map(|_| read_length(input)).collect::<io::Result<Vec<_>>>()?;
    let header = serde_json::from_slice(&read_blob(input, header)?)?;
    let blobs = lengths.into_iter().map(|n| read_blob(input, n)).collect::<io::Result<_>>()?;
    Ok((header, blobs))
}
