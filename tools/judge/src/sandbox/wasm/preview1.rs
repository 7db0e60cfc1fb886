//! WASI preview 1 (`wasi_snapshot_preview1`, witx of the WASI subgroup) as far as a judged program needs it, and no
//! further: arguments, three streams, the files of /box read-only, a clock that only the program's own work and sleep
//! move, and random numbers that are the same in every run. There is no host behind it: no file descriptor, path,
//! clock or random source of this machine is reachable from here, so a run is a function of the program and its input.
//!
//! Written by hand rather than taken from wasmtime-wasi, whose contexts open the host and are made for it.

use wasmtime::{Caller, Extern, Func, FuncType, Linker, Ref, Result, Val, ValType};

use super::state::{Descriptor, Exit, State, Thrown};

const MODULE: &str = "wasi_snapshot_preview1";

/// Error numbers, by their names there.
mod errno {
    pub const SUCCESS: i32 = 0;
    pub const BADF: i32 = 8;
    pub const FAULT: i32 = 21;
    pub const INVAL: i32 = 28;
    pub const NOENT: i32 = 44;
    pub const NOSYS: i32 = 52;
    pub const NOTDIR: i32 = 54;
    pub const ROFS: i32 = 69;
}

/// File types.
const UNKNOWN: u8 = 0;
const DIRECTORY: u8 = 3;
const REGULAR: u8 = 4;

/// Everything that this system does not have, with its parameters (`i` 32, `l` 64 bits). It answers "no such function".
const ABSENT: [(&str, &str); 24] = [
    ("fd_advise", "illi"),
    ("fd_allocate", "ill"),
    ("fd_datasync", "i"),
    ("fd_fdstat_set_rights", "ill"),
    ("fd_filestat_set_size", "il"),
    ("fd_filestat_set_times", "illi"),
    ("fd_pread", "iiili"),
    ("fd_pwrite", "iiili"),
    ("fd_readdir", "iiili"),
    ("fd_renumber", "ii"),
    ("fd_sync", "i"),
    ("path_create_directory", "iii"),
    ("path_filestat_set_times", "iiiilli"),
    ("path_link", "iiiiiii"),
    ("path_readlink", "iiiiii"),
    ("path_remove_directory", "iii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("proc_raise", "i"),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
];

/// A failed call's error number.
type Call<T = ()> = std::result::Result<T, i32>;

/// The program's memory and the run's state.
struct View<'a> {
    memory: &'a mut [u8],
    state: &'a mut State,
}

impl View<'_> {
    fn bytes(&mut self, at: u32, length: u32) -> Call<&mut [u8]> {
        let start = at as usize;
        self.memory.get_mut(start..start + length as usize).ok_or(errno::FAULT)
    }

    fn put<const N: usize>(&mut self, at: u32, bytes: [u8; N]) -> Call {
        self.bytes(at, N as u32)?.copy_from_slice(&bytes);
        Ok(())
    }

    fn u16(&mut self, at: u32) -> Call<u16> {
        Ok(u16::from_le_bytes(self.bytes(at, 2)?.try_into().expect("two bytes")))
    }

    fn u32(&mut self, at: u32) -> Call<u32> {
        Ok(u32::from_le_bytes(self.bytes(at, 4)?.try_into().expect("four bytes")))
    }

    fn u64(&mut self, at: u32) -> Call<u64> {
        Ok(u64::from_le_bytes(self.bytes(at, 8)?.try_into().expect("eight bytes")))
    }

    /// The pieces of memory that an array of (address, length) names.
    fn pieces(&mut self, at: u32, count: u32) -> Call<Vec<(u32, u32)>> {
        if count > 1024 {
            return Err(errno::INVAL);
        }
        (0..count)
            .map(|i| {
                let at = at.checked_add(i * 8).ok_or(errno::FAULT)?;
                Ok((self.u32(at)?, self.u32(at.checked_add(4).ok_or(errno::FAULT)?)?))
            })
            .collect()
    }

    /// Strings with a closing zero at `text`, their addresses at `table`.
    fn strings(&mut self, of: fn(&State) -> Vec<Vec<u8>>, table: u32, text: u32) -> Call {
        let mut at = text;
        for (i, string) in of(self.state).iter().enumerate() {
            self.put(table + 4 * i as u32, at.to_le_bytes())?;
            self.bytes(at, string.len() as u32)?.copy_from_slice(string);
            at += string.len() as u32;
        }
        Ok(())
    }

    fn sizes(&mut self, of: fn(&State) -> Vec<Vec<u8>>, count: u32, bytes: u32) -> Call {
        let list = of(self.state);
        self.put(count, (list.len() as u32).to_le_bytes())?;
        self.put(bytes, (list.iter().map(Vec::len).sum::<usize>() as u32).to_le_bytes())
    }
}

