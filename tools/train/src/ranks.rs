//! The processes of a data-parallel run: what each does of a step, what they agree on, and how a sharded checkpoint
//! comes about. With one process all of it is nothing.
//!
//! Every process runs the same loop over the same steps. Rank 0 alone keeps the run's state, log and output; the others
//! follow it from the checkpoint that it names. What they agree on goes through memory that they share, also where each
//! computes on a GPU of its own; gradients and weights then go from GPU to GPU, by NCCL.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use cognate_collective::{Collective, CollectiveError, Member, Nccl, SharedMemory, share};
use cognate_model::placed::Place;
use cognate_model::{StepSums, cuda};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use crate::cli::{Optimisation, Parallel};
use crate::optimise::fault;

/// Refuses what several processes cannot do, before any of them waits for another.
pub fn check(flags: &Parallel, optimisation: &Optimisation) -> Result<()> {
    if flags.rank >= flags.world_size {
        let reason =
            format!("--rank {} of --world-size {}: ranks count from 0", flags.rank, flags.world_size);
        return Err(cognate_cli::usage(reason));
    }
    if flags.world_size > 1 && optimisation.lora_rank > 0 {
        return Err(cognate_cli::usage("--lora-rank with --world-size: adapters are trained by one process"));
    }
    Ok(())
}

/// This process among the others.
pub struct Ranks {
    memory: SharedMemory,
    /// Between the ranks' GPUs; `None` on the CPU.
    devices: Option<Nccl>,
    folder: PathBuf,
}

impl Ranks {
    /// Meets the others beside the run's state; `None` for a run of one process. Where that is to go on to
    /// [`Self::join_devices`], a library that is missing for it is said before anybody is waited for.
    pub fn join(flags: &Parallel, state: &Path, place: &Place) -> Result<Option<Self>> {
        if flags.world_size == 1 {
            return Ok(None);
        }
        if place.is_some() {
            Nccl::installed().map_err(|error| {
                let error = fault(error.into());
                error.context("several processes on GPUs (--device cpu trains without)")
            })?;
        }
        let folder = folder(state);
        let member = Member {
            folder: folder.clone(),
            rank: flags.rank as usize,
            size: flags.world_size as usize,
            patience: Duration::from_secs(flags.rank_timeout),
        };
        let memory = SharedMemory::join(&member)?;
        Ok(Some(Self { memory, devices: None, folder }))
    }

    /// Where this rank computes on a GPU, joins it to the others'; all ranks have agreed that they do.
    pub fn join_devices(&mut self, place: &Place) -> Result<()> {
        let Some(on) = place else { return Ok(()) };
        // Makes the device's context this thread's, which is where NCCL looks for it.
        on.memory().map_err(|error| fault(error.into()))?;
        self.devices = Some(Nccl::join(&mut self.memory)?);
        Ok(())
    }

    pub fn rank(&self) -> usize {
        self.memory.rank()
    }

    pub fn size(&self) -> usize {
        self.memory.size()
    }

    /// Through the host's memory and, where the ranks are on GPUs, between those.
    pub fn planes(&mut self) -> (&mut SharedMemory, Option<&mut cuda::Devices>) {
        (&mut self.memory, self.devices.as_mut().map(|devices| devices as &mut cuda::Devices))
    }

    /// This rank's part of a step's rows.
    pub fn part<'a, T>(&self, rows: &'a [T]) -> &'a [T] {
        &rows[share(rows.len(), self.rank(), self.size())]
    }

    /// Refuses ranks whose settings or data differ from rank 0's; returns the step of rank 0's checkpoint.
    pub fn agree(&mut self, identity: &Value, checkpoint: u64) -> Result<u64> {
        // As two halves, which a double holds exactly.
        let hash = xxh3_64(identity.to_string().as_bytes());
        let mine = [(hash >> 32) as f64, (hash as u32).into(), checkpoint as f64];
        let mut theirs = if self.rank() == 0 { mine } else { [0.0; 3] };
        self.memory.all_reduce_f64(&mut theirs)?;
        if theirs[..2] != mine[..2] {
            let rank = self.rank();
            return Err(cognate_cli::rejected(anyhow!(
                "rank {rank} was started with other settings or other data than rank 0"
            )));
        }
        Ok(theirs[2] as u64)
    }

    /// Sums of all ranks.
    pub fn add(&mut self, sums: &mut StepSums) -> Result<(), CollectiveError> {
        self.memory.all_reduce_f64(sums.values_mut())
    }

    /// Whether any rank says so.
    pub fn any(&mut self, mine: bool) -> Result<bool, CollectiveError> {
        let mut count = [f64::from(u8::from(mine))];
        self.memory.all_reduce_f64(&mut count)?;
        Ok(count[0] > 0.0)
    }

    pub fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.memory.barrier()
    }

    /// Where rank `rank` puts its part of a checkpoint for rank 0 to take.
    pub fn draft(&self, rank: usize) -> PathBuf {
        self.folder.join(part(rank, self.size()))
    }

    /// Moves every rank's part into the checkpoint `dir`; all have been written.
    pub fn collect(&self, dir: &Path) -> Result<()> {
        for rank in 0..self.size() {
            let (from, to) = (self.draft(rank), dir.join(part(rank, self.size())));
            std::fs::rename(&from, &to).with_context(|| from.display().to_string())?;
        }
        Ok(())
    }

    /// The run is complete: all leave together, and rank 0 removes the folder in which they met.
    pub fn leave(mut self) -> Result<()> {
        self.barrier()?;
        if self.rank() == 0 {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
        Ok(())
    }
}

/// Name of a rank's part of the optimizer's state.
pub fn part(rank: usize, size: usize) -> String {
    format!("optimizer-{:05}-of-{size:05}.safetensors", rank + 1)
}

fn folder(state: &Path) -> PathBuf {
    let mut name = state.components().as_path().as_os_str().to_owned();
    name.push(".ranks");
    PathBuf::from(name)
}
