//! WASI 0.2 for guests that are components (Python), as far as an interpreter started before needs it: the same
//! streams, clock and random numbers as `preview1`, no folder and no socket. What else such a guest imports traps.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{
    Component, ComponentType, InstancePre, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType,
};
use wasmtime::{Engine, Result, Store, StoreContextMut};

use super::state::{Exit, Files, State};

/// Reading more at once gains nothing.
const CHUNK: u64 = 64 << 10;

/// What handles of the guest stand for. Streams are named by descriptor, pollables by place in the run's list.
enum Failure {}
enum Pollable {}
enum Input {}
enum Output {}
enum Terminal {}
enum Folder {}
/// What only functions that trap would hand out.
enum Absent {}

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    Failed(Resource<Failure>),
    #[component(name = "closed")]
    Closed,
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

type Cx<'a> = StoreContextMut<'a, State>;
type Stream<T = ()> = Result<(std::result::Result<T, StreamError>,)>;

/// Brings the run's clock up to date.
fn at(cx: &mut Cx) -> u64 {
    State::enter(cx);
    State::leave(cx);
    cx.data().now_ns()
}

fn read(mut cx: Cx, (stream, length): (Resource<Input>, u64)) -> Stream<Vec<u8>> {
    let mut bytes = vec![0; length.min(CHUNK) as usize];
    State::enter(&mut cx);
    let n = cx.data_mut().read(stream.rep(), &mut bytes).unwrap_or(0);
    State::leave(&mut cx);
    bytes.truncate(n);
    Ok((if n == 0 && length > 0 { Err(StreamError::Closed) } else { Ok(bytes) },))
}

fn write(mut cx: Cx, (stream, bytes): (Resource<Output>, Vec<u8>)) -> Stream {
    State::enter(&mut cx);
    cx.data_mut().write(if stream.rep() == 1 { 0 } else { 1 }, &bytes);
    State::leave(&mut cx);
    match cx.data().exceeded {
        Some(limit) => Err(wasmtime::Error::msg(format!("{limit:?} limit"))),
        None => Ok((Ok(()),)),
    }
}

fn done(_: Cx, _: (Resource<Output>,)) -> Stream {
    Ok((Ok(()),))
}

fn pollable(mut cx: Cx, deadline: u64) -> Result<(Resource<Pollable>,)> {
    Ok((Resource::new_own(cx.data_mut().wait_for(deadline)),))
}

/// Sleeps until the first is ready.
fn poll(mut cx: Cx, (list,): (Vec<Resource<Pollable>>,)) -> Result<(Vec<u32>,)> {
    let now = at(&mut cx);
    let deadlines: Vec<u64> = list.iter().map(|p| cx.data().deadline(p.rep())).collect();
    let soonest = deadlines.iter().min().copied().unwrap_or(now);
    let state = cx.data_mut();
    state.sleep(soonest.saturating_sub(now));
    if state.exceeded.is_some() {
        return Err(wasmtime::Error::msg("wall limit"));
    }
    let until = now.max(soonest);
    Ok(((0..).zip(deadlines).filter(|(_, d)| *d <= until).map(|(i, _)| i).collect(),))
}

fn random(cx: &mut Cx, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length.min(CHUNK) as usize];
    State::enter(cx);
    cx.data_mut().random(&mut bytes);
    State::leave(cx);
    bytes
}

/// Interfaces pass resources on under the same names: the same type must stand wherever one is named.
fn resource(interface: &mut LinkerInstance<State>, name: &str) -> Result<()> {
    let kind = match name {
        "error" => ResourceType::host::<Failure>(),
        "pollable" => ResourceType::host::<Pollable>(),
        "input-stream" => ResourceType::host::<Input>(),
        "output-stream" => ResourceType::host::<Output>(),
        "terminal-input" | "terminal-output" => ResourceType::host::<Terminal>(),
        "descriptor" => ResourceType::host::<Folder>(),
        _ => ResourceType::host::<Absent>(),
    };
    let is_pollable = name == "pollable";
    interface.resource(name, kind, move |mut cx, place| {
        if is_pollable {
            cx.data_mut().forget(place);
        }
        Ok(())
    })
}

/// Everything under the version of WASI that the component asks for; stubs for the rest would not look for another.
fn link(linker: &mut Linker<State>, version: &str) -> Result<()> {
    let named = |interface: &str| format!("wasi:{interface}@{version}");
    io(linker, named)?;
    cli(linker, named)?;
    let mut clock = linker.instance(&named("clocks/monotonic-clock"))?;
    clock.func_wrap("now", |mut cx: Cx, (): ()| Ok((at(&mut cx),)))?;
    clock.func_wrap("resolution", |_: Cx, (): ()| Ok((1000u64,)))?;
    clock.func_wrap("subscribe-instant", |cx: Cx, (when,): (u64,)| pollable(cx, when))?;
    clock.func_wrap("subscribe-duration", |mut cx: Cx, (wait,): (u64,)| {
        let now = at(&mut cx);
        pollable(cx, now.saturating_add(wait))
    })?;
    let mut clock = linker.instance(&named("clocks/wall-clock"))?;
    clock.func_wrap("now", |mut cx: Cx, (): ()| {
        at(&mut cx);
        let ns = cx.data().clock(0);
        Ok((Datetime { seconds: ns / 1_000_000_000, nanoseconds: (ns % 1_000_000_000) as u32 },))
    })?;
    clock.func_wrap("resolution", |_: Cx, (): ()| Ok((Datetime { seconds: 0, nanoseconds: 1000 },)))?;
    let mut source = linker.instance(&named("random/random"))?;
    source.func_wrap("get-random-bytes", |mut cx: Cx, (n,): (u64,)| Ok((random(&mut cx, n),)))?;
    source.func_wrap("get-random-u64", |mut cx: Cx, (): ()| {
        let bytes = random(&mut cx, 8);
        Ok((u64::from_le_bytes(bytes.try_into().expect("eight bytes")),))
    })?;
    let mut folders = linker.instance(&named("filesystem/preopens"))?;
    folders.func_wrap("get-directories", |_: Cx, (): ()| Ok((Vec::<(Resource<Folder>, String)>::new(),)))?;
    Ok(())
}

