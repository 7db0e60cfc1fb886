//! A guest as it stands once it has made what is the same for every program: an interpreter with its library loaded. Runs
//! begin there instead of making it again. What a guest's export `start` leaves in memory and globals becomes the
//! module's own data (Wizer); the judge does it when it first meets the guest, and keeps the result.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use wasmtime::{Engine, Instance, Linker, Module, Result, Store, Val};
use wasmtime_wizer::{InstanceState, SnapshotVal, ValType, Wizer};

use super::state::{Files, State};
use crate::sandbox::wire::RunLimits;

/// The export that makes it (guests/guest.h).
const START: &str = "start";

/// What `start` may use; guests are ours, so that this is only a bound on mistakes.
const LIMITS: RunLimits = RunLimits {
    cpu_us: 10_000_000,
    wall_us: 60_000_000,
    memory_bytes: 1 << 30,
    processes: 0,
    file_bytes: 0,
    output_bytes: 0,
};
const FUEL_PER_MS: u64 = 50_000_000;

/// The guest after its `start`; without one, as it is.
///
/// # Errors
/// When `start` fails, or the guest does what cannot be kept (tables that change).
pub fn taken(engine: &Engine, linker: &Linker<State>, guest: Vec<u8>) -> Result<Vec<u8>> {
    if Module::new(engine, &guest)?.get_export(START).is_none() {
        return Ok(guest);
    }
    let mut wizer = Wizer::new();
    wizer.init_func(START);
    let (context, instrumented) = wizer.instrument(&guest)?;
    let state = State::new(Arc::default(), Files::default(), LIMITS, FUEL_PER_MS);
    let fuel = state.fuel();
    let mut store = Store::new(engine, state);
    store.limiter(|state| state);
    store.set_fuel(fuel)?;
    store.set_epoch_deadline(u64::MAX / 2);
    let instance = linker.instantiate(&mut store, &Module::new(engine, &instrumented)?)?;
    instance.get_typed_func::<(), ()>(&mut store, START)?.call(&mut store, ())?;
    at_once(wizer.snapshot(&context, &mut Standing { store, instance }))
}

struct Standing {
    store: Store<State>,
    instance: Instance,
}

impl InstanceState for Standing {
    async fn global_get(&mut self, name: &str, _: ValType) -> SnapshotVal {
        let global = self.instance.get_global(&mut self.store, name).expect("Wizer exported it");
        match global.get(&mut self.store) {
            Val::I32(n) => SnapshotVal::I32(n),
            Val::I64(n) => SnapshotVal::I64(n),
            Val::F32(n) => SnapshotVal::F32(n),
            Val::F64(n) => SnapshotVal::F64(n),
            Val::V128(n) => SnapshotVal::V128(n.as_u128()),
            other => unreachable!("Wizer takes no guest with a global like {other:?}"),
        }
    }

    async fn memory_contents(&mut self, name: &str, contents: impl FnOnce(&[u8]) + Send) {
        let memory = self.instance.get_memory(&mut self.store, name).expect("Wizer exported it");
        contents(memory.data(&self.store));
    }
}

/// The value of a future that waits for nothing.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("nothing in it waits"),
    }
}
