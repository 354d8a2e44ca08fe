//! How long a call takes on the device.

use std::time::{Duration, Instant};

use wgpu_attention::{Context, Workspace, wgpu};

use super::Failure;
use super::call::{Call, Step};

/// Work above which a plan of several dispatches is submitted piece by piece: a tenth of a second at 1 TFLOP/s.
/// Watchdogs count a submit as a whole.
const LONG_FLOPS: u64 = 100_000_000_000;
/// Calls shorter than this are repeated within a sample, for clocks are coarse and passes have a start and an end.
const SAMPLE: Duration = Duration::from_millis(1);
const MOST_CALLS: u32 = 64;
const WARM_UP: Duration = Duration::from_millis(50);

/// Timestamps in the pass where the device has them, the wall clock around submit and wait where not.
pub struct Timer {
    context: Context,
    queries: Option<Queries>,
}

struct Queries {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
}

const QUERY_BYTES: u64 = 16;

impl Timer {
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
    pub fn name(&self) -> &'static str {
        if self.queries.is_some() { "timestamp" } else { "wall" }
    }

    /// Runs a call until it is warm and settles how it is timed from then on.
    pub fn warm_up<'t, 'a>(&'t self, call: impl Into<Call<'a>>) -> Result<Timed<'t, 'a>, Failure> {
        let call = call.into();
        let long = call.flops() > LONG_FLOPS && call.dispatches() > 1;
        let workspaces = long.then(|| call.workspaces()).transpose()?;
        let mut timed = Timed { timer: self, call, workspaces, calls: 1, took: Duration::ZERO };
        let start = Instant::now();
        timed.took = timed.sample()?;
        while start.elapsed() < WARM_UP {
            timed.took = timed.took.min(timed.sample()?);
        }
        let calls = SAMPLE.as_secs_f64() / timed.took.as_secs_f64().max(1e-9);
        timed.calls = (calls.ceil() as u32).clamp(1, MOST_CALLS);
        Ok(timed)
    }

    /// Time of one submit with one pass.
    pub fn pass(&self, record: impl FnOnce(&mut wgpu::ComputePass<'_>)) -> Result<Duration, Failure> {
        let (device, queue) = (self.context.device(), self.context.queue());
        let wait =
            || device.poll(wgpu::PollType::wait_indefinitely()).map_err(|error| Failure::Failed(error.to_string()));
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
        let bytes = staging.slice(..).get_mapped_range().map_err(|error| Failure::Failed(error.to_string()))?;
        let ticks = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        let (begin, end) = (ticks(0), ticks(8));
        drop(bytes);
        staging.unmap();
        let ticks = end.checked_sub(begin).filter(|&ticks| ticks > 0);
        let ticks = ticks.ok_or_else(|| Failure::Failed("the driver's timestamps do not advance".into()))?;
        Ok(Duration::from_nanos((ticks as f64 * f64::from(queue.get_timestamp_period())).round() as u64))
    }
}

/// A warm call.
pub struct Timed<'t, 'a> {
    timer: &'t Timer,
    pub call: Call<'a>,
    /// One a step, given if the plans are submitted piece by piece.
    workspaces: Option<Vec<Option<Workspace>>>,
    calls: u32,
    /// The shortest time of the warm-up.
    pub took: Duration,
}

impl Timed<'_, '_> {
    /// Device time of one call; of a short call, the mean of several in one pass.
    pub fn sample(&self) -> Result<Duration, Failure> {
        let Some(workspaces) = &self.workspaces else {
            let calls = self.timer.pass(|pass| (0..self.calls).for_each(|_| self.call.record_in(pass)))?;
            return Ok(calls / self.calls);
        };
        let mut took = Duration::ZERO;
        for (step, workspace) in self.call.steps.iter().zip(workspaces) {
            let (Step::Op(prepared), Some(workspace)) = (step, workspace) else {
                took += self.timer.pass(|pass| step.record_in(pass))?;
                continue;
            };
            for piece in 0..prepared.plan().dispatches() {
                took += self.timer.pass(|pass| prepared.record_piece(pass, piece, workspace))?;
            }
        }
        Ok(took)
    }
}

/// The middle of some samples, or between the two in the middle; sorts them.
pub fn median(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    let middle = samples.len() / 2;
    match samples.len() % 2 {
        1 => samples[middle],
        _ => (samples[middle - 1] + samples[middle]) / 2,
    }
}
