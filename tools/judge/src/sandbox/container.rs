//! The container sandbox, from the judge's side: a launcher process, the socket to it, its ids and control group.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::cgroup::{Group, PREFIX};
use super::wire::{self, Reply, Request, Run, Server, Setup, Walls};
use super::{Detailed, Extras, Fault, Finished, Sandbox, descriptors};
use crate::owner::Owner;
use crate::{launcher, protections, wipe};

/// Compiled by build.rs.
const CHECKPOINT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/checkpoint.so"));
/// First of the host's user ids that programs get, when the judge is root; nobody else's on any system known to us.
const FIRST_UID: u32 = 61_500;
/// How long a launcher may take beside what it runs: an interpreter's start among it.
const GRACE: Duration = Duration::from_secs(90);
/// How long a launcher without namespaces may take to bury its programs.
const FAREWELL: Duration = Duration::from_secs(25);
/// The id inside.
const INSIDE: u32 = 1000;

/// What every worker's sandbox shows of the host beside the system's own folders.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Folders of the host and where they are shown, read-only.
    pub mounts: Vec<(PathBuf, PathBuf)>,
    /// Root folder of an image instead of the host's own folders.
    pub rootfs: Option<PathBuf>,
    pub cache: Option<PathBuf>,
}

/// How a launcher holds its programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In namespaces.
    Contained,
    /// Without them: Landlock, the filter, limits.
    Plain,
}

pub struct Container {
    launcher: Child,
    socket: UnixStream,
    /// Dropped after the launcher is gone.
    group: Option<Group>,
    /// The launcher's own, where it has no mounts.
    folder: Option<PathBuf>,
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.folder.is_some() {
            // It takes its programs with it, and its folder.
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
            let end = Instant::now() + FAREWELL;
            while matches!(self.launcher.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        // One that had to be killed may leave programs, which could put links into the folder: it stays for `clean`.
        let has_left = matches!(self.launcher.try_wait(), Ok(Some(_)));
        let _ = self.launcher.kill();
        let _ = self.launcher.wait();
        if let Some(folder) = self.folder.as_ref().filter(|_| has_left) {
            let _ = wipe::remove(folder);
        }
        drop(self.group.take());
    }
}

fn fault(what: &str) -> impl FnOnce(std::io::Error) -> Fault + '_ {
    move |e| Fault(format!("{what}: {e}"))
}

impl Container {
    /// Starts the launcher of worker `index` and waits until its namespaces stand.
    ///
    /// # Errors
    /// When this machine does not let us build them, with what to change.
    pub fn start(host: &Host, index: usize) -> Result<Self, Fault> {
        Self::start_as(Form::Contained, host, index)
    }

    /// As [`Container::start`], for a launcher of any form.
    ///
    /// # Errors
    /// As there.
    pub fn start_as(form: Form, host: &Host, index: usize) -> Result<Self, Fault> {
        let (ours, theirs) = UnixStream::pair().map_err(fault("socketpair"))?;
        let launcher = Command::new("/proc/self/exe")
            .arg0(launcher::NAME)
            .arg(Owner::this().to_string())
            .args((form == Form::Plain).then_some(launcher::PLAIN))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(fault("starting a launcher"))?;
        let mut container = Self { launcher, socket: ours, group: None, folder: None };
        let pid = container.launcher.id();
        match container.receive()?.0 {
            Reply::Namespace => {}
            other => return Err(Fault(format!("unexpected answer {other:?}"))),
        }
        let (ids, walls) = match form {
            Form::Contained => (map_ids(pid, index)?, Walls::Namespaces),
            Form::Plain => {
                let folder = own_folder(index)?;
                container.folder = Some(folder.clone());
                (own_ids(index), Walls::Landlock { folder })
            }
        };
        let group = Group::create(index, pid).ok();
        if group.is_some() {
            // When memory runs out the kernel must not choose the launcher; programs raise their own again.
            let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), "-1000");
        }
        let setup = Setup {
            mounts: host.mounts.clone(),
            rootfs: host.rootfs.clone(),
            cache: host.cache.clone(),
            ids,
            cgroup: group.as_ref().map(|g| g.files().clone()),
            protections: protections::chosen(),
            walls,
        };
        container.group = group;
        wire::send(&mut container.socket, &setup, &[CHECKPOINT]).map_err(fault("talking to the launcher"))?;
        match container.receive()?.0 {
            Reply::Ready => Ok(container),
            other => Err(Fault(format!("unexpected answer {other:?}"))),
        }
    }

    fn receive(&mut self) -> Result<(Reply, Vec<Vec<u8>>), Fault> {
        let (reply, blobs) = wire::receive(&mut self.socket).map_err(fault("the launcher is gone"))?;
        match reply {
            Reply::Fault(reason) => Err(Fault(reason)),
            reply => Ok((reply, blobs)),
        }
    }

    /// A launcher that does not answer in time, whatever the reason, must not hold up the judge for ever.
    fn expect_answer(&self, run: &Run) -> Result<(), Fault> {
        let patience = Duration::from_micros(run.limits.wall_us.saturating_mul(launcher::PATIENCE));
        self.socket.set_read_timeout(Some(patience + GRACE)).map_err(fault("setting a timeout"))
    }

    fn ask(&mut self, request: &Request, blobs: &[&[u8]]) -> Result<(Reply, Vec<Vec<u8>>), Fault> {
        wire::send(&mut self.socket, request, blobs).map_err(fault("talking to the launcher"))?;
        self.receive()
    }
}

