//! `cog-judge serve`: SandboxFusion's HTTP interface in front of the judge's sandboxes, so that its client and trainers
//! that speak to it (verl) can use them.
//!
//! A thread a connection, as many as are allowed; a pool of sandboxes, as many as `-j` says. Whoever finds none free
//! waits. Nothing here starts foreign code but through the sandboxes.

mod execute;
mod http;
mod submit;
mod types;

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use cognate_cli::{Common, rejected, usage};
use cognate_languages::{Language, Languages};
use serde::de::DeserializeOwned;

use crate::cli::Serve;
use crate::image::System;
use crate::judge::Policy;
use crate::problems::Problems;
use crate::sandbox::kinds;
use crate::workers::{Bench, Shared};
use execute::Task;
use http::{Broken, Connection, Patience, Request, Response, Stream};
use types::{RunCode, RunCodeResult, Submit};

const PATIENCE: Patience = Patience { idle: Duration::from_secs(75), request: Duration::from_secs(30) };

/// What every connection needs.
struct Server<'a> {
    shared: &'a Shared,
    problems: Option<Problems>,
    token: Option<String>,
    max_body: usize,
    max_seconds: f64,
    pool: Pool<'a>,
    places: Places,
}

/// # Errors
/// When the address cannot be listened on, the token cannot be read, or the tests are bad (exit code 3).
pub fn run(common: &Common, flags: &Serve) -> anyhow::Result<()> {
    let languages = Languages::load(flags.languages.as_deref()).map_err(rejected)?;
    let token = flags.token()?;
    let problems = match &flags.tests[..] {
        [] => None,
        paths => Some(Problems::open(paths, &languages)?),
    };
    let threads = common.threads();
    let system = System::open(flags.sandbox.rootfs.as_deref())?;
    let runtime = flags.sandbox.oci_runtime.as_deref();
    let (tools, kinds) =
        kinds::open(flags.sandbox.kind, languages, !flags.no_fork_server, threads, system, runtime)
            .map_err(|fault| anyhow::anyhow!("no sandbox: {fault}"))?;
    if let Some(warning) = kinds.warning() {
        common.note(warning);
    }
    let policy = Policy { defaults: flags.limits.limits(), ..Policy::default() };
    let shared = Shared::new(kinds, tools, policy, common.quiet);
    let server = Server {
        shared: &shared,
        problems,
        token,
        max_body: (flags.max_body_mb as usize) << 20,
        max_seconds: flags.max_timeout as f64,
        pool: Pool::new((0..threads).map(|index| Bench::new(&shared, index)).collect()),
        places: Places::new(flags.connections.max(1)),
    };
    match flags.listen.strip_prefix("unix:") {
        Some(path) => {
            let listener = listen_unix(Path::new(path))?;
            common.note(format_args!("listening on {path}"));
            serve(&server, || listener.accept().map(|(stream, _)| stream))
        }
        None => {
            let listener = listen_tcp(&flags.listen, server.token.is_some())?;
            common.note(format_args!("listening on http://{}", listener.local_addr()?));
            serve(&server, || listener.accept().map(|(stream, _)| stream))
        }
    }
}

/// Other machines may only come with a token.
fn listen_tcp(address: &str, guarded: bool) -> anyhow::Result<TcpListener> {
    let found: Vec<SocketAddr> =
        address.to_socket_addrs().map_err(|e| usage(format!("--listen {address}: {e}")))?.collect();
    if !guarded && !found.iter().all(|a| a.ip().is_loopback()) {
        return Err(usage(format!(
            "--listen {address} can be reached from elsewhere: that needs --token-file"
        )));
    }
    TcpListener::bind(&found[..]).with_context(|| format!("listening on {address}"))
}

/// A socket that only its owner may open, in place of one that a dead server left.
fn listen_unix(path: &Path) -> anyhow::Result<UnixListener> {
    if UnixStream::connect(path).is_err()
        && std::fs::symlink_metadata(path)
            .is_ok_and(|m| std::os::unix::fs::FileTypeExt::is_socket(&m.file_type()))
    {
        let _ = std::fs::remove_file(path);
    }
    let place = || format!("listening on {}", path.display());
    // SAFETY: numbers only; no other thread makes files yet.
    let mask = unsafe { libc::umask(0o177) };
    let listener = UnixListener::bind(path).with_context(place);
    // SAFETY: as above.
    unsafe { libc::umask(mask) };
    let listener = listener?;
    crate::clean::note_socket(path);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).with_context(place)?;
    Ok(listener)
}

fn serve<S: Stream + Send>(
    server: &Server<'_>,
    mut accept: impl FnMut() -> std::io::Result<S>,
) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        loop {
            server.places.take();
            match accept() {
                Ok(stream) => {
                    // Programs of the WebAssembly sandbox run on this thread's stack.
                    let thread = std::thread::Builder::new().stack_size(server.shared.kinds.thread_stack());
                    let talk = || {
                        let _place = Taken(&server.places);
                        converse(server, stream);
                    };
                    if thread.spawn_scoped(scope, talk).is_err() {
                        drop(Taken(&server.places));
                    }
                }
                Err(_) => {
                    // Out of descriptors, or a connection that went at once: others may still come.
                    server.places.give();
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    })
}

fn converse<S: Stream>(server: &Server<'_>, stream: S) {
    let mut connection = Connection::new(stream, server.max_body, PATIENCE);
    loop {
        match connection.read(|request| server.refusal(request)) {
            Ok(request) => {
                let response = server.answer(&request);
                if connection.write(&response, request.keep_alive).is_err() || !request.keep_alive {
                    return;
                }
            }
            Err(Broken::Bad(response)) => return connection.refuse(&response),
            Err(Broken::Gone) => return,
        }
    }
}