fn terminated(list: &[String]) -> Vec<Vec<u8>> {
    list.iter().map(|s| [s.as_bytes(), b"\0"].concat()).collect()
}

fn arguments(state: &State) -> Vec<Vec<u8>> {
    terminated(&state.arguments)
}

fn environment(state: &State) -> Vec<Vec<u8>> {
    terminated(&state.environment)
}

/// Does one call on the program's memory. An error number goes back to the program; what a limit forbids ends the run.
fn call(caller: &mut Caller<'_, State>, body: impl FnOnce(&mut View) -> Call) -> Result<i32> {
    State::enter(caller);
    let answer = match caller.get_export("memory") {
        Some(Extern::Memory(memory)) => {
            let (memory, state) = memory.data_and_store_mut(&mut *caller);
            body(&mut View { memory, state })
        }
        _ => Err(errno::FAULT),
    };
    State::leave(caller);
    if let Some(limit) = caller.data().exceeded {
        return Err(wasmtime::Error::msg(format!("{limit:?} limit")));
    }
    Ok(answer.err().unwrap_or(errno::SUCCESS))
}

fn fd_write(view: &mut View, fd: u32, at: u32, count: u32, written: u32) -> Call {
    let which = match view.state.descriptor(fd) {
        Some(Descriptor::Stdout) => 0,
        Some(Descriptor::Stderr) => 1,
        Some(Descriptor::Input { .. } | Descriptor::File { .. } | Descriptor::Folder(_)) | None => {
            return Err(errno::BADF);
        }
    };
    let mut total = 0u32;
    for (at, length) in view.pieces(at, count)? {
        let bytes = view.memory.get(at as usize..at as usize + length as usize).ok_or(errno::FAULT)?;
        view.state.write(which, bytes);
        total = total.saturating_add(length);
    }
    view.put(written, total.to_le_bytes())
}

fn fd_read(view: &mut View, fd: u32, at: u32, count: u32, read: u32) -> Call {
    let mut total = 0u32;
    for (at, length) in view.pieces(at, count)? {
        let bytes = view.memory.get_mut(at as usize..at as usize + length as usize).ok_or(errno::FAULT)?;
        let n = view.state.read(fd, bytes).ok_or(errno::BADF)? as u32;
        total += n;
        if n < length {
            break;
        }
    }
    view.put(read, total.to_le_bytes())
}

fn fd_seek(view: &mut View, fd: u32, offset: i64, whence: u32, position: u32) -> Call {
    let length = view.state.length(fd).ok_or(errno::BADF)? as i64;
    let at = view.state.position(fd).ok_or(errno::BADF)?;
    let base = match whence {
        0 => 0,
        1 => *at as i64,
        2 => length,
        _ => return Err(errno::INVAL),
    };
    let to = base.checked_add(offset).filter(|&p| p >= 0).ok_or(errno::INVAL)?;
    *at = to as usize;
    view.put(position, to.to_le_bytes())
}

fn file_type(descriptor: &Descriptor) -> u8 {
    match descriptor {
        Descriptor::Stdout | Descriptor::Stderr => UNKNOWN, // a pipe, so that it is not taken for a terminal
        Descriptor::Input { .. } | Descriptor::File { .. } => REGULAR,
        Descriptor::Folder(_) => DIRECTORY,
    }
}

fn fd_fdstat_get(view: &mut View, fd: u32, at: u32) -> Call {
    let mut bytes = [0; 24];
    bytes[0] = file_type(view.state.descriptor(fd).ok_or(errno::BADF)?);
    bytes[8..].fill(0xff); // all rights
    view.put(at, bytes)
}

fn put_filestat(view: &mut View, at: u32, kind: u8, size: usize) -> Call {
    let mut bytes = [0; 64];
    bytes[16] = kind;
    bytes[24] = 1;
    bytes[32..40].copy_from_slice(&(size as u64).to_le_bytes());
    view.put(at, bytes)
}

fn fd_filestat_get(view: &mut View, fd: u32, at: u32) -> Call {
    let kind = file_type(view.state.descriptor(fd).ok_or(errno::BADF)?);
    let size = view.state.length(fd).unwrap_or(0);
    put_filestat(view, at, kind, size)
}

/// What a path below an open folder names.
fn find(view: &mut View, fd: u32, at: u32, length: u32) -> Call<Descriptor> {
    let path = String::from_utf8_lossy(view.bytes(at, length)?).into_owned();
    match view.state.descriptor(fd) {
        Some(Descriptor::Folder(folder)) => {
            let folder = *folder;
            view.state.find(folder, path.trim_start_matches("./")).ok_or(errno::NOENT)
        }
        Some(_) => Err(errno::NOTDIR),
        None => Err(errno::BADF),
    }
}

