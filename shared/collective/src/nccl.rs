//! Ranks with a GPU each, by NVIDIA's NCCL. UNPROVEN: written against its documentation and compiled,
//! never run; two GPUs have yet to.
//!
//! Sums are taken in the order of the ring or tree that NCCL chooses for the machine and documents
//! nowhere; of bf16 every addition is rounded.
//!
//! The library is opened when it is first asked for; without it [`Nccl::join`] says so.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::sys as driver;
use cudarc::nccl::sys;

use crate::rendezvous::Rendezvous;
use crate::{Collective, CollectiveError, DeviceSlice, Element, SharedMemory};

/// The operations, between GPUs. Work is enqueued on one stream and waited for at the end of each call.
pub struct Nccl {
    place: Arc<Rendezvous>,
    comm: sys::ncclComm_t,
    stream: driver::CUstream,
    /// One value, for the barrier.
    token: driver::CUdeviceptr,
}

// SAFETY: the communicator, the stream and the token are used by one thread at a time, through `&mut self`.
unsafe impl Send for Nccl {}

impl Nccl {
    /// # Errors
    /// When the driver or NCCL is not installed.
    pub fn installed() -> Result<(), CollectiveError> {
        // SAFETY: opening NVIDIA's libraries runs their initialisers, which ask nothing of the caller.
        if !unsafe { driver::is_culib_present() } {
            return Err(CollectiveError::Missing("the CUDA driver (libcuda.so)"));
        }
        // SAFETY: as above.
        if !unsafe { sys::is_culib_present() } {
            return Err(CollectiveError::Missing("NCCL (libnccl.so)"));
        }
        Ok(())
    }

    /// Joins the ranks that have met in `host`; the calling thread's current context is this rank's device, which no
    /// other rank has. While NCCL joins, a rank that ends is noticed by NCCL or by nobody.
    ///
    /// # Errors
    /// When NCCL is not installed, a rank has ended, or NCCL refuses.
    pub fn join(host: &mut SharedMemory) -> Result<Self, CollectiveError> {
        Self::installed()?;
        let mut bytes = [0.0; ID_BYTES];
        if host.rank() == 0 {
            let mut id = MaybeUninit::uninit();
            // SAFETY: NCCL fills the id.
            nccl("making an id", unsafe { sys::ncclGetUniqueId(id.as_mut_ptr()) })?;
            // SAFETY: filled, as the call succeeded.
            bytes = numbers(unsafe { id.assume_init() });
        }
        host.broadcast(&mut bytes, 0)?;
        let (id, rank, size) = (identifier(bytes), host.rank() as i32, host.size() as i32);
        let (mut comm, mut stream, mut token) = (ptr::null_mut(), ptr::null_mut(), 0);
        // SAFETY: NCCL makes a communicator in the place given; the id is rank 0's.
        let made = unsafe { sys::ncclCommInitRank(&mut comm, size, id, rank) };
        nccl("joining", made)?;
        // SAFETY: the driver makes a stream and a value in the places given.
        unsafe {
            cuda("making a stream", driver::cuStreamCreate(&mut stream, 0))?;
            cuda("allocating", driver::cuMemAlloc_v2(&mut token, 4))?;
        }
        Ok(Self { place: Arc::clone(&host.place), comm, stream, token })
    }