impl<'a> Server<'a> {
    fn refusal(&self, request: &Request) -> Option<Response> {
        let allowed = self.is_allowed(&request.authorization);
        (!allowed).then(|| Response::detail(401, "the token is missing or wrong"))
    }

    fn answer(&self, request: &Request) -> Response {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/v1/ping") => Response::json(200, &"pong"),
            ("GET", "/health") => {
                Response::json(200, &serde_json::json!({ "status": "ok", "workers": self.pool.size }))
            }
            ("POST", "/run_code") => self.run_code(request),
            ("POST", "/submit") => match decode::<Submit>(request) {
                Ok(submit) => {
                    self.pool.with(|bench| submit::submit(self, bench, &submit)).unwrap_or_else(|r| r)
                }
                Err(response) => response,
            },
            ("POST", "/run_jupyter") => Response::detail(501, "notebooks are not judged here"),
            (_, "/v1/ping" | "/health" | "/run_code" | "/submit" | "/run_jupyter") => {
                Response::detail(405, "Method Not Allowed")
            }
            _ => Response::detail(404, "Not Found"),
        }
    }

    fn run_code(&self, request: &Request) -> Response {
        let asked: RunCode = match decode(request) {
            Ok(asked) => asked,
            Err(response) => return response,
        };
        for time in [asked.compile_timeout, asked.run_timeout] {
            if let Err(reason) = seconds(self, time) {
                return Response::detail(422, reason);
            }
        }
        // What this machine lacks is the sandbox's fault, never the program's.
        let language = match self.language(&asked.language) {
            Ok(language) => language,
            Err(reason) => return Response::json(200, &RunCodeResult::fault(reason)),
        };
        let task = match Task::new(self.shared, language, &asked) {
            Ok(task) => task,
            Err(reason) => return Response::detail(422, reason),
        };
        let stdin = asked.stdin.as_deref().unwrap_or_default().as_bytes();
        let results = self.pool.with(|bench| task.execute(self.shared, bench, &[stdin]));
        let result = results.map(|mut list| list.pop());
        Response::json(
            200,
            &match result {
                Ok(Some(result)) => result,
                Ok(None) => RunCodeResult::fault("no run"),
                Err(fault) => RunCodeResult::fault(fault),
            },
        )
    }

    /// The language by any of its spellings, if its programs can run here.
    fn language(&self, name: &str) -> Result<&'a Language, String> {
        let tools = &self.shared.tools;
        let language =
            tools.languages.by_spelling(name).ok_or_else(|| format!("unknown language {name:?}"))?;
        tools.usable(language)?;
        self.shared.kinds.of(language)?;
        Ok(language)
    }

    /// `Bearer TOKEN`, or `Basic` with the token as password, which `http://:TOKEN@HOST/` makes of itself.
    fn is_allowed(&self, authorization: &str) -> bool {
        let Some(token) = &self.token else { return true };
        let Some((scheme, given)) = authorization.split_once(' ') else { return false };
        let given = given.trim();
        if scheme.eq_ignore_ascii_case("basic") {
            let decoded = base64::engine::general_purpose::STANDARD.decode(given).unwrap_or_default();
            let password = decoded.splitn(2, |&b| b == b':').nth(1).unwrap_or_default();
            return same(password, token.as_bytes());
        }
        scheme.eq_ignore_ascii_case("bearer") && same(given.as_bytes(), token.as_bytes())
    }
}

/// Takes as long whatever the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |found, (x, y)| found | (x ^ y)) == 0
}

/// A page in a browser can make it send text to any address, but not JSON.
fn decode<T: DeserializeOwned>(request: &Request) -> Result<T, Response> {
    if !request.content_type.to_ascii_lowercase().starts_with("application/json") {
        return Err(Response::detail(415, "Content-Type must be application/json"));
    }
    serde_json::from_slice(&request.body).map_err(|e| Response::detail(422, e.to_string()))
}

fn seconds(server: &Server<'_>, time: f64) -> Result<f64, String> {
    if time > 0.0 && time <= server.max_seconds {
        Ok(time)
    } else {
        Err(format!("a timeout must be above 0 and at most {} s, not {time}", server.max_seconds))
    }
}

/// Workers' sandboxes, one for each that may run at a time.
struct Pool<'a> {
    free: Mutex<Vec<Bench<'a>>>,
    given: Condvar,
    size: usize,
}

impl<'a> Pool<'a> {
    fn new(free: Vec<Bench<'a>>) -> Self {
        Self { size: free.len(), free: Mutex::new(free), given: Condvar::new() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Bench<'a>) -> T) -> T {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bench = loop {
            match free.pop() {
                Some(bench) => break bench,
                None => free = self.given.wait(free).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(free);
        let outcome = act(&mut bench);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(bench);
        self.given.notify_one();
        outcome
    }
}

/// How many more connections there may be.
struct Places {
    left: Mutex<usize>,
    given: Condvar,
}

impl Places {
    fn new(count: usize) -> Self {
        Self { left: Mutex::new(count), given: Condvar::new() }
    }

    fn take(&self) {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = self.given.wait_while(left, |n| *n == 0).unwrap_or_else(PoisonError::into_inner);
        *left -= 1;
    }

    fn give(&self) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.given.notify_one();
    }
}

/// Gives a place back, however its connection ends.
struct Taken<'a>(&'a Places);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.give();
    }
}