/// `oflags`: create 1, directory 2, exclusive 4, truncate 8. Right 64 is that to write.
fn path_open(view: &mut View, fd: u32, path: (u32, u32), flags: u32, rights: u64, opened: u32) -> Call {
    let descriptor = match find(view, fd, path.0, path.1) {
        Err(errno::NOENT) if flags & 1 != 0 => return Err(errno::ROFS),
        other => other?,
    };
    if matches!(descriptor, Descriptor::File { .. })
        && (flags & 8 != 0 || (flags & 1 != 0 && rights & 64 != 0))
    {
        return Err(errno::ROFS);
    }
    if flags & 2 != 0 && !matches!(descriptor, Descriptor::Folder(_)) {
        return Err(errno::NOTDIR);
    }
    let fd = view.state.open(descriptor).ok_or(errno::INVAL)?;
    view.put(opened, fd.to_le_bytes())
}

fn fd_prestat_get(view: &mut View, fd: u32, at: u32) -> Call {
    let length = match view.state.preopened(fd) {
        Some(name) => name.len() as u32,
        None => return Err(errno::BADF),
    };
    view.put(at, 0u32.to_le_bytes())?;
    view.put(at + 4, length.to_le_bytes())
}

fn fd_prestat_dir_name(view: &mut View, fd: u32, at: u32, length: u32) -> Call {
    let name = view.state.preopened(fd).ok_or(errno::BADF)?;
    if name.len() > length as usize {
        return Err(errno::INVAL);
    }
    view.bytes(at, name.len() as u32)?.copy_from_slice(name.as_bytes());
    Ok(())
}

/// Streams are always ready; a sleep moves the clock and costs nothing else.
fn poll_oneoff(view: &mut View, subscriptions: u32, events: u32, count: u32, ready: u32) -> Call {
    if count == 0 || count > 1024 {
        return Err(errno::INVAL);
    }
    let mut list = Vec::new();
    for i in 0..count {
        let at = subscriptions.checked_add(48 * i).filter(|&at| at < u32::MAX - 48).ok_or(errno::FAULT)?;
        let (user, kind) = (view.u64(at)?, view.bytes(at + 8, 1)?[0]);
        let mut wait = 0;
        if kind == 0 {
            let (clock, timeout) = (view.u32(at + 16)?, view.u64(at + 24)?);
            let absolute = view.u16(at + 40)? & 1 != 0;
            wait = if absolute { timeout.saturating_sub(view.state.clock(clock)) } else { timeout };
        }
        list.push((user, kind, wait));
    }
    let soonest = list.iter().map(|&(.., wait)| wait).min().unwrap_or(0);
    view.state.sleep(soonest);
    let mut happened = 0;
    for (user, kind, wait) in list {
        if wait <= soonest {
            let mut event = [0; 32];
            event[..8].copy_from_slice(&user.to_le_bytes());
            event[10] = kind;
            event[16..24].copy_from_slice(&1u64.to_le_bytes());
            view.put(events.checked_add(32 * happened).ok_or(errno::FAULT)?, event)?;
            happened += 1;
        }
    }
    view.put(ready, happened.to_le_bytes())
}

type C<'a> = Caller<'a, State>;

