//! How long a pass takes on the device (feature `blocking`).

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::pipelines::lock;
use crate::{Context, Error, Result};

/// Times compute passes: by timestamps where the device has them, by the wall clock around submit and wait where not.
///
/// ```no_run
/// # fn main() -> wgpu_attention::Result<()> {
/// let context = wgpu_attention::Context::headless()?;
/// let timer = wgpu_attention::Timer::new(&context);
/// // `prepared.record_in(pass)` would stand in the closure.
/// let took = timer.pass(|_pass| ());
/// # let _ = took;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Timer {
    context: Context,
    queries: Option<Queries>,
    /// Held while a pass runs.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Queries {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
}

impl Timer {
    /// Takes timestamps if the device was created with [`TIMESTAMP_QUERY`](wgpu::Features::TIMESTAMP_QUERY), and has queries left.
    #[must_use]
    pub fn new(context: &Context) -> Self {
        let device = context.device();
        let create = || Queries {
            set: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            }),
            resolved: device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size: 16,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            }),
        };
        let granted = device.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        let queries = granted.then(|| context.scoped(create, Error::Readback).ok()).flatten();
        Self { context: context.clone(), queries, turn: Mutex::default() }
    }

    /// `timestamp` or `wall`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        if self.queries.is_some() { "timestamp" } else { "wall" }
    }

    /// Submits one pass, waits for it, and says how long it took.
    ///
    /// Threads may share a timer: they record at the same time, and their passes run one after the other.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; [`Error::Readback`] if wgpu refuses what is recorded, or the device's timestamps do not advance.
    pub fn pass(&self, record: impl FnOnce(&mut wgpu::ComputePass<'_>)) -> Result<Duration> {
        let (context, queue) = (&self.context, self.context.queue());
        let commands = || {
            let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let timestamp_writes = self.queries.as_ref().map(|queries| wgpu::ComputePassTimestampWrites {
                query_set: &queries.set,
                beginning_of_pass_write_index: Some(0),
                end_of_pass_write_index: Some(1),
            });
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
            record(&mut pass);
            drop(pass);
            if let Some(Queries { set, resolved }) = &self.queries {
                encoder.resolve_query_set(set, 0..2, resolved, 0);
            }
            encoder.finish()
        };
        let commands = context.scoped(commands, Error::Readback)?;

        let _turn = lock(&self.turn);
        let start = Instant::now();
        let submission = context.scoped(|| queue.submit([commands]), Error::Readback)?;
        context.wait(submission)?;
        let Some(Queries { resolved, .. }) = &self.queries else {
            return Ok(start.elapsed());
        };
        let ticks = match context.read_back::<u64>(resolved)?[..] {
            [begin, end] => end.checked_sub(begin).filter(|&ticks| ticks > 0),
            _ => None,
        };
        let ticks = ticks.ok_or_else(|| Error::Readback("the driver's timestamps do not advance".into()))?;
        Ok(Duration::from_nanos((ticks as f64 * f64::from(queue.get_timestamp_period())).round() as u64))
    }
}