/// A new folder of a sandbox that keeps files on the host, where temporary files go.
///
/// # Errors
/// When it cannot be made.
pub fn own_folder(index: usize) -> Result<PathBuf, Fault> {
    let folder = std::path::absolute(std::env::temp_dir()).unwrap_or_else(|_| "/tmp".into());
    let path = folder.join(format!("{PREFIX}{}-{index}", Owner::this()));
    // Programs under another user pass through; what is in it has modes of its own.
    let made = fs::DirBuilder::new().mode(0o711).create(&path);
    made.map_err(|e| Fault(format!("making {}: {e}", path.display())))?;
    Ok(path)
}

/// First of the user ids of programs without namespaces, when the judge is root: one for each worker of each judge, since
/// the kernel lets processes of one user reach each other. Far from all that systems hand out.
const FIRST_PLAIN_UID: u32 = 1 << 30;

/// Ids that belong to nobody; where this user namespace has no such numbers, lower ones.
fn own_ids(index: usize) -> Option<(u32, u32)> {
    // SAFETY: only reads.
    if unsafe { libc::geteuid() } != 0 {
        return None;
    }
    let worker = (std::process::id() & 0x3_ffff) << 12 | (index as u32 & 0xfff);
    let wanted = FIRST_PLAIN_UID + worker;
    let id = if is_mapped(wanted) { wanted } else { FIRST_UID + worker % 4000 };
    is_mapped(id).then_some((id, id))
}

/// Whether this user namespace has such a number.
fn is_mapped(id: u32) -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().filter_map(|n| n.parse::<u64>().ok());
        let (first, _, count) = (numbers.next(), numbers.next(), numbers.next());
        first.zip(count).is_some_and(|(first, count)| (first..first + count).contains(&u64::from(id)))
    })
}

/// The host's ids for programs of worker `index` in a user namespace of their own; `None` where only the judge's own can
/// be mapped.
pub fn second_ids(index: usize) -> Option<(u32, u32)> {
    let id = FIRST_UID + (index % 4000) as u32;
    // SAFETY: only reads.
    (unsafe { libc::geteuid() } == 0 && is_mapped(id)).then_some((id, id))
}

/// Root maps two ids, so that programs run as nobody that the host knows; an ordinary user can only map themselves.
fn map_ids(pid: u32, index: usize) -> Result<Option<(u32, u32)>, Fault> {
    // SAFETY: both only read.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let write = |name: &str, text: String| fs::write(format!("/proc/{pid}/{name}"), text);
    if uid == 0 {
        let outside = FIRST_UID + (index % 4000) as u32;
        let map = format!("0 0 1\n{INSIDE} {outside} 1\n");
        if write("uid_map", map.clone()).is_ok() {
            write("gid_map", map).map_err(fault("mapping group ids"))?;
            return Ok(Some((INSIDE, INSIDE)));
        }
    }
    let _ = write("setgroups", "deny".into());
    write("uid_map", format!("{INSIDE} {uid} 1\n")).map_err(fault("mapping user ids"))?;
    write("gid_map", format!("{INSIDE} {gid} 1\n")).map_err(fault("mapping group ids"))?;
    Ok(None)
}

impl Sandbox for Container {
    fn place(&mut self, files: &[(&str, &[u8])], server: Option<&Server>) -> Result<Option<String>, Fault> {
        let names = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        let blobs: Vec<&[u8]> = files.iter().map(|(_, bytes)| *bytes).collect();
        match self.ask(&Request::Place { names, server: server.cloned() }, &blobs)?.0 {
            Reply::Placed { server } => Ok(server),
            other => Err(Fault(format!("unexpected answer {other:?}"))),
        }
    }

    fn run(&mut self, run: &Run, stdin: &[u8]) -> Result<Finished, Fault> {
        self.expect_answer(run)?;
        match self.ask(&Request::Run(run.clone()), &[stdin])? {
            (Reply::Ran(outcome), mut blobs) if blobs.len() == 2 => {
                let stderr = blobs.pop().unwrap_or_default();
                let stdout = blobs.pop().unwrap_or_default();
                Ok(Finished { outcome, stdout, stderr })
            }
            (other, _) => Err(Fault(format!("unexpected answer {other:?}"))),
        }
    }

    fn has_extras(&self) -> bool {
        true
    }

    fn run_with(&mut self, run: &Run, stdin: &[u8], extras: Extras<'_>) -> Result<Detailed, Fault> {
        self.expect_answer(run)?;
        let names = |list: &mut dyn Iterator<Item = &str>| list.map(str::to_owned).collect::<Vec<_>>();
        let request = Request::RunWith {
            run: run.clone(),
            files: names(&mut extras.files.iter().map(|f| f.0)),
            fetch: names(&mut extras.fetch.iter().copied()),
            joined: extras.ends.is_some(),
        };
        let blobs: Vec<&[u8]> = std::iter::once(stdin).chain(extras.files.iter().map(|f| f.1)).collect();
        wire::send(&mut self.socket, &request, &blobs).map_err(fault("talking to the launcher"))?;
        if let Some(ends) = extras.ends {
            descriptors::send(&self.socket, &ends).map_err(fault("handing over pipes"))?;
        }
        let (reply, blobs) = self.receive()?;
        let mut blobs = blobs.into_iter();
        match (reply, blobs.next(), blobs.next()) {
            (Reply::RanWith { outcome, fetched, ended_us }, Some(stdout), Some(stderr)) => Ok(Detailed {
                finished: Finished { outcome, stdout, stderr },
                fetched: fetched.into_iter().map(|there| blobs.next().filter(|_| there)).collect(),
                ended_us,
            }),
            (other, ..) => Err(Fault(format!("unexpected answer {other:?}"))),
        }
    }
}