fn io(linker: &mut Linker<State>, named: impl Fn(&str) -> String) -> Result<()> {
    let mut polls = linker.instance(&named("io/poll"))?;
    polls.func_wrap("[method]pollable.ready", |mut cx: Cx, (p,): (Resource<Pollable>,)| {
        let now = at(&mut cx);
        Ok((cx.data().deadline(p.rep()) <= now,))
    })?;
    polls.func_wrap("[method]pollable.block", |cx: Cx, (p,): (Resource<Pollable>,)| {
        poll(cx, (vec![p],)).map(|_| ())
    })?;
    polls.func_wrap("poll", poll)?;
    let mut streams = linker.instance(&named("io/streams"))?;
    streams.func_wrap("[method]input-stream.read", read)?;
    streams.func_wrap("[method]input-stream.blocking-read", read)?;
    streams.func_wrap("[method]input-stream.subscribe", |cx: Cx, _: (Resource<Input>,)| pollable(cx, 0))?;
    streams
        .func_wrap("[method]output-stream.check-write", |_: Cx, _: (Resource<Output>,)| -> Stream<u64> {
            Ok((Ok(CHUNK),))
        })?;
    streams.func_wrap("[method]output-stream.write", write)?;
    streams.func_wrap("[method]output-stream.blocking-write-and-flush", write)?;
    streams.func_wrap("[method]output-stream.flush", done)?;
    streams.func_wrap("[method]output-stream.blocking-flush", done)?;
    streams.func_wrap("[method]output-stream.subscribe", |cx: Cx, _: (Resource<Output>,)| pollable(cx, 0))
}

fn cli(linker: &mut Linker<State>, named: impl Fn(&str) -> String) -> Result<()> {
    let mut environment = linker.instance(&named("cli/environment"))?;
    environment.func_wrap("get-environment", |cx: Cx, (): ()| {
        let pairs = cx.data().environment.iter().filter_map(|pair| pair.split_once('='));
        Ok((pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>(),))
    })?;
    environment.func_wrap("get-arguments", |cx: Cx, (): ()| Ok((cx.data().arguments.clone(),)))?;
    environment.func_wrap("initial-cwd", |_: Cx, (): ()| Ok((None::<String>,)))?;
    let mut exit = linker.instance(&named("cli/exit"))?;
    exit.func_wrap("exit", |_: Cx, (status,): (std::result::Result<(), ()>,)| -> Result<()> {
        Err(Exit(u32::from(status.is_err())).into())
    })?;
    linker
        .instance(&named("cli/stdin"))?
        .func_wrap("get-stdin", |_: Cx, (): ()| Ok((Resource::<Input>::new_own(0),)))?;
    for (rep, name) in [(1, "stdout"), (2, "stderr")] {
        linker
            .instance(&named(&format!("cli/{name}")))?
            .func_wrap(&format!("get-{name}"), move |_: Cx, (): ()| {
                Ok((Resource::<Output>::new_own(rep),))
            })?;
    }
    for name in ["stdin", "stdout", "stderr"] {
        linker
            .instance(&named(&format!("cli/terminal-{name}")))?
            .func_wrap(&format!("get-terminal-{name}"), |_: Cx, (): ()| Ok((None::<Resource<Terminal>>,)))?;
    }
    Ok(())
}

/// A guest that exports `run: func(source: string) -> s32`, ready to be started.
#[derive(Clone)]
pub struct ComponentPre(InstancePre<State>);

impl ComponentPre {
    /// # Errors
    /// When the component asks for other types than WASI 0.2 has.
    pub fn new(engine: &Engine, component: &Component) -> Result<Self> {
        let kind = component.component_type();
        let mut linker = Linker::new(engine);
        let mut version = None;
        for (name, import) in kind.imports(engine) {
            version = version.or_else(|| Some(name.strip_prefix("wasi:")?.split_once('@')?.1.to_owned()));
            if let ComponentItem::ComponentInstance(instance) = import.ty {
                for (export, _) in
                    instance.exports(engine).filter(|(_, e)| matches!(e.ty, ComponentItem::Resource(_)))
                {
                    resource(&mut linker.instance(name)?, export)?;
                }
            }
        }
        link(&mut linker, version.as_deref().unwrap_or("0.2.0"))?;
        linker.define_unknown_imports_as_traps(component)?;
        linker.instantiate_pre(component).map(Self)
    }

    /// # Errors
    /// How the run ended, where not with status 0.
    pub fn start(&self, store: &mut Store<State>, files: &Files) -> Result<()> {
        let source = files.first().map_or("".into(), |(_, bytes)| String::from_utf8_lossy(bytes));
        let instance = self.0.instantiate(&mut *store)?;
        let run = instance.get_typed_func::<(&str,), (i32,)>(&mut *store, "run")?;
        match run.call(&mut *store, (&source,))? {
            (0,) => Ok(()),
            (status,) => Err(Exit(status as u32).into()),
        }
    }
}
