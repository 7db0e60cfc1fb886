//! Lets one run have the machine to itself, as far as this judge can give it.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Ordinary runs share it; a run that must not be disturbed waits for them and keeps others waiting.
#[derive(Debug, Default)]
pub struct Gate(RwLock<()>);

impl Gate {
    pub fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
