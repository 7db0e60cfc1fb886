//! Ranks on one machine: a mapped file in which each has a region, and a barrier between.
//!
//! Rank 0 makes the file (in `/dev/shm` where there is one, so that nothing goes to a disk), the
//! others map it, and once all are there its name is removed: however the run ends, nothing is left.

use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use memmap2::MmapRaw;

use crate::rendezvous::{Member, Rendezvous};
use crate::{Collective, CollectiveError, futex, share};

/// Values of a rank's region: 4 MiB.
const REGION: usize = 1 << 20;
/// Bytes before the regions.
const HEADER: usize = 4096;
const MAGIC: u32 = 0xC06_0001;

/// What stands at the file's beginning; zero at first.
#[repr(C)]
struct Header {
    magic: AtomicU32,
    size: AtomicU32,
    /// Ranks that have come to the present barrier.
    arrived: AtomicU32,
    /// Barriers passed.
    generation: AtomicU32,
    /// 1 for each rank that has come at all.
    met: [AtomicU32; MOST],
}

/// Ranks that there can be.
const MOST: usize = 512;

/// The operations, in memory that the ranks share.
pub struct SharedMemory {
    pub(crate) place: Arc<Rendezvous>,
    map: MmapRaw,
    region: usize,
}

impl SharedMemory {
    /// Memory that each rank adds to every rank's.
    pub const REGION_BYTES: usize = 4 * REGION;

    /// Meets the other ranks.
    ///
    /// # Errors
    /// When one does not come in time, another process has this one's place, or the ranks were started for
    /// different numbers of them.
    pub fn join(member: &Member) -> Result<Self, CollectiveError> {
        Self::with_region(member, REGION)
    }

