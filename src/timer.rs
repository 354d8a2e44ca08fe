//! How long a pass takes on the device (feature `blocking`).

use std::time::{Duration, Instant};

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
}

#[derive(Debug)]
struct Queries {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
}

const QUERY_BYTES: u64 = 16;

impl Timer {
    /// Takes timestamps if the device was created with [`TIMESTAMP_QUERY`](wgpu::Features::TIMESTAMP_QUERY).
    #[must_use]
    pub fn new(context: &Context) -> Self {
        let device = context.device();
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size: QUERY_BYTES,
                usage,
                mapped_at_creation: false,
            })
        };
        use wgpu::BufferUsages as Usages;
        let queries = device.features().contains(wgpu::Features::TIMESTAMP_QUERY).then(|| Queries {
            set: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            }),
            resolved: buffer(Usages::QUERY_RESOLVE | Usages::COPY_SRC),
            staging: buffer(Usages::MAP_READ | Usages::COPY_DST),
        });
        Self { context: context.clone(), queries }
    }

    /// `timestamp` or `wall`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        if self.queries.is_some() { "timestamp" } else { "wall" }
    }

    /// Submits one pass, waits for it, and says how long it took.
    ///
    /// # Errors
    /// [`Error::Readback`] if the device was lost, or its timestamps do not advance.
    pub fn pass(&self, record: impl FnOnce(&mut wgpu::ComputePass<'_>)) -> Result<Duration> {
        let (device, queue) = (self.context.device(), self.context.queue());
        let fail = |error: &dyn std::fmt::Display| Error::Readback(error.to_string());
        let wait = || device.poll(wgpu::PollType::wait_indefinitely()).map_err(|error| fail(&error));
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let timestamp_writes = self.queries.as_ref().map(|queries| wgpu::ComputePassTimestampWrites {
            query_set: &queries.set,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
        record(&mut pass);
        drop(pass);

        let Some(Queries { set, resolved, staging }) = &self.queries else {
            let commands = encoder.finish();
            let start = Instant::now();
            queue.submit([commands]);
            wait()?;
            return Ok(start.elapsed());
        };
        encoder.resolve_query_set(set, 0..2, resolved, 0);
        encoder.copy_buffer_to_buffer(resolved, 0, staging, 0, QUERY_BYTES);
        queue.submit([encoder.finish()]);
        staging.slice(..).map_async(wgpu::MapMode::Read, |_| ());
        wait()?;
        let bytes = staging.slice(..).get_mapped_range().map_err(|error| fail(&error))?;
        let ticks = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        let (begin, end) = (ticks(0), ticks(8));
        drop(bytes);
        staging.unmap();
        let ticks = end.checked_sub(begin).filter(|&ticks| ticks > 0);
        let ticks = ticks.ok_or_else(|| fail(&"the driver's timestamps do not advance"))?;
        Ok(Duration::from_nanos((ticks as f64 * f64::from(queue.get_timestamp_period())).round() as u64))
    }
}