    /// Waits for what was enqueued. NCCL reports a rank that died as an error of the communicator.
    fn finish(&self, during: &'static str) -> Result<(), CollectiveError> {
        loop {
            // SAFETY: the stream is this communicator's own.
            match unsafe { driver::cuStreamQuery(self.stream) } {
                driver::CUresult::CUDA_ERROR_NOT_READY => {}
                result => return cuda(during, result),
            }
            let mut state = sys::ncclResult_t::ncclSuccess;
            // SAFETY: NCCL writes the state of a live communicator.
            nccl(during, unsafe { sys::ncclCommGetAsyncError(self.comm, &mut state) })?;
            nccl(during, state)?;
            if let Some(rank) = (0..self.size()).find(|r| *r != self.rank() && !self.place.lives(*r)) {
                return Err(CollectiveError::Gone { rank, during });
            }
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    /// One call a rank's share, as one operation.
    fn each_share(
        &self,
        values: &DeviceSlice,
        during: &'static str,
        call: impl Fn(&DeviceSlice, i32) -> sys::ncclResult_t,
    ) -> Result<(), CollectiveError> {
        // SAFETY: groups are opened and closed in this function.
        nccl(during, unsafe { sys::ncclGroupStart() })?;
        for rank in 0..self.size() {
            let own = DeviceSlice::share(values.len(), values.element(), rank, self.size());
            if !own.is_empty() {
                nccl(during, call(&values.part(own), rank as i32))?;
            }
        }
        // SAFETY: as above.
        nccl(during, unsafe { sys::ncclGroupEnd() })?;
        self.finish(during)
    }
}

const SUM: sys::ncclRedOp_t = sys::ncclRedOp_t::ncclSum;

/// The type that a sum is of.
///
/// # Panics
/// Of bits that are no number.
fn summand(values: &DeviceSlice) -> sys::ncclDataType_t {
    match values.element() {
        Element::F32 => sys::ncclDataType_t::ncclFloat32,
        Element::Bf16 => sys::ncclDataType_t::ncclBfloat16,
        Element::Bits16 => panic!("16 bits that are no number have no sum"),
    }
}

/// Values to be copied: their place, bytes and type.
fn copied(values: &DeviceSlice) -> (*mut c_void, usize, sys::ncclDataType_t) {
    let bytes = values.len() * values.element().size();
    (values.address() as *mut c_void, bytes, sys::ncclDataType_t::ncclUint8)
}

impl Collective for Nccl {
    type Values = DeviceSlice;

    fn rank(&self) -> usize {
        self.place.member().rank
    }

    fn size(&self) -> usize {
        self.place.member().size
    }

    fn all_reduce(&mut self, values: &mut DeviceSlice) -> Result<(), CollectiveError> {
        let (at, stream, kind) = (values.address() as *mut _, self.stream.cast(), summand(values));
        // SAFETY: `DeviceSlice` promises the memory; the call is waited for.
        let result = unsafe { sys::ncclAllReduce(at, at, values.len(), kind, SUM, self.comm, stream) };
        nccl("all-reduce", result)?;
        self.finish("all-reduce")
    }

    fn reduce_scatter(&mut self, values: &mut DeviceSlice) -> Result<(), CollectiveError> {
        let (comm, stream, kind) = (self.comm, self.stream.cast(), summand(values));
        self.each_share(values, "reduce-scatter", |part, rank| {
            let at = part.address() as *mut c_void;
            // SAFETY: as in `all_reduce`; in place, and only the root's share is written.
            unsafe { sys::ncclReduce(at, at, part.len(), kind, SUM, rank, comm, stream) }
        })
    }

    fn all_gather(&mut self, values: &mut DeviceSlice) -> Result<(), CollectiveError> {
        let (comm, stream) = (self.comm, self.stream.cast());
        self.each_share(values, "all-gather", |part, rank| {
            let (at, bytes, kind) = copied(part);
            // SAFETY: as in `all_reduce`.
            unsafe { sys::ncclBroadcast(at, at, bytes, kind, rank, comm, stream) }
        })
    }

    fn broadcast(&mut self, values: &mut DeviceSlice, root: usize) -> Result<(), CollectiveError> {
        let (at, bytes, kind) = copied(values);
        // SAFETY: as in `all_reduce`.
        let result =
            unsafe { sys::ncclBroadcast(at, at, bytes, kind, root as i32, self.comm, self.stream.cast()) };
        nccl("broadcast", result)?;
        self.finish("broadcast")
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        // SAFETY: the token is one value of this rank's own.
        let mut token = unsafe { DeviceSlice::new(self.token, 1, Element::F32) };
        self.all_reduce(&mut token)
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        // SAFETY: made in `join`, used no more. A communicator with a dead rank must be aborted, not destroyed.
        unsafe {
            let _ = sys::ncclCommAbort(self.comm);
            let _ = driver::cuMemFree_v2(self.token);
            let _ = driver::cuStreamDestroy_v2(self.stream);
        }
    }
}

/// Bytes of the id by which a communicator is found.
const ID_BYTES: usize = 128;

/// An id as numbers, which is what ranks send each other.
fn numbers(id: sys::ncclUniqueId) -> [f32; ID_BYTES] {
    id.internal.map(|byte| f32::from(byte as u8))
}

fn identifier(numbers: [f32; ID_BYTES]) -> sys::ncclUniqueId {
    sys::ncclUniqueId { internal: numbers.map(|byte| byte as u8 as _) }
}

fn nccl(place: &'static str, result: sys::ncclResult_t) -> Result<(), CollectiveError> {
    match result {
        sys::ncclResult_t::ncclSuccess | sys::ncclResult_t::ncclInProgress => Ok(()),
        error => Err(CollectiveError::Nccl { place, reason: format!("{error:?}") }),
    }
}

fn cuda(place: &'static str, result: driver::CUresult) -> Result<(), CollectiveError> {
    match result {
        driver::CUresult::CUDA_SUCCESS => Ok(()),
        error => Err(CollectiveError::Nccl { place, reason: format!("{error:?}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_summed_and_bits_only_copied() {
        // SAFETY: nothing is read there.
        let slice = |element| unsafe { DeviceSlice::new(4096, 8, element) };
        assert_eq!(summand(&slice(Element::F32)), sys::ncclDataType_t::ncclFloat32);
        assert_eq!(summand(&slice(Element::Bf16)), sys::ncclDataType_t::ncclBfloat16);
        assert!(std::panic::catch_unwind(|| summand(&slice(Element::Bits16))).is_err());
        for (element, bytes) in [(Element::F32, 32), (Element::Bf16, 16), (Element::Bits16, 16)] {
            assert_eq!(copied(&slice(element)).1, bytes);
        }
    }

    #[test]
    fn an_id_survives_the_way() {
        let mut id = sys::ncclUniqueId { internal: [0; ID_BYTES] };
        id.internal.iter_mut().enumerate().for_each(|(i, byte)| *byte = (2 * i) as u8 as _);
        assert_eq!(identifier(numbers(id)).internal, id.internal);
    }
}