    /// As [`Self::join`], with `region` values at a time.
    fn with_region(member: &Member, region: usize) -> Result<Self, CollectiveError> {
        let place = Arc::new(Rendezvous::take(member)?);
        assert!(member.size <= MOST, "at most {MOST} ranks");
        if member.rank == 0 {
            let (path, map) = create(member, region)?;
            let memory = Self { place, map, region };
            let header = memory.header();
            header.size.store(member.size as u32, Ordering::Relaxed);
            header.magic.store(MAGIC, Ordering::Release);
            let met = memory.place.tell(&path.display().to_string()).and_then(|()| memory.meet(&|| true));
            let _ = fs::remove_file(&path);
            met?;
            return Ok(memory);
        }
        let mut place = Some(place);
        loop {
            let Some(taken) = place.take() else { unreachable!("the place is put back below") };
            let (told, map) = taken.patiently(0, || {
                let Some(told) = taken.told() else { return Ok(None) };
                Ok(attach(Path::new(&told), member, region)?.map(|map| (told, map)))
            })?;
            let memory = Self { place: taken, map, region };
            // What was told by a rank 0 that has died since leads to a barrier that nobody comes to.
            match memory.meet(&|| memory.place.told().as_deref() == Some(&told)) {
                Ok(()) => return Ok(memory),
                Err(CollectiveError::Gone { .. }) if memory.place.told().as_deref() != Some(&told) => {
                    place = Some(memory.place);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until every rank has come, in which time one may die and come again.
    fn meet(&self, valid: &dyn Fn() -> bool) -> Result<(), CollectiveError> {
        let member = self.place.member();
        let met = &self.header().met[..member.size];
        met[member.rank].store(1, Ordering::Release);
        let begun = Instant::now();
        while let Some(rank) = met.iter().position(|flag| flag.load(Ordering::Acquire) == 0) {
            if !valid() {
                return Err(CollectiveError::Gone { rank: 0, during: "meeting" });
            }
            if begun.elapsed() > member.patience {
                let (path, seconds) = (member.folder.clone(), member.patience.as_secs());
                return Err(CollectiveError::Absent { path, rank, seconds });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn header(&self) -> &Header {
        // SAFETY: the map is longer than a header, page-aligned, and only ever seen through atomics there.
        unsafe { &*self.map.as_ptr().cast::<Header>() }
    }

    /// Values `span` of `rank`'s region, to be read.
    ///
    /// # Safety
    /// No rank writes there before the next barrier.
    unsafe fn region(&self, rank: usize, span: Range<usize>) -> &[f32] {
        assert!(rank < self.size() && span.start <= span.end && span.end <= self.region);
        // SAFETY: within the map by the assertion; whoever writes there waits for the next barrier.
        unsafe { std::slice::from_raw_parts(self.at(rank).add(span.start), span.len()) }
    }

    /// As [`Self::region`], to be written.
    ///
    /// # Safety
    /// No other rank reads or writes there before the next barrier, and no other slice of it lives.
    #[expect(clippy::mut_from_ref, reason = "the memory is other processes' too; barriers keep them apart")]
    unsafe fn region_mut(&self, rank: usize, span: Range<usize>) -> &mut [f32] {
        assert!(rank < self.size() && span.start <= span.end && span.end <= self.region);
        // SAFETY: within the map by the assertion; alone until the next barrier by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at(rank).add(span.start), span.len()) }
    }

    fn at(&self, rank: usize) -> *mut f32 {
        // SAFETY: a region of each rank follows the header.
        unsafe { self.map.as_mut_ptr().add(HEADER).cast::<f32>().add(rank * self.region) }
    }

    /// Counts this rank in; the barrier to wait for, or `None` for the last to come.
    fn arrive(&self) -> Option<u32> {
        let header = self.header();
        let before = header.generation.load(Ordering::Acquire);
        if header.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.size() as u32 {
            header.arrived.store(0, Ordering::Relaxed);
            header.generation.fetch_add(1, Ordering::Release);
            futex::wake(&header.generation);
            return None;
        }
        Some(before)
    }

    fn pass(&self, during: &'static str) -> Result<(), CollectiveError> {
        let Some(before) = self.arrive() else { return Ok(()) };
        let passed = || self.header().generation.load(Ordering::Acquire) != before;
        for _ in 0..200 {
            if passed() {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        while !passed() {
            futex::wait(&self.header().generation, before, Duration::from_millis(100));
            if passed() {
                break;
            }
            let gone = (0..self.size()).find(|&rank| rank != self.rank() && !self.place.lives(rank));
            // It may have passed and ended in good order since.
            if let (Some(rank), false) = (gone, passed()) {
                return Err(CollectiveError::Gone { rank, during });
            }
        }
        Ok(())
    }

    /// Sums of a few values in double precision, over the ranks in order: losses and counts.
    pub fn all_reduce_f64(&mut self, values: &mut [f64]) -> Result<(), CollectiveError> {
        let during = "all-reduce";
        assert!(2 * values.len() <= self.region, "a few values");
        // SAFETY: each rank writes its own region.
        unsafe { self.region_mut(self.rank(), 0..2 * values.len()) }
            .copy_from_slice(bytemuck::cast_slice(values));
        self.pass(during)?;
        values.fill(0.0);
        for rank in 0..self.size() {
            // SAFETY: nothing is written between the two barriers.
            let theirs: &[f64] = bytemuck::cast_slice(unsafe { self.region(rank, 0..2 * values.len()) });
            values.iter_mut().zip(theirs).for_each(|(sum, x)| *sum += x);
        }
        self.pass(during)
    }
}

impl Collective for SharedMemory {
    type Values = [f32];

    fn rank(&self) -> usize {
        self.place.member().rank
    }

    fn size(&self) -> usize {
        self.place.member().size
    }

    fn all_reduce(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        let (rank, size, during) = (self.rank(), self.size(), "all-reduce");
        for part in values.chunks_mut(self.region) {
            let own = share(part.len(), rank, size);
            // SAFETY: each rank writes its own region.
            unsafe { self.region_mut(rank, 0..part.len()) }.copy_from_slice(part);
            self.pass(during)?;
            let mut sum = vec![0.0; own.len()];
            for rank in 0..size {
                // SAFETY: of every region each rank reads its own share only, and writes it only below.
                let theirs = unsafe { self.region(rank, own.clone()) };
                add(&mut sum, theirs, rank);
            }
            // SAFETY: no other rank reads this share of rank 0's region before the barrier.
            unsafe { self.region_mut(0, own) }.copy_from_slice(&sum);
            self.pass(during)?;
            // SAFETY: nothing is written between the two barriers.
            part.copy_from_slice(unsafe { self.region(0, 0..part.len()) });
            self.pass(during)?;
        }
        Ok(())
    }

    fn reduce_scatter(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        let (rank, size, during) = (self.rank(), self.size(), "reduce-scatter");
        let n = values.len();
        let step = self.region / size;
        // A piece of every rank's share at a time, so that all have something to add.
        for first in (0..n.div_ceil(size)).step_by(step) {
            let piece = |r: usize| {
                let own = share(n, r, size);
                (own.start + first).min(own.end)..(own.start + first + step).min(own.end)
            };
            for r in 0..size {
                let from = &values[piece(r)];
                // SAFETY: each rank writes its own region.
                unsafe { self.region_mut(rank, r * step..r * step + from.len()) }.copy_from_slice(from);
            }
            self.pass(during)?;
            let mine = &mut values[piece(rank)];
            for r in 0..size {
                // SAFETY: nothing is written between the two barriers.
                let theirs = unsafe { self.region(r, rank * step..rank * step + mine.len()) };
                add(mine, theirs, r);
            }
            self.pass(during)?;
        }
        Ok(())
    }

    fn all_gather(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        let (rank, size, during) = (self.rank(), self.size(), "all-gather");
        let n = values.len();
        for first in (0..n.div_ceil(size)).step_by(self.region) {
            let piece = |r: usize| {
                let own = share(n, r, size);
                (own.start + first).min(own.end)..(own.start + first + self.region).min(own.end)
            };
            let mine = &values[piece(rank)];
            // SAFETY: each rank writes its own region.
            unsafe { self.region_mut(rank, 0..mine.len()) }.copy_from_slice(mine);
            self.pass(during)?;
            for r in (0..size).filter(|r| *r != rank) {
                let to = &mut values[piece(r)];
                // SAFETY: nothing is written between the two barriers.
                to.copy_from_slice(unsafe { self.region(r, 0..to.len()) });
            }
            self.pass(during)?;
        }
        Ok(())
    }

    fn broadcast(&mut self, values: &mut [f32], root: usize) -> Result<(), CollectiveError> {
        let (rank, during) = (self.rank(), "broadcast");
        for part in values.chunks_mut(self.region) {
            if rank == root {
                // SAFETY: each rank writes its own region.
                unsafe { self.region_mut(rank, 0..part.len()) }.copy_from_slice(part);
            }
            self.pass(during)?;
            if rank != root {
                // SAFETY: nothing is written between the two barriers.
                part.copy_from_slice(unsafe { self.region(root, 0..part.len()) });
            }
            self.pass(during)?;
        }
        Ok(())
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.pass("barrier")
    }
}

/// Adds rank `rank`'s values, rank 0's being the first.
fn add(sum: &mut [f32], theirs: &[f32], rank: usize) {
    if rank == 0 {
        sum.copy_from_slice(theirs);
    } else {
        sum.iter_mut().zip(theirs).for_each(|(sum, x)| *sum += x);
    }
}

fn length(size: usize, region: usize) -> usize {
    HEADER + size * region * 4
}

/// A new file, mapped, under a name of its own.
fn create(member: &Member, region: usize) -> Result<(PathBuf, MmapRaw), CollectiveError> {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory } else { &member.folder };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let path = folder.join(format!("cognate-{}-{}", std::process::id(), now.as_nanos()));
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    let file = file.map_err(CollectiveError::io(&path))?;
    let map = file
        .set_len(length(member.size, region) as u64)
        .and_then(|()| MmapRaw::map_raw(&file))
        .map_err(CollectiveError::io(&path))?;
    Ok((path, map))
}

/// The file that rank 0 has made; `None` where it is not (or no longer) there, or not yet ready.
fn attach(path: &Path, member: &Member, region: usize) -> Result<Option<MmapRaw>, CollectiveError> {
    let Ok(file) = File::options().read(true).write(true).open(path) else { return Ok(None) };
    let map = MmapRaw::map_raw(&file).map_err(CollectiveError::io(path))?;
    if map.len() < HEADER {
        return Ok(None);
    }
    // SAFETY: the map is longer than a header and page-aligned.
    let header = unsafe { &*map.as_ptr().cast::<Header>() };
    if header.magic.load(Ordering::Acquire) != MAGIC {
        return Ok(None);
    }
    let theirs = header.size.load(Ordering::Relaxed) as usize;
    if theirs != member.size || map.len() != length(member.size, region) {
        return Err(CollectiveError::Size { path: member.folder.clone(), theirs, ours: member.size });
    }
    Ok(Some(map))
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
