//! The pipelines that a context keeps, so that no plan compiles what another one has.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::wgsl::{Interface, Specialization};

/// A compiled kernel.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub label: String,
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
    pub interface: Interface,
    pub specialization: Specialization,
    /// When a plan took it last, by the count of [`Pipelines`].
    used: AtomicU64,
    forgotten: AtomicBool,
}

impl Pipeline {
    pub fn new(
        label: String,
        pipeline: wgpu::ComputePipeline,
        layout: wgpu::BindGroupLayout,
        specialization: Specialization,
    ) -> Self {
        let (interface, used, forgotten) = (specialization.interface(), AtomicU64::new(0), AtomicBool::new(false));
        Self { label, pipeline, layout, interface, specialization, used, forgotten }
    }

    /// Whether the context has let go of it, so that whoever holds it may be the last.
    pub fn is_forgotten(&self) -> bool {
        self.forgotten.load(Relaxed)
    }
}

/// Pipelines by what they are compiled from; forgets the one that was used longest ago when full.
#[derive(Debug, Default)]
pub(crate) struct Pipelines {
    kept: Mutex<HashMap<Specialization, Arc<Pipeline>>>,
    uses: AtomicU64,
}

impl Pipelines {
    pub fn get(&self, specialization: &Specialization) -> Option<Arc<Pipeline>> {
        let found = lock(&self.kept).get(specialization).cloned();
        found.inspect(|pipeline| self.mark_used(pipeline))
    }

    /// Keeps what was just compiled, and no more than `most` pipelines with it; hands out the one that another thread compiled
    /// meanwhile, if there is one.
    pub fn keep(&self, specialization: &Specialization, compiled: Pipeline, most: usize) -> Arc<Pipeline> {
        let mut kept = lock(&self.kept);
        let pipeline = kept.entry(specialization.clone()).or_insert_with(|| Arc::new(compiled)).clone();
        self.mark_used(&pipeline);
        while kept.len() > most {
            let oldest = kept.iter().min_by_key(|(_, pipeline)| pipeline.used.load(Relaxed));
            let Some(oldest) = oldest.map(|(specialization, _)| specialization.clone()) else { break };
            kept.remove(&oldest).inspect(|pipeline| pipeline.forgotten.store(true, Relaxed));
        }
        pipeline
    }

    pub fn mark_used(&self, pipeline: &Pipeline) {
        pipeline.used.store(self.uses.fetch_add(1, Relaxed), Relaxed);
    }

    pub fn clear(&self) {
        lock(&self.kept).drain().for_each(|(_, pipeline)| pipeline.forgotten.store(true, Relaxed));
    }

    pub fn len(&self) -> usize {
        lock(&self.kept).len()
    }

    pub fn specializations(&self) -> Vec<Specialization> {
        lock(&self.kept).keys().cloned().collect()
    }
}

/// Locks, ignoring poison: the caches stay whole whatever a panicking thread was doing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