/// # Errors
/// Never in practice: the names are distinct.
pub fn add_to(linker: &mut Linker<State>) -> Result<()> {
    let l = linker;
    l.func_wrap(MODULE, "args_sizes_get", |mut c: C, count: u32, bytes: u32| {
        call(&mut c, |v| v.sizes(arguments, count, bytes))
    })?;
    l.func_wrap(MODULE, "args_get", |mut c: C, table: u32, text: u32| {
        call(&mut c, |v| v.strings(arguments, table, text))
    })?;
    l.func_wrap(MODULE, "environ_sizes_get", |mut c: C, count: u32, bytes: u32| {
        call(&mut c, |v| v.sizes(environment, count, bytes))
    })?;
    l.func_wrap(MODULE, "environ_get", |mut c: C, table: u32, text: u32| {
        call(&mut c, |v| v.strings(environment, table, text))
    })?;
    l.func_wrap(MODULE, "clock_res_get", |mut c: C, _clock: u32, at: u32| {
        call(&mut c, |v| v.put(at, 1000u64.to_le_bytes()))
    })?;
    l.func_wrap(MODULE, "clock_time_get", |mut c: C, clock: u32, _precision: u64, at: u32| {
        call(&mut c, |v| v.put(at, v.state.clock(clock).to_le_bytes()))
    })?;
    l.func_wrap(MODULE, "fd_close", |mut c: C, fd: u32| {
        call(&mut c, |v| v.state.close(fd).ok_or(errno::BADF))
    })?;
    l.func_wrap(MODULE, "fd_fdstat_get", |mut c: C, fd: u32, at: u32| {
        call(&mut c, |v| fd_fdstat_get(v, fd, at))
    })?;
    l.func_wrap(MODULE, "fd_fdstat_set_flags", |mut c: C, fd: u32, _flags: u32| {
        call(&mut c, |v| v.state.descriptor(fd).map(|_| ()).ok_or(errno::BADF))
    })?;
    l.func_wrap(MODULE, "fd_filestat_get", |mut c: C, fd: u32, at: u32| {
        call(&mut c, |v| fd_filestat_get(v, fd, at))
    })?;
    l.func_wrap(MODULE, "fd_prestat_get", |mut c: C, fd: u32, at: u32| {
        call(&mut c, |v| fd_prestat_get(v, fd, at))
    })?;
    l.func_wrap(MODULE, "fd_prestat_dir_name", |mut c: C, fd: u32, at: u32, length: u32| {
        call(&mut c, |v| fd_prestat_dir_name(v, fd, at, length))
    })?;
    l.func_wrap(MODULE, "fd_read", |mut c: C, fd: u32, at: u32, count: u32, read: u32| {
        call(&mut c, |v| fd_read(v, fd, at, count, read))
    })?;
    l.func_wrap(MODULE, "fd_write", |mut c: C, fd: u32, at: u32, count: u32, written: u32| {
        call(&mut c, |v| fd_write(v, fd, at, count, written))
    })?;
    l.func_wrap(MODULE, "fd_seek", |mut c: C, fd: u32, offset: i64, whence: u32, position: u32| {
        call(&mut c, |v| fd_seek(v, fd, offset, whence, position))
    })?;
    l.func_wrap(MODULE, "fd_tell", |mut c: C, fd: u32, position: u32| {
        call(&mut c, |v| fd_seek(v, fd, 0, 1, position))
    })?;
    l.func_wrap(
        MODULE,
        "path_open",
        |mut c: C, fd: u32, _: u32, at: u32, n: u32, flags: u32, rights: u64, _: u64, _: u32, opened: u32| {
            call(&mut c, |v| path_open(v, fd, (at, n), flags, rights, opened))
        },
    )?;
    l.func_wrap(
        MODULE,
        "path_filestat_get",
        |mut c: C, fd: u32, _: u32, at: u32, length: u32, stat: u32| {
            call(&mut c, |v| {
                let found = find(v, fd, at, length)?;
                let size = v.state.size(&found).unwrap_or(0);
                put_filestat(v, stat, file_type(&found), size)
            })
        },
    )?;
    l.func_wrap(
        MODULE,
        "poll_oneoff",
        |mut c: C, subscriptions: u32, events: u32, count: u32, ready: u32| {
            call(&mut c, |v| poll_oneoff(v, subscriptions, events, count, ready))
        },
    )?;
    l.func_wrap(MODULE, "random_get", |mut c: C, at: u32, length: u32| {
        call(&mut c, |v| {
            let bytes = v.memory.get_mut(at as usize..at as usize + length as usize).ok_or(errno::FAULT)?;
            v.state.random(bytes);
            Ok(())
        })
    })?;
    l.func_wrap(MODULE, "sched_yield", || 0i32)?;
    l.func_wrap(MODULE, "proc_exit", |_: C, code: u32| -> Result<()> { Err(Exit(code).into()) })?;
    for (name, parameters) in ABSENT {
        let types = parameters.chars().map(|p| if p == 'l' { ValType::I64 } else { ValType::I32 });
        let signature = FuncType::new(l.engine(), types, [ValType::I32]);
        l.func_new(MODULE, name, signature, |_, _, results| {
            results[0] = Val::I32(errno::NOSYS);
            Ok(())
        })?;
    }
    Ok(())
}

/// Module `cognate`, for guests in C that leave a deep call at once (Lua's errors): `try` calls a function of the
/// guest's table, `throw` unwinds to the innermost `try`, which then answers 1.
///
/// # Errors
/// As [`add_to`].
pub fn add_unwinding_to(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap("cognate", "throw", |_: C| -> Result<()> { Err(Thrown.into()) })?;
    linker.func_wrap("cognate", "try", |mut c: C, function: u32, a: u32, b: u32| -> Result<i32> {
        let Some(Extern::Table(table)) = c.get_export("__indirect_function_table") else {
            return Err(wasmtime::Error::msg("no table of functions"));
        };
        let entry: Option<Func> = match table.get(&mut c, u64::from(function)) {
            Some(Ref::Func(entry)) => entry,
            _ => None,
        };
        let entry = entry.ok_or_else(|| wasmtime::Error::msg("no such function"))?;
        State::enter(&mut c);
        State::leave(&mut c);
        match entry.typed::<(u32, u32), ()>(&c)?.call(&mut c, (a, b)) {
            Ok(()) => Ok(0),
            Err(error) if error.is::<Thrown>() => Ok(1),
            Err(error) => Err(error),
        }
    })?;
    Ok(())
}
